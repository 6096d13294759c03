"""Faults on purpose: what trainerd promises, shown on real processes."""
