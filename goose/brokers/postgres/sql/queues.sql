-- queues.sql: jobs of each queue in each state, and since when its longest waiting ready job waits.
SELECT queue, state, count(*), {now} - min(at) FROM {s}.jobs GROUP BY queue, state
