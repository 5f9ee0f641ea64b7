"""What a trained detector says, and how good it is."""
