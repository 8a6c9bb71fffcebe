-- The fleet: who may be a node, what each is told to run, and what was set by hand.

-- The one certificate authority of this cluster. Its key is sealed.
CREATE TABLE fleet_authority (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    cluster TEXT NOT NULL,
    certificate_der BLOB NOT NULL,
    key_sealed BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE nodes (
    name TEXT PRIMARY KEY,
    labels TEXT NOT NULL,                    -- JSON object
    key_hash BLOB NOT NULL,                  -- SHA-256 of the public key
    previous_key_hash BLOB,                  -- before the last renewal, whose answer may have been lost
    not_after INTEGER NOT NULL,              -- of the certificate, Unix seconds
    banned INTEGER NOT NULL DEFAULT 0,
    draining INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    last_seen INTEGER,
    facts TEXT NOT NULL DEFAULT '{}',        -- what its last hello said, JSON
    -- The assignment: only ever goes up.
    epoch INTEGER NOT NULL DEFAULT 1,
    sequence INTEGER NOT NULL DEFAULT 0,     -- 0: nothing was assigned yet
    manifest BLOB,
    -- What it rejected, and is not sent again.
    rejected BLOB,
    rejection TEXT                           -- JSON
) STRICT;

CREATE TABLE join_tokens (
    id TEXT PRIMARY KEY,
    secret_hash BLOB NOT NULL UNIQUE,
    uses INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0,
    labels TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- Who used a token: a retry with the same key gets the same certificate.
CREATE TABLE join_token_uses (
    token TEXT NOT NULL REFERENCES join_tokens (id) ON DELETE CASCADE,
    key_hash BLOB NOT NULL,
    node TEXT NOT NULL,
    certificate_der BLOB NOT NULL,
    not_after INTEGER NOT NULL,
    PRIMARY KEY (token, key_hash)
) STRICT;

-- Admin states other than ready, by the number of the backend: a rename is another backend.
CREATE TABLE admin_states (
    backend INTEGER PRIMARY KEY,
    pool TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('drain', 'maintenance')),
    until_ms INTEGER NOT NULL,               -- Unix milliseconds; 0: no deadline
    reason TEXT NOT NULL
) STRICT;

CREATE TABLE overlay_versions (
    pool TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT;
