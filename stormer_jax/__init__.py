"""The detector: model, losses, training, evaluation, prediction."""
