"""The life of a run: its position, history, checkpoints and resume."""
