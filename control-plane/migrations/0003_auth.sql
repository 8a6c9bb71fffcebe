-- Who may use the control plane. Secrets are hashed: nothing here lets anyone in.

CREATE TABLE users (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    password TEXT NOT NULL,                  -- argon2id, PHC string
    created_at INTEGER NOT NULL              -- Unix seconds, as all times here
) STRICT;

CREATE TABLE sessions (
    secret_hash BLOB PRIMARY KEY,            -- SHA-256
    user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    secret_hash BLOB NOT NULL UNIQUE,        -- SHA-256
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER                       -- NULL: never
) STRICT;
