"""Flows: jobs that wait for others, and take what those return.

`asking` makes the trait, `claim` has new jobs join their parents, `book` knows who waits for whom,
`trait` fills in what was returned, `drawing` shows a flow.
"""
