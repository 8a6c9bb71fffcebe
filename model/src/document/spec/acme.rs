//! The fields of ACME: accounts, what is issued, and how records get into a zone.

use super::{Kind, ObjectSpec, field, required};

/// The types of hooks, each with the fields that are its own.
pub(in crate::document) const DNS_TYPES: &[(&str, &[&str])] = &[
    ("rfc2136", &["server", "zone", "key", "algorithm", "secret"]),
    ("exec", &["command"]),
    ("http", &["url", "ca", "secret"]),
];

pub(in crate::document) static ACCOUNT: ObjectSpec = ObjectSpec {
    name: "ACME account",
    fields: &[
        required("name", Kind::Name, "Unique among accounts."),
        required("directory", Kind::Text, "The URL of the authority's directory."),
        required(
            "termsAgreed",
            Kind::Bool,
            "That you agree to the authority's terms of service: without `true` there is no account.",
        ),
        field("contact", Kind::List(&Kind::Text), "[]", "How the authority reaches you: addresses for mail."),
        field(
            "externalAccountBinding",
            Kind::Object(&EXTERNAL),
            "",
            "Binds the account to one that the authority knows already.",
        ),
        field(
            "ca",
            Kind::Pem("CERTIFICATE"),
            "",
            "Whom to trust instead of the system's: a private authority's root.",
        ),
        field(
            "ordersPerHour",
            Kind::Integer { min: 1, max: 1_000_000 },
            "100",
            "Orders that the authority takes; up to three hours' worth are placed at once, the others wait.",
        ),
    ],
    later: &["keyType"],
};

static EXTERNAL: ObjectSpec = ObjectSpec {
    name: "externalAccountBinding",
    fields: &[
        required("keyId", Kind::Text, "As the authority gave it."),
        field(
            "secret",
            Kind::Text,
            "",
            "The key, base64url. Never comes back out; absent: the stored one of this `keyId` stays.",
        ),
    ],
    later: &[],
};

pub(super) static ACME: ObjectSpec = ObjectSpec {
    name: "acme",
    fields: &[
        required("account", Kind::Name, "The account that orders it."),
        required("domains", Kind::List(&Kind::Text), "What it is for; `*.example.com` needs dns-01."),
        required(
            "challenge",
            Kind::OneOrMany(&Kind::Word { words: &["http-01", "tls-alpn-01", "dns-01"], later: &[] }),
            "How the authority convinces itself; of several the next where one fails.",
        ),
        field(
            "keyType",
            Kind::OneOrMany(&Kind::Word { words: &["p256", "p384", "rsa2048"], later: &[] }),
            "\"p256\"",
            "The key; of several one chain each, and clients get the one they can use.",
        ),
        field("profile", Kind::Text, "", "A profile of the authority, such as `shortlived`."),
        field(
            "renewBefore",
            Kind::Duration,
            "",
            "How long before its end it is renewed; absent: at a third of its life, or when the authority says so.",
        ),
        field("dns", Kind::Object(&DNS), "", "For dns-01: how records get into the zone."),
    ],
    later: &[],
};

static DNS: ObjectSpec = ObjectSpec {
    name: "dns",
    fields: &[
        required(
            "type",
            Kind::Word { words: &["rfc2136", "exec", "http"], later: &[] },
            "Dynamic updates, a program, or an HTTP service.",
        ),
        field(
            "server",
            Kind::Text,
            "",
            "rfc2136: the zone's primary server, an address with or without port; required.",
        ),
        field("zone", Kind::Text, "", "rfc2136: the zone; absent: the server is asked."),
        field("key", Kind::Text, "", "rfc2136: the name of the TSIG key; absent: updates are not signed."),
        field(
            "algorithm",
            Kind::Word { words: &["hmac-sha256", "hmac-sha384", "hmac-sha512"], later: &[] },
            "\"hmac-sha256\"",
            "rfc2136: of the key.",
        ),
        field(
            "secret",
            Kind::Text,
            "",
            "rfc2136: the key, base64. http: sent as bearer token. Never comes back out; absent: the stored one stays.",
        ),
        field(
            "command",
            Kind::List(&Kind::Text),
            "",
            "exec: the program by its whole path, which `--allow-exec` allows, and first arguments; `present` or `cleanup`, name and value follow.",
        ),
        field(
            "url",
            Kind::Text,
            "",
            "http: `URL/present` and `URL/cleanup` get `{\"fqdn\", \"value\"}` by POST.",
        ),
        field("ca", Kind::Pem("CERTIFICATE"), "", "http: whom to trust instead of the system's."),
        field(
            "servers",
            Kind::List(&Kind::Text),
            "[]",
            "Who is asked whether the record is there, as address or address and port; none: the name servers of the zone.",
        ),
        field("check", Kind::Bool, "true", "Whether anybody is asked before the authority is."),
        field("timeout", Kind::Duration, "\"2m\"", "How long the record may take until it is seen."),
    ],
    later: &[],
};
