"""Checks of an installation: problems and their remedies. Changes nothing."""
