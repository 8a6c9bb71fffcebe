//! Fields about datagrams, and about what becomes of what is open when a backend leaves.

use super::{Kind, ObjectSpec, field, required};

pub(in super::super) static UDP: ObjectSpec = ObjectSpec {
    name: "udp",
    fields: &[
        field(
            "preset",
            Kind::Word { words: &["dns", "quic"], later: &[] },
            "",
            "Other defaults. `dns`: every question a flow of its own that ends with its answer, 5 s for both. `quic`: flows follow connection ids.",
        ),
        field("idleTimeout", Kind::Duration, "\"60s\"", "After the last datagram in either direction."),
        field(
            "unansweredTimeout",
            Kind::Duration,
            "\"10s\"",
            "The same for a flow that never saw an answer.",
        ),
        field("maxFlows", Kind::Integer { min: 1, max: 10_000_000 }, "65536", "Flows at a time, per node."),
        field(
            "maxFlowsPerClient",
            Kind::Integer { min: 1, max: 1_000_000 },
            "1024",
            "Flows at a time of one client, which is what `limits.clientPrefix` says.",
        ),
        field(
            "maxRequests",
            COUNT,
            "\"unlimited\"",
            "Datagrams of the client that a flow takes; the next begins another.",
        ),
        field("maxResponses", COUNT, "\"unlimited\"", "Datagrams of the backend that end a flow."),
        field(
            "perPacket",
            Kind::Bool,
            "false",
            "Each datagram of a client is balanced on its own: `maxRequests: 1`.",
        ),
        field(
            "maxReplyRatio",
            COUNT,
            "\"unlimited\"",
            "Bytes back for each byte that came, until the client has sent again after an answer.",
        ),
        field(
            "ecn",
            Kind::Bool,
            "\"true\" with \"preset: quic\", else \"false\"",
            "Whether marks for congestion pass (RFC 3168).",
        ),
    ],
    later: &[],
};

const COUNT: Kind = Kind::Limit { max: 1_000_000_000 };

pub(in super::super) static AFFINITY: ObjectSpec = ObjectSpec {
    name: "affinity",
    fields: &[
        required("group", Kind::Name, "The group; listeners of one name belong together."),
        field(
            "key",
            Kind::Word { words: &["client"], later: &[] },
            "\"client\"",
            "By what a client is known: its address.",
        ),
        field("ttl", Kind::Duration, "\"10m\"", "How long one is remembered that has nothing open."),
    ],
    later: &[],
};

pub(in super::super) static ON_REMOVED: ObjectSpec = ObjectSpec {
    name: "onRemoved",
    fields: &[field(
        "drain",
        Kind::Duration,
        "",
        "How long what is open may go on; absent: connections until they end, flows for 30 s.",
    )],
    later: &[],
};
