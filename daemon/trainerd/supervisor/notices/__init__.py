"""Telling people and programs what happened to jobs: which notices follow from what, and their delivery."""
