"""A start from real faces alone: masked auto-encoding."""
