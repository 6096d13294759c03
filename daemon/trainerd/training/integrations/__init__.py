"""Integrations with frameworks that have the loop. Each imports its framework, and nothing else here does."""
