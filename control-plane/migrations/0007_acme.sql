-- Secrets that came with objects, sealed. A secret is found by what it belongs to (the id of a key, a URL), so that a
-- restored object finds its own again, and never that of another.
CREATE TABLE secrets (
    kind TEXT NOT NULL,                      -- acmeAccount, certificate
    name TEXT NOT NULL,
    belongs_to TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (kind, name, belongs_to)
) STRICT;

-- The chains of certificates that are issued: they change without a revision, so that only what is true now is kept.
-- Their keys are among private_keys. They stay when their certificate is deleted, so that a restored one finds them.
CREATE TABLE issued_chains (
    certificate TEXT NOT NULL,
    key_type TEXT NOT NULL,                  -- p256, p384, rsa2048
    origin TEXT NOT NULL,                    -- acme, uploaded, placeholder
    source TEXT NOT NULL,                    -- acme: directory, profile and names
    chain TEXT NOT NULL,                     -- PEM
    issued_at TEXT NOT NULL,                 -- RFC 3339
    PRIMARY KEY (certificate, key_type)
) STRICT;

-- Accounts with certificate authorities, by where they are: another directory is another account.
CREATE TABLE acme_accounts (
    name TEXT NOT NULL,
    directory TEXT NOT NULL,
    external_key_id TEXT NOT NULL,           -- empty: none
    url TEXT NOT NULL,                       -- where the authority keeps it; empty: not known there yet
    contact TEXT NOT NULL,                   -- JSON, as the authority was told
    sealed BLOB NOT NULL,                    -- the key, PKCS#8
    created_at TEXT NOT NULL,
    PRIMARY KEY (name, directory, external_key_id)
) STRICT;

-- Orders on their way: written before and after each step, so that a control plane that ends goes on with the same one.
CREATE TABLE acme_orders (
    certificate TEXT NOT NULL,
    key_type TEXT NOT NULL,
    wanted TEXT NOT NULL,                    -- JSON of what was ordered: another wish makes another order
    url TEXT NOT NULL,
    sealed_key BLOB NOT NULL,                -- the key of the certificate to come
    challenge INTEGER NOT NULL,              -- which kind of the wanted ones is tried: 0, the first
    presented TEXT NOT NULL,                 -- JSON: records in zones, to be taken out again
    placed_at TEXT NOT NULL,
    PRIMARY KEY (certificate, key_type)
) STRICT;

-- What went wrong, and when to try again.
CREATE TABLE acme_attempts (
    certificate TEXT NOT NULL,
    key_type TEXT NOT NULL,
    failures INTEGER NOT NULL,               -- in a row
    failed_at INTEGER NOT NULL,              -- unix seconds
    not_sooner INTEGER NOT NULL,             -- unix seconds: what the authority asked for
    last_error TEXT NOT NULL,                -- JSON
    PRIMARY KEY (certificate, key_type)
) STRICT;

-- Orders that were placed lately, to be counted: written before the authority is asked.
CREATE TABLE acme_placed (
    directory TEXT NOT NULL,
    account TEXT NOT NULL,
    certificate TEXT NOT NULL,
    placed_at INTEGER NOT NULL               -- unix seconds
) STRICT;
CREATE INDEX acme_placed_when ON acme_placed (directory, account, placed_at);
