"""Lab notes: one file per run, each with a get_config()."""
