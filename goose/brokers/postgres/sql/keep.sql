-- keep.sql: carry out operations of a store in one step; returns their answers.
SELECT {s}.store_apply(%(group)s::text, %(kinds)b::text[], %(keys)b::text[], %(olds)b::bytea[],
                       %(news)b::bytea[], %(words)b::text[], %(ttls)b::int8[])
