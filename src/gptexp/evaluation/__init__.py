"""Scores of a trained model: on its corpus, on any text, and on published tasks."""
