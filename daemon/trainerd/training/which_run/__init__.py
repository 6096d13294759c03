"""Which run a program trains that has no supervisor, and how it is named."""
