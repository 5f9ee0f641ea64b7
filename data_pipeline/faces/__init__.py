"""A file -> the main face in its frames."""
