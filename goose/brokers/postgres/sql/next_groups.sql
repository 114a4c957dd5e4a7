-- next_groups.sql: the groups of ready jobs, in the order of their turns, of so many jobs.
SELECT grp FROM {s}.jobs WHERE state = 1 AND queue = %(queue)s AND rank > {turns} ORDER BY rank LIMIT %(limit)s
