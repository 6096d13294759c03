"""The supervisor's structured log: events, their sinks, and the sentences that people read."""
