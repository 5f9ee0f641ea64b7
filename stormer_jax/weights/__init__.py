"""Weights from and to elsewhere."""
