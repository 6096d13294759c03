"""The HTTP API of the supervisor, over a Unix socket."""
