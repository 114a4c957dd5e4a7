-- loan.sql: a loan that is still there, with its body. Waits for a transaction that may be ending it.
SELECT body FROM {s}.jobs WHERE id = %(id)s AND receipt = %(receipt)s AND state = 2 FOR KEY SHARE
