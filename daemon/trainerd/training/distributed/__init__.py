"""Several ranks: their store, agreement at boundaries, joint saves and resumes."""
