"""The journal: the state of all jobs in SQLite, written before a decision is carried out."""
