-- The last good answers of sources of backends: what counts after a restart until a source answers again.
CREATE TABLE discovered (
    pool INTEGER NOT NULL,                   -- number of the pool
    source TEXT NOT NULL,                    -- its id within the pool
    answered_at TEXT NOT NULL,               -- RFC 3339
    answer BLOB NOT NULL,                    -- awe4lb.v1.SourceAnswer
    PRIMARY KEY (pool, source)
) STRICT;
