"""Requests to stop: signals, the deadline, and how a process leaves."""
