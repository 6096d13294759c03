"""Where the time of a run went, from the journal and what its ranks leave behind."""
