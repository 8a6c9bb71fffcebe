-- The authority that signs certificates for development and for backends. Its key is sealed; made when it is first asked for.
CREATE TABLE internal_authority (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    certificate_der BLOB NOT NULL,
    key_sealed BLOB NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
