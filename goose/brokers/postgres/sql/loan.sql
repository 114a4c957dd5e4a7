-- loan.sql: is a loan still there? Waits for a transaction that may be ending it.
SELECT id FROM {s}.jobs WHERE id = %(id)s AND receipt = %(receipt)s AND state = 2 FOR KEY SHARE
