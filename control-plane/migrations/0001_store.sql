-- The configuration: one row per version of an object, valid over a range of revisions. History, the state as of a
-- revision and the difference between two are ranges over this one table.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE revisions (
    number INTEGER PRIMARY KEY,
    created_at TEXT NOT NULL,                -- RFC 3339
    author TEXT NOT NULL,
    source TEXT NOT NULL,                    -- api, console, cli
    message TEXT NOT NULL,
    summary TEXT NOT NULL                    -- JSON {create, update, delete}
) STRICT;

CREATE TABLE objects (
    kind TEXT NOT NULL CHECK (kind IN ('defaults', 'listener', 'pool', 'certificate')),
    name TEXT NOT NULL,
    number INTEGER NOT NULL,                 -- never reused: a rename is a new object
    valid_from INTEGER NOT NULL REFERENCES revisions (number),
    valid_to INTEGER REFERENCES revisions (number),   -- the first revision without it; NULL: it is there now
    body TEXT NOT NULL,                      -- the user's intent, JSON, without keys
    parts TEXT NOT NULL,                     -- numbers of rules or backends by name, JSON
    PRIMARY KEY (kind, name, valid_from)
) STRICT;

CREATE INDEX objects_now ON objects (kind, name) WHERE valid_to IS NULL;
CREATE INDEX objects_from ON objects (valid_from);
CREATE INDEX objects_to ON objects (valid_to);

-- Sealed, and apart from the rest: a dump of the objects holds no secret. A key is found by the public key of the
-- certificate that it belongs to, so that a restored certificate finds its key again.
CREATE TABLE private_keys (
    certificate TEXT NOT NULL,
    public_key_hash BLOB NOT NULL,           -- SHA-256 of the SubjectPublicKeyInfo
    sealed BLOB NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (certificate, public_key_hash)
) STRICT;
