-- note.sql: replace the body of a job that is lent, where the loan is still good. Returns how many.
WITH noted AS (
    UPDATE {s}.jobs AS j SET body = %(body)b::bytea
    WHERE j.id = %(id)s AND j.receipt = %(receipt)s
        AND EXISTS (SELECT FROM {s}.sessions AS s WHERE s.seq = j.holder AND s.state = 0)
    RETURNING j.id
)
SELECT count(*) FROM noted
