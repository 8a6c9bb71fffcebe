-- Which kinds of objects there are is the program's to know: the table is made again without a list of them.
CREATE TABLE objects_new (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,                 -- never reused: a rename is a new object
    valid_from INTEGER NOT NULL REFERENCES revisions (number),
    valid_to INTEGER REFERENCES revisions (number),   -- the first revision without it; NULL: it is there now
    body TEXT NOT NULL,                      -- the user's intent, JSON, without keys and without entries of lists
    parts TEXT NOT NULL,                     -- numbers of rules or backends by name, JSON
    PRIMARY KEY (kind, name, valid_from)
) STRICT;
INSERT INTO objects_new SELECT * FROM objects;
DROP TABLE objects;
ALTER TABLE objects_new RENAME TO objects;
CREATE INDEX objects_now ON objects (kind, name) WHERE valid_to IS NULL;
CREATE INDEX objects_from ON objects (valid_from);
CREATE INDEX objects_to ON objects (valid_to);

-- Entries of address lists: they change without a revision, so that only what is true now is kept. They stay when their
-- list is deleted, so that a restored one finds them again.
CREATE TABLE address_list_entries (
    list TEXT PRIMARY KEY,
    edition INTEGER NOT NULL,                -- goes up with every change
    updated_at TEXT NOT NULL,                -- RFC 3339
    entries BLOB NOT NULL                    -- awe4lb.v1.AddressList
) STRICT;
