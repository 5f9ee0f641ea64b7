"""How a run stays alive and is remembered."""
