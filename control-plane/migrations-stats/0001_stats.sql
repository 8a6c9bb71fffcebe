-- Statistics, in a file of their own: it may be deleted, and grows by itself.

-- Cumulative counters by process start of a node. Numbers are put together by 256, as they change together.
CREATE TABLE counters (
    node TEXT NOT NULL,
    boot BLOB NOT NULL,                      -- empty: the sum of boots that are over
    shard INTEGER NOT NULL,                  -- number / 256
    body BLOB NOT NULL,                      -- awe4lb.v1.CounterReport, only its counters
    PRIMARY KEY (node, boot, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE boots (
    node TEXT NOT NULL,
    boot BLOB NOT NULL,
    sequence INTEGER NOT NULL,               -- of the last report that is in it
    begun_at INTEGER NOT NULL,
    PRIMARY KEY (node, boot)
) STRICT, WITHOUT ROWID;

-- What a number was: it stays in the sums when its object is gone.
CREATE TABLE numbers (
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL
) STRICT;

-- Rates over time, by step: 10 s for four hours, 5 min for 30 days.
CREATE TABLE history (
    step INTEGER NOT NULL,
    at INTEGER NOT NULL,                     -- Unix seconds, the beginning
    series TEXT NOT NULL,
    bytes_in REAL NOT NULL,
    bytes_out REAL NOT NULL,
    connections REAL NOT NULL,
    active REAL NOT NULL,
    PRIMARY KEY (step, series, at)
) STRICT, WITHOUT ROWID;

CREATE INDEX history_by_age ON history (step, at);
