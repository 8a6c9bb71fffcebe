//! The fields of a document, declared once: checking, the JSON Schema and the table of defaults all read this.

pub(super) mod acme;
pub(super) mod discovery;
pub(super) mod health;
mod udp;

use discovery::SOURCE;
use health::HEALTH_CHECK;
use udp::{AFFINITY, ON_REMOVED, UDP};

/// What a value must look like.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Name,
    Text,
    Integer {
        min: i64,
        max: i64,
    },
    /// A number from 1, or the word `unlimited`.
    Limit {
        max: i64,
    },
    Duration,
    /// A duration, or the word `unlimited`.
    DurationLimit,
    /// One of these words; `later` are words of the goal that are not built yet.
    Word {
        words: &'static [&'static str],
        later: &'static [&'static str],
    },
    Labels,
    /// An expression over labels.
    LabelSelector,
    /// How discovered backends are called.
    NameTemplate,
    Bind,
    BackendAddress,
    Prefix,
    /// A prefix, or an object that names a list of them.
    Address,
    /// Server names and the pool of each.
    MapEntries,
    /// A name, or an object that says what names look like.
    Sni,
    /// The start or the end of a name.
    NamePart,
    Regex,
    /// A port, or a range of ports as text.
    Ports,
    Bool,
    /// A number from 0 to 1.
    Share,
    /// An address without a port.
    Ip,
    /// Text, or an object with exactly one of these fields.
    TextOr(&'static ObjectSpec),
    /// A status of HTTP, or a range of them as text.
    Statuses,
    /// Bytes in hexadecimal.
    Hex,
    /// An expression for bytes.
    BytesRegex,
    /// PEM with a block whose label ends so.
    Pem(&'static str),
    Object(&'static ObjectSpec),
    List(&'static Kind),
    /// One item, or a list of them.
    OneOrMany(&'static Kind),
    /// `{}`.
    Empty,
    /// Exactly this number.
    Constant(i64),
}

/// One field.
#[derive(Debug)]
pub(super) struct FieldSpec {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
    /// As JSON text; empty: none.
    pub(super) default: &'static str,
    pub(super) doc: &'static str,
}

/// One kind of object.
#[derive(Debug)]
pub(super) struct ObjectSpec {
    pub(super) name: &'static str,
    pub(super) fields: &'static [FieldSpec],
    /// Fields of the goal that are not built yet: refused as such, never ignored.
    pub(super) later: &'static [&'static str],
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> FieldSpec {
    FieldSpec { name, kind, required: true, default: "", doc }
}

const fn field(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> FieldSpec {
    FieldSpec { name, kind, required: false, default, doc }
}

const NAMES: Kind = Kind::List(&Kind::Name);
const PREFIXES: Kind = Kind::OneOrMany(&Kind::Prefix);
const ADDRESSES: Kind = Kind::OneOrMany(&Kind::Address);

pub(super) static DOCUMENT: ObjectSpec = ObjectSpec {
    name: "document",
    fields: &[
        field("version", Kind::Constant(1), "1", "The version of this schema."),
        field(
            "defaults",
            Kind::Object(&DEFAULTS),
            "",
            "For every listener and pool that does not say otherwise.",
        ),
        field("listeners", Kind::List(&Kind::Object(&LISTENER)), "[]", "Where traffic enters."),
        field("pools", Kind::List(&Kind::Object(&POOL)), "[]", "Where it goes."),
        field("certificates", Kind::List(&Kind::Object(&CERTIFICATE)), "[]", "What TLS is terminated with."),
        field(
            "addressLists",
            Kind::List(&Kind::Object(&ADDRESS_LIST)),
            "[]",
            "Addresses by name; they change without a revision.",
        ),
        field("maps", Kind::List(&Kind::Object(&MAP)), "[]", "From server names to pools."),
        field(
            "acmeAccounts",
            Kind::List(&Kind::Object(&acme::ACCOUNT)),
            "[]",
            "Accounts with certificate authorities.",
        ),
    ],
    later: &["caBundles", "secrets", "tests"],
};

pub(super) static DEFAULTS: ObjectSpec = ObjectSpec {
    name: "defaults",
    fields: &[
        field("connect", Kind::Object(&CONNECT), "", "Of pools."),
        field("timeouts", Kind::Object(&TIMEOUTS), "", "Of listeners."),
    ],
    later: &["tcp", "udp", "limits", "healthCheck", "outlier", "accessLog"],
};

pub(super) static LISTENER: ObjectSpec = ObjectSpec {
    name: "listener",
    fields: &[
        required("name", Kind::Name, "Unique among listeners."),
        field("labels", Kind::Labels, "{}", "Free labels."),
        required("bind", Kind::List(&Kind::Bind), "Addresses to accept on: `*:443` is both families."),
        field("protocol", Kind::Word { words: &["tcp", "udp"], later: &[] }, "\"tcp\"", "The transport."),
        field("tls", Kind::Object(&TLS), "", "How to terminate TLS, for rules that do. TCP only."),
        field("proxyProtocol", Kind::Object(&PROXY_FROM), "", "Who tells us the client's address. TCP only."),
        field("access", Kind::Object(&ACCESS), "", "Who may connect; absent: everybody."),
        field(
            "preamble",
            Kind::Word { words: &["postgres", "ldap"], later: &[] },
            "",
            "The request for TLS that is understood before the ClientHello. TCP only.",
        ),
        field(
            "acmeHttp01",
            Kind::Bool,
            "false",
            "Answers challenges http-01 of certificate authorities; what asks for no challenge goes by the rules. TCP only.",
        ),
        field(
            "rules",
            Kind::List(&Kind::Object(&RULE)),
            "[]",
            "In order; the first that matches wins. At least one, unless `acmeHttp01` is on.",
        ),
        field("limits", Kind::Object(&LIMITS), "", "Caps on what clients may use, per node."),
        field("timeouts", Kind::Object(&TIMEOUTS), "", "Deadlines of TCP connections."),
        field("udp", Kind::Object(&UDP), "", "Flow settings of a UDP listener."),
        field("affinity", Kind::Object(&AFFINITY), "", "Listeners that send a client to the same backend."),
        field("accessLog", Kind::Object(&ACCESS_LOG), "", "Tells of connections and flows when they end."),
    ],
    later: &["interface", "freebind", "forwarding", "nodes", "tcp"],
};

pub(super) static ACCESS_LOG: ObjectSpec = ObjectSpec {
    name: "accessLog",
    fields: &[field("sample", Kind::Share, "1.0", "Which part of the connections, at random.")],
    later: &[],
};

pub(super) static PROXY_FROM: ObjectSpec = ObjectSpec {
    name: "proxyProtocol of a listener",
    fields: &[required(
        "from",
        PREFIXES,
        "Peers that must send a PROXY header, version 1 or 2; what all others send is never taken for one.",
    )],
    later: &[],
};

pub(super) static PROXY_SEND: ObjectSpec = ObjectSpec {
    name: "proxyProtocol of a pool",
    fields: &[
        required(
            "send",
            Kind::Word { words: &["v1", "v2"], later: &[] },
            "The PROXY header that backends get first, also from checks; UDP has v2 alone.",
        ),
        field(
            "datagrams",
            Kind::Word { words: &["every", "first"], later: &[] },
            "\"every\"",
            "UDP: which datagrams of a flow carry it.",
        ),
    ],
    later: &["tlvs"],
};

pub(super) static TLS: ObjectSpec = ObjectSpec {
    name: "tls",
    fields: &[
        required("certificates", NAMES, "Chosen by server name and key type; the first is the default."),
        field(
            "minVersion",
            Kind::Word { words: &["1.2", "1.3"], later: &[] },
            "\"1.2\"",
            "The oldest version spoken.",
        ),
        field(
            "alpn",
            Kind::List(&Kind::Text),
            "[]",
            "Application protocols offered, in order of preference.",
        ),
        field(
            "requireSni",
            Kind::Bool,
            "false",
            "Whether clients that send no server name are refused where TLS ends here; an address is no name.",
        ),
    ],
    later: &["cipherSuites", "keyExchange", "clientAuth"],
};

pub(super) static RULE: ObjectSpec = ObjectSpec {
    name: "rule",
    fields: &[
        field("name", Kind::Name, "", "Unique in its listener; made when absent."),
        field("match", Kind::Object(&MATCH), "{}", "What a connection must look like; absent: any."),
        field(
            "pool",
            Kind::Name,
            "",
            "Where it goes. One of `pool`, `split`, `reject`; none of them where a map says it.",
        ),
        field("split", Kind::List(&Kind::Object(&SPLIT)), "", "One of several pools, by weight."),
        field("reject", Kind::Empty, "", "Closed at once, and counted with the rule's name."),
        field(
            "tls",
            Kind::Word { words: &["terminate", "passthrough"], later: &[] },
            "\"terminate\" when the listener has `tls`, else \"passthrough\"",
            "Whether TLS ends here.",
        ),
        field(
            "sticky",
            Kind::Word { words: &["client"], later: &[] },
            "",
            "Of a split: a client stays on its side, by its address.",
        ),
        field("mirror", Kind::Object(&MIRROR), "", "UDP: another pool gets copies of what clients send."),
    ],
    later: &[],
};

static MIRROR: ObjectSpec = ObjectSpec {
    name: "mirror",
    fields: &[
        required("pool", Kind::Name, "Who gets the copies; its answers go nowhere."),
        field("sample", Kind::Share, "1.0", "Which part of the flows, at random."),
    ],
    later: &[],
};

pub(super) static MATCH: ObjectSpec = ObjectSpec {
    name: "match",
    fields: &[
        field(
            "sni",
            Kind::OneOrMany(&Kind::Sni),
            "[]",
            "Server names: exact, `*.example.com`, `none`, or an object with `prefix`, `suffix`, `regex` or `map`.",
        ),
        field(
            "alpn",
            Kind::OneOrMany(&Kind::Text),
            "[]",
            "Application protocols, one that the client offers.",
        ),
        field("tls", Kind::Bool, "", "Whether the client speaks TLS."),
        field("client", ADDRESSES, "[]", "The client's address: prefixes, or `{ list: NAME }`."),
        field("peer", ADDRESSES, "[]", "The address of the socket's peer, likewise."),
        field(
            "port",
            Kind::OneOrMany(&Kind::Ports),
            "[]",
            "The port that the client came to, or a range of them.",
        ),
        field("any", Kind::List(&Kind::Object(&MATCH)), "[]", "At least one of these holds."),
        field("all", Kind::List(&Kind::Object(&MATCH)), "[]", "All of these hold."),
        field("not", Kind::OneOrMany(&Kind::Object(&MATCH)), "[]", "None of these holds."),
    ],
    later: &[],
};

/// What names look like: one of the fields.
pub(super) static SNI: ObjectSpec = ObjectSpec {
    name: "sni",
    fields: &[
        field("prefix", Kind::NamePart, "", "Names that begin so."),
        field("suffix", Kind::NamePart, "", "Names that end so."),
        field("regex", Kind::Regex, "", "Names that the whole expression describes."),
        field("map", Kind::Name, "", "Names that this map knows; its entry names the pool."),
    ],
    later: &[],
};

pub(super) static SPLIT: ObjectSpec = ObjectSpec {
    name: "split",
    fields: &[
        required("pool", Kind::Name, "The pool."),
        required("weight", Kind::Integer { min: 0, max: 1_000_000 }, "Its share; 0 gets nothing."),
    ],
    later: &[],
};

pub(super) static LIMITS: ObjectSpec = ObjectSpec {
    name: "limits",
    fields: &[
        field("maxConnections", Kind::Limit { max: 10_000_000 }, "20000", "Open client connections."),
        field("maxConnectionsPerClient", CLIENTS, "\"unlimited\"", "Those of one client."),
        field(
            "newConnectionsPerSecond",
            CLIENTS,
            "\"unlimited\"",
            "Connections accepted, or flows begun, a second.",
        ),
        field("newPerClientPerSecond", CLIENTS, "\"unlimited\"", "The same of one client."),
        field(
            "bytesPerSecond",
            BYTES,
            "\"unlimited\"",
            "Payload a second, both directions together; more waits (datagrams are dropped).",
        ),
        field("bytesPerSecondPerClient", BYTES, "\"unlimited\"", "The same of one client."),
        field("bytesPerSecondPerConnection", BYTES, "\"unlimited\"", "The same of one connection."),
        field(
            "packetsPerSecond",
            CLIENTS,
            "\"unlimited\"",
            "UDP: datagrams a second, both directions together; more are dropped.",
        ),
        field("packetsPerSecondPerClient", CLIENTS, "\"unlimited\"", "UDP: the same of one client."),
        field("clientPrefix", Kind::Object(&CLIENT_PREFIX), "", "What counts as one client."),
        field(
            "scope",
            Kind::Word { words: &["node"], later: &["fleet"] },
            "\"node\"",
            "Whether all of this counts by node.",
        ),
    ],
    later: &[],
};

const CLIENTS: Kind = Kind::Limit { max: 10_000_000 };
const BYTES: Kind = Kind::Limit { max: 100_000_000_000 };

pub(super) static CLIENT_PREFIX: ObjectSpec = ObjectSpec {
    name: "clientPrefix",
    fields: &[
        field("v4", Kind::Integer { min: 0, max: 32 }, "32", "Leading bits of an IPv4 address."),
        field("v6", Kind::Integer { min: 0, max: 128 }, "64", "Leading bits of an IPv6 address."),
    ],
    later: &[],
};

pub(super) static ACCESS: ObjectSpec = ObjectSpec {
    name: "access",
    fields: &[
        field(
            "default",
            Kind::Word { words: &["allow", "deny"], later: &[] },
            "\"allow\"",
            "For clients that no rule names.",
        ),
        field(
            "rules",
            Kind::List(&Kind::Object(&ACCESS_RULE)),
            "[]",
            "In order; the first that names the client decides.",
        ),
    ],
    later: &[],
};

pub(super) static ACCESS_RULE: ObjectSpec = ObjectSpec {
    name: "rule of access",
    fields: &[
        field("allow", ADDRESSES, "", "Lets these in: prefixes, or `{ list: NAME }`. Either this or `deny`."),
        field("deny", ADDRESSES, "", "Closes these at once."),
        field("shadow", Kind::Bool, "false", "Decides nothing, only counts whom it would deny."),
        field(
            "closeExisting",
            Kind::Bool,
            "false",
            "A denial that also ends connections that are open already.",
        ),
    ],
    later: &[],
};

pub(super) static TIMEOUTS: ObjectSpec = ObjectSpec {
    name: "timeouts",
    fields: &[
        field("handshake", Kind::Duration, "\"10s\"", "From accept until the connection is routed."),
        field("idle", Kind::DurationLimit, "\"1h\"", "Without a byte in either direction."),
        field(
            "halfClose",
            Kind::Duration,
            "\"1m\"",
            "After one direction ended, without a byte in the other.",
        ),
        field("lifetime", Kind::DurationLimit, "\"unlimited\"", "Of the whole connection."),
    ],
    later: &[],
};

pub(super) static POOL: ObjectSpec = ObjectSpec {
    name: "pool",
    fields: &[
        required("name", Kind::Name, "Unique among pools."),
        field(
            "balance",
            Kind::Word {
                words: &[
                    "random",
                    "roundRobin",
                    "leastConn",
                    "hash",
                    "maglev",
                    "leastBandwidth",
                    "p2c",
                    "ewma",
                ],
                later: &[],
            },
            "\"roundRobin\"",
            "How to choose among the usable backends of the leading tier.",
        ),
        field(
            "hashOn",
            Kind::Word { words: &["client", "clientPort", "sni", "listener"], later: &[] },
            "\"client\"",
            "What `hash` and `maglev` look at.",
        ),
        field("tiers", Kind::Object(&TIERS), "", "When backends of another priority are used."),
        field(
            "locality",
            Kind::Object(&LOCALITY),
            "",
            "Prefers backends near the node; absent: all are the same.",
        ),
        field(
            "slowStart",
            Kind::Duration,
            "",
            "How long a backend that became usable takes from a tenth to all of its weight; absent: at once.",
        ),
        field("backends", Kind::List(&Kind::Object(&BACKEND)), "[]", "Fixed backends."),
        field(
            "discovery",
            Kind::List(&Kind::Object(&SOURCE)),
            "[]",
            "Sources of more backends, merged; of two at one address the first counts, and those of `backends` before all.",
        ),
        field("healthCheck", Kind::Object(&HEALTH_CHECK), "", "Active check; absent: none."),
        field("outlier", Kind::Object(&OUTLIER), "", "Passive check by failed dials."),
        field(
            "whenAllDown",
            Kind::Word { words: &["reject", "any"], later: &[] },
            "\"reject\"",
            "What to do when no backend is usable.",
        ),
        field("connect", Kind::Object(&CONNECT), "", "How a backend is dialled."),
        field("proxyProtocol", Kind::Object(&PROXY_SEND), "", "Tells backends who the client is."),
        field(
            "preserveClientAddress",
            Kind::Bool,
            "false",
            "Backends see the client's own address as the sender; needs CAP_NET_ADMIN and routes back through the node.",
        ),
        field(
            "onDown",
            Kind::Word { words: &["auto", "keep", "close", "rechoose"], later: &[] },
            "\"auto\"",
            "What becomes of open connections and flows when their backend goes down.",
        ),
        field("onRemoved", Kind::Object(&ON_REMOVED), "", "The same when it is removed."),
    ],
    later: &["queue", "limits", "tls", "rebalance", "labels"],
};

pub(super) static TIERS: ObjectSpec = ObjectSpec {
    name: "tiers",
    fields: &[
        field(
            "spill",
            Kind::Word { words: &["whenDown", "whenFull"], later: &[] },
            "\"whenDown\"",
            "Whether a tier is also left when all of it is full.",
        ),
        field(
            "minUsable",
            Kind::Integer { min: 1, max: 65_535 },
            "1",
            "A tier with fewer usable backends is left, if another has enough.",
        ),
        field(
            "failback",
            Kind::Word { words: &["auto", "manual"], later: &[] },
            "\"auto\"",
            "`manual`: the tier in use stays until it fails, or the pool is changed.",
        ),
        field("singleActive", Kind::Bool, "false", "One backend a tier at a time: the first usable one."),
    ],
    later: &["closeStandby"],
};

pub(super) static LOCALITY: ObjectSpec = ObjectSpec {
    name: "locality",
    fields: &[
        required(
            "prefer",
            Kind::Word { words: &["zone"], later: &[] },
            "Whose backends come first: those of the node's own zone, within their tier.",
        ),
        field(
            "spillBelow",
            Kind::Integer { min: 0, max: 100 },
            "70",
            "Percent: with a smaller part of them usable all of the tier takes part.",
        ),
    ],
    later: &[],
};

pub(super) static BACKEND: ObjectSpec = ObjectSpec {
    name: "backend",
    fields: &[
        field("name", Kind::Name, "", "Unique in its pool; made from the address when absent."),
        required("address", Kind::BackendAddress, "`host:port`; without a port, the listener's."),
        field("weight", Kind::Integer { min: 0, max: 65_535 }, "1", "Its share; 0 gets nothing."),
        field(
            "priority",
            Kind::Integer { min: 0, max: 65_535 },
            "0",
            "Its tier: the lowest usable one leads.",
        ),
        field(
            "maxConnections",
            Kind::Limit { max: 10_000_000 },
            "\"unlimited\"",
            "Open connections, per node.",
        ),
        field("zone", Kind::Text, "", "Where in the world it is, for `locality` of the pool."),
    ],
    later: &["sni", "labels"],
};

pub(super) static OUTLIER: ObjectSpec = ObjectSpec {
    name: "outlier",
    fields: &[
        field(
            "consecutiveFailures",
            Kind::Integer { min: 1, max: 1_000_000 },
            "5",
            "Failed dials in a row that set a backend aside.",
        ),
        field("ejection", Kind::Duration, "\"30s\"", "How long it is set aside."),
        field(
            "maxEjectedPercent",
            Kind::Integer { min: 0, max: 100 },
            "50",
            "The greatest part of a pool that may be set aside.",
        ),
    ],
    later: &["successRate"],
};

pub(super) static CONNECT: ObjectSpec = ObjectSpec {
    name: "connect",
    fields: &[
        field("timeout", Kind::Duration, "\"5s\"", "Of one attempt."),
        field(
            "attempts",
            Kind::Integer { min: 1, max: 100 },
            "3",
            "Backends tried before the client is closed.",
        ),
    ],
    later: &["retryBudgetPercent", "sourceAddresses"],
};

/// A list, in place of a prefix.
pub(super) static LIST_REFERENCE: ObjectSpec = ObjectSpec {
    name: "list of addresses",
    fields: &[required("list", Kind::Name, "The name of an address list.")],
    later: &[],
};

pub(super) static ADDRESS_LIST: ObjectSpec = ObjectSpec {
    name: "address list",
    fields: &[
        required("name", Kind::Name, "Unique among address lists."),
        field(
            "entries",
            Kind::List(&Kind::Prefix),
            "",
            "Addresses and prefixes, at most 500,000. Absent: the stored entries stay.",
        ),
    ],
    later: &["source"],
};

pub(super) static MAP: ObjectSpec = ObjectSpec {
    name: "map",
    fields: &[
        required("name", Kind::Name, "Unique among maps."),
        required(
            "entries",
            Kind::MapEntries,
            "The pool of each server name, exact or `*.example.com`; at most 200,000.",
        ),
    ],
    later: &[],
};

pub(super) static CERTIFICATE: ObjectSpec = ObjectSpec {
    name: "certificate",
    fields: &[
        required("name", Kind::Name, "Unique among certificates."),
        field("chain", Kind::Pem("CERTIFICATE"), "", "The chain as PEM, leaf first."),
        field("chainFile", Kind::Text, "", "A file with the chain, relative to the document. Files only."),
        field(
            "key",
            Kind::Pem("PRIVATE KEY"),
            "",
            "The key as PEM. Never comes back out; absent: the stored key stays.",
        ),
        field("keyFile", Kind::Text, "", "A file with the key. Files only."),
        field(
            "acme",
            Kind::Object(&acme::ACME),
            "",
            "Issued and renewed by an authority, in place of `chain` and `key`.",
        ),
        field(
            "directory",
            Kind::Text,
            "",
            "A folder of the control plane with chain and key, as certbot and others write them, in place of both; `--allow-files` allows it. It is watched.",
        ),
    ],
    later: &[],
};
