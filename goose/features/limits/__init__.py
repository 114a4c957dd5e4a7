"""Limits: how many jobs of a kind may start in a time, and how many may run at once."""
