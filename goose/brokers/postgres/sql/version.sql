-- version.sql: of which version the tables are, and which is the oldest that may use them.
SELECT version, oldest FROM {s}.meta ORDER BY version DESC LIMIT 1
