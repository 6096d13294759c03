"""Static analysis of training scripts."""
