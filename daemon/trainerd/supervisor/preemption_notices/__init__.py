"""Notices that this machine is about to be taken: who gives them, and what is done about them."""
