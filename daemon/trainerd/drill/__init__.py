"""`trainerd drill`: rehearses the death of the user's own job on copies, and compares bit for bit."""
