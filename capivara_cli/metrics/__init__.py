"""Metrics: recall, accuracies, average precision and bootstrap intervals, computed from arrays or tensors."""
