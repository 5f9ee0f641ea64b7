"""From video files to batches of self-blended pairs."""
