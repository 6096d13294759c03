"""The checkpoint store: write, list, verify, prune and quarantine checkpoints. Never imports torch."""
