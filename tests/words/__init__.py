"""Word linter: finds words in pages, messages, docstrings and comments that have a plainer form."""
