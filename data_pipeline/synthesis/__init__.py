"""A clip -> a self-blended pair."""
