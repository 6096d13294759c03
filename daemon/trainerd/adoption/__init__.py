"""Turns a plain training script into one that resumes: text in, changed text or refusals out."""
