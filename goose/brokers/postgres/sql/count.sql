-- count.sql: jobs in a state, of a queue or of all.
SELECT count(*) FROM {s}.jobs WHERE state = {state} AND (%(queue)s::text IS NULL OR queue = %(queue)s)
