"""The page: what the supervisor does, for a browser. Served over TCP with a token, or on a socket."""
