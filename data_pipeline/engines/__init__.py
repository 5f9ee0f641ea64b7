"""Who carries out the work on many videos."""
