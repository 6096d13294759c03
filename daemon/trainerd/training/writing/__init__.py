"""From a snapshot in memory to durable files."""
