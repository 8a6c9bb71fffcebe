//! The fields of health checks. Which of them a type takes is declared here too: what a type does not use it refuses.

use super::{Kind, ObjectSpec, field, required};

/// The types, each with the fields that are its own.
pub(in crate::document) const TYPES: &[(&str, &[&str])] = &[
    ("tcp", &[]),
    ("tls", &["tls"]),
    ("http", &["tls", "method", "path", "host", "headers", "status", "body", "maxBodyBytes"]),
    ("https", &["tls", "method", "path", "host", "headers", "status", "body", "maxBodyBytes"]),
    ("grpc", &["tls", "service", "authority"]),
    ("udp", &["send", "expect"]),
    ("dns", &["query", "record", "rcode"]),
    ("script", &["tls", "steps"]),
    ("postgres", &["user", "password", "database", "role"]),
    ("mysql", &["user", "password", "role"]),
    ("redis", &["tls", "user", "password", "role"]),
    ("agent", &[]),
    ("exec", &["command", "maxOutputBytes"]),
];

/// The fields that every type takes.
pub(in crate::document) const COMMON: &[&str] = &[
    "type",
    "interval",
    "fastInterval",
    "timeout",
    "rise",
    "fall",
    "initial",
    "port",
    "address",
    "proxyProtocol",
];

const MILLION: i64 = 1_000_000;

pub(in crate::document) static HEALTH_CHECK: ObjectSpec = ObjectSpec {
    name: "healthCheck",
    fields: &[
        required(
            "type",
            Kind::Word {
                words: &[
                    "tcp", "http", "grpc", "udp", "dns", "script", "postgres", "mysql", "redis", "agent",
                    "exec",
                ],
                later: &["tls", "https"],
            },
            "What is asked.",
        ),
        field("interval", Kind::Duration, "\"5s\"", "Between the starts of two checks."),
        field(
            "fastInterval",
            Kind::Duration,
            "",
            "The same after a first failure or success, until the change is sure; absent: `interval`.",
        ),
        field("timeout", Kind::Duration, "\"2s\"", "How long one check may take."),
        field(
            "rise",
            Kind::Integer { min: 1, max: 1_000 },
            "2",
            "Successes in a row that make a backend up.",
        ),
        field("fall", Kind::Integer { min: 1, max: 1_000 }, "3", "Failures in a row that make it down."),
        field(
            "initial",
            Kind::Word { words: &["check", "up", "down"], later: &[] },
            "\"check\"",
            "Before the first result: `check` is usable and the first result decides; `up` and `down` take `fall` and `rise` results to change.",
        ),
        field("port", Kind::Integer { min: 1, max: 65_535 }, "", "Another port than the backend's."),
        field("address", Kind::Ip, "", "Another address than the backend's."),
        field(
            "proxyProtocol",
            Kind::Bool,
            "",
            "Whether checks send a PROXY header (version 2 where the pool sends none); absent: where the pool does.",
        ),
        field("method", Kind::Text, "\"GET\"", "http: the method."),
        field("path", Kind::Text, "\"/\"", "http: the path, with the query if there is one."),
        field("host", Kind::Text, "", "http: the `Host` header; absent: `localhost`."),
        field("headers", Kind::Labels, "{}", "http: more headers."),
        field(
            "status",
            Kind::OneOrMany(&Kind::Statuses),
            "[\"200-399\"]",
            "http: the status is one of these. Redirects are not followed.",
        ),
        field("body", Kind::TextOr(&PATTERN), "", "http: what the body holds; absent: it is not read."),
        field(
            "maxBodyBytes",
            Kind::Integer { min: 1, max: 65_536 },
            "65536",
            "http: as much of the body is looked at.",
        ),
        field("service", Kind::Text, "", "grpc: which service; absent: the server as a whole."),
        field("authority", Kind::Text, "", "grpc: the `:authority`; absent: `localhost`."),
        field("send", Kind::TextOr(&PAYLOAD), "", "udp: the datagram that is sent; required."),
        field("expect", Kind::TextOr(&PATTERN), "", "udp: what the answer holds; absent: anything."),
        field("query", Kind::Text, "\".\"", "dns: the name that is asked for."),
        field(
            "record",
            Kind::Word { words: &["a", "aaaa", "ns", "cname", "soa", "ptr", "mx", "txt", "srv"], later: &[] },
            "\"ns\"",
            "dns: the type of record.",
        ),
        field(
            "rcode",
            Kind::Integer { min: 0, max: 15 },
            "0",
            "dns: the response code that is healthy; 0 is NOERROR.",
        ),
        field(
            "steps",
            Kind::List(&Kind::Object(&STEP)),
            "",
            "script: what is sent and expected, in this order; required.",
        ),
        field(
            "user",
            Kind::Text,
            "",
            "postgres, mysql, redis: who asks. postgres: absent is `awe4lb`; mysql: absent is only the greeting.",
        ),
        field("database", Kind::Text, "\"postgres\"", "postgres: which database."),
        field(
            "role",
            Kind::Word { words: &["any", "primary", "replica"], later: &[] },
            "\"any\"",
            "postgres, mysql, redis: what the server must be. Anything but `any` takes a login.",
        ),
        field(
            "command",
            Kind::List(&Kind::Text),
            "",
            "exec: the program and its arguments, without a shell; required. Each node must allow the program.",
        ),
        field(
            "maxOutputBytes",
            Kind::Integer { min: 1, max: MILLION },
            "4096",
            "exec: as much of what it writes is kept.",
        ),
    ],
    later: &["tls", "password"],
};

/// Bytes to send, other than text.
static PAYLOAD: ObjectSpec = ObjectSpec {
    name: "payload",
    fields: &[field("hex", Kind::Hex, "", "Bytes in hexadecimal.")],
    later: &["secret"],
};

/// What to look for, other than text.
static PATTERN: ObjectSpec = ObjectSpec {
    name: "pattern",
    fields: &[
        field("hex", Kind::Hex, "", "Bytes in hexadecimal."),
        field("regex", Kind::BytesRegex, "", "What this expression describes."),
    ],
    later: &[],
};

static STEP: ObjectSpec = ObjectSpec {
    name: "step",
    fields: &[
        field("send", Kind::TextOr(&PAYLOAD), "", "Says this: text, or `{ hex: … }`."),
        field("expect", Kind::TextOr(&PATTERN), "", "Waits for this: text, `{ hex: … }` or `{ regex: … }`."),
        field("end", Kind::Empty, "", "Waits until the backend closes."),
    ],
    later: &[],
};

/// Fields of every check beside those of other types.
pub(in crate::document) fn takes(kind: &str, name: &str) -> bool {
    COMMON.contains(&name) || TYPES.iter().any(|(word, fields)| *word == kind && fields.contains(&name))
}

/// Which types take a field, for a message.
pub(in crate::document) fn takers(name: &str) -> String {
    let words: Vec<_> =
        TYPES.iter().filter(|(_, fields)| fields.contains(&name)).map(|(word, _)| *word).collect();
    words.join(", ")
}
