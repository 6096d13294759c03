"""`make demo`: a training run is killed and drained, and comes out equal to an undisturbed one."""
