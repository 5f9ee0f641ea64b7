"""What the detector is measured against: other models, the same run."""
