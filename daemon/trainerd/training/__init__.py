"""The training side: what a training script imports. The only importer of torch."""
