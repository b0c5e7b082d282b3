"""Data sets, their splits into tasks, and the augmentations of their images."""
