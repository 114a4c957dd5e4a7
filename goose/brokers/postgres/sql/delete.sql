-- delete.sql: remove those of these jobs that are in a state.
DELETE FROM {s}.jobs WHERE state = {state} AND id = ANY(%(ids)b::text[]) RETURNING id
