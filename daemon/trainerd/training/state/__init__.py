"""What is captured and restored: tensors, trees of state, random generators, fingerprints."""
