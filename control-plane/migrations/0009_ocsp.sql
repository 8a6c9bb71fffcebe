-- What OCSP responders said last: sent along with certificates at once after a restart. Checked anew when it is read.
CREATE TABLE ocsp_answers (
    fingerprint TEXT PRIMARY KEY,            -- SHA-256 of the certificate, hex
    answer BLOB NOT NULL,                    -- DER
    until INTEGER NOT NULL                   -- unix seconds: worth nothing after that
) STRICT;
