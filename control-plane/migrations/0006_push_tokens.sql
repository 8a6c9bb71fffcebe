-- Tokens that may do one thing only: tell one source of backends what it has.
CREATE TABLE api_tokens_new (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('pusher', 'viewer', 'operator', 'admin')),
    pushes_to TEXT,                          -- of a pusher: pool/source
    secret_hash BLOB NOT NULL UNIQUE,        -- SHA-256
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,                      -- NULL: never
    CHECK ((role = 'pusher') = (pushes_to IS NOT NULL))
) STRICT;
INSERT INTO api_tokens_new (id, name, role, secret_hash, created_by, created_at, expires_at)
    SELECT id, name, role, secret_hash, created_by, created_at, expires_at FROM api_tokens;
DROP TABLE api_tokens;
ALTER TABLE api_tokens_new RENAME TO api_tokens;
