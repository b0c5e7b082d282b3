"""Kaizen: continual self-supervised learning that keeps both the features and the classifier."""
