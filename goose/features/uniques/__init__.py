"""Uniqueness: at most one job for a key, from its enqueue until its start, its end, or some seconds."""
