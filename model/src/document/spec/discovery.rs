//! The fields of sources of backends. Which of them a type takes is declared here too: what a type does not use it refuses.

use super::{Kind, ObjectSpec, field, required};

/// The types, each with the fields that are its own.
pub(in crate::document) const TYPES: &[(&str, &[&str])] = &[
    ("dns", &["name", "record", "servers", "ttlMin", "ttlMax"]),
    (
        "http",
        &[
            "url",
            "headers",
            "tokenFile",
            "ca",
            "certFile",
            "keyFile",
            "format",
            "pattern",
            "pointers",
            "maxBytes",
        ],
    ),
    ("file", &["path", "format", "pattern", "pointers", "maxBytes"]),
    ("exec", &["command", "format", "pattern", "pointers", "maxBytes"]),
    ("kubernetes", &["kubeconfig", "context", "namespace", "service", "selector", "mode", "portName"]),
    (
        "consul",
        &[
            "url",
            "services",
            "tags",
            "passingOnly",
            "datacenter",
            "namespace",
            "partition",
            "tokenFile",
            "ca",
            "certFile",
            "keyFile",
            "maxBytes",
        ],
    ),
    ("sentinel", &["sentinels", "master", "role", "user", "passwordFile"]),
    ("patroni", &["urls", "role", "maxLagBytes", "ca", "certFile", "keyFile", "maxBytes"]),
    (
        "docker",
        &[
            "endpoint",
            "network",
            "containerPort",
            "transport",
            "host",
            "ca",
            "certFile",
            "keyFile",
            "maxBytes",
        ],
    ),
    (
        "swarm",
        &[
            "endpoint",
            "service",
            "network",
            "containerPort",
            "transport",
            "ca",
            "certFile",
            "keyFile",
            "maxBytes",
        ],
    ),
    ("lxd", &["endpoint", "project", "interface", "family", "ca", "certFile", "keyFile", "maxBytes"]),
    ("push", &["ttl"]),
];

/// Types that are asked, and not told.
pub(in crate::document) const ASKED: &[&str] = &["interval", "timeout"];

const PORT: Kind = Kind::Integer { min: 1, max: 65_535 };

pub(in crate::document) static SOURCE: ObjectSpec = ObjectSpec {
    name: "source",
    fields: &[
        required(
            "type",
            Kind::Word {
                words: &[
                    "dns",
                    "http",
                    "file",
                    "exec",
                    "kubernetes",
                    "consul",
                    "sentinel",
                    "patroni",
                    "docker",
                    "swarm",
                    "lxd",
                    "push",
                ],
                later: &[],
            },
            "What is asked.",
        ),
        field("id", Kind::Name, "", "What it is called, unique in its pool; made from the type when absent."),
        field(
            "runOn",
            Kind::Word { words: &["controlPlane", "node"], later: &[] },
            "",
            "Who asks. Absent: each node for `dns`, the control plane for all others, which nodes cannot ask.",
        ),
        field("interval", Kind::Duration, "\"10s\"", "Between two questions, give or take a tenth."),
        field("timeout", Kind::Duration, "\"5s\"", "How long one may take."),
        field(
            "onFailure",
            Kind::Word { words: &["keep", "clear"], later: &[] },
            "\"keep\"",
            "What becomes of the last good answer when there is no new one.",
        ),
        field(
            "minBackends",
            Kind::Integer { min: 0, max: 100_000 },
            "1",
            "An answer with fewer counts as a failure.",
        ),
        field(
            "maxVanishPercent",
            Kind::Integer { min: 1, max: 100 },
            "100",
            "An answer that lacks more of those that are there counts as a failure.",
        ),
        field("port", PORT, "", "In place of what the source says; without any, the listener's."),
        field("weight", Kind::Integer { min: 0, max: 65_535 }, "1", "Where the source says none."),
        field("priority", Kind::Integer { min: 0, max: 65_535 }, "0", "Where the source says none."),
        field(
            "maxConnections",
            Kind::Limit { max: 10_000_000 },
            "\"unlimited\"",
            "Where the source says none.",
        ),
        field("zone", Kind::Text, "", "Where in the world they are, where the source does not say it."),
        field(
            "select",
            Kind::LabelSelector,
            "",
            "Which of those that the source names count, by their labels; absent: all.",
        ),
        field(
            "nameTemplate",
            Kind::NameTemplate,
            "",
            "How they are called, with `${address}`, `${host}`, `${port}` and `${label.KEY}`; absent: by address.",
        ),
        field("name", Kind::Text, "", "dns: the name that is asked for; required."),
        field(
            "record",
            Kind::Word { words: &["both", "a", "aaaa", "srv"], later: &[] },
            "\"both\"",
            "dns: what is asked for. `srv` brings ports, priorities and weights along.",
        ),
        field(
            "servers",
            Kind::List(&Kind::Text),
            "[]",
            "dns: who is asked, as address or address and port; none: whom `/etc/resolv.conf` names, with its search domains.",
        ),
        field("ttlMin", Kind::Duration, "\"1s\"", "dns: records that live shorter count as this."),
        field(
            "ttlMax",
            Kind::Duration,
            "",
            "dns: records that live longer count as this; absent: `interval`.",
        ),
        field(
            "url",
            Kind::Text,
            "",
            "http: `http://` or `https://`; required. consul: the agent, `http://127.0.0.1:8500` when absent. Redirects \
             are not followed.",
        ),
        field("headers", Kind::Labels, "{}", "http: more headers."),
        field(
            "tokenFile",
            Kind::Text,
            "",
            "http, consul: a file of the control plane with a bearer token (ACL token); it must be allowed there.",
        ),
        field(
            "ca",
            Kind::Pem("CERTIFICATE"),
            "",
            "http, consul, patroni: authorities to trust in place of the system's.",
        ),
        field(
            "certFile",
            Kind::Text,
            "",
            "http, consul, patroni: a file of the control plane with the client's certificate, as PEM; with `keyFile`.",
        ),
        field("keyFile", Kind::Text, "", "http, consul, patroni: a file with its key."),
        field(
            "path",
            Kind::Text,
            "",
            "file: the whole path on the control plane, which must allow it; required.",
        ),
        field(
            "command",
            Kind::List(&Kind::Text),
            "",
            "exec: the program and its arguments, without a shell; required. The control plane must allow the program.",
        ),
        field(
            "service",
            Kind::Text,
            "",
            "kubernetes: the name of a service; required, unless there is a `selector`.",
        ),
        field("selector", Kind::Text, "", "kubernetes: pods with these labels, as `app=web,tier!=old`."),
        field(
            "mode",
            Kind::Word { words: &["endpoints", "nodePort", "loadBalancer"], later: &[] },
            "\"endpoints\"",
            "kubernetes: ready endpoints of the service, ready nodes at its node port, or its load balancer.",
        ),
        field(
            "portName",
            Kind::Text,
            "",
            "kubernetes: which of the ports, by name or number; absent: the only one.",
        ),
        field(
            "namespace",
            Kind::Text,
            "",
            "kubernetes: absent: that of the context, or the control plane's own. consul (Enterprise): absent: the token's.",
        ),
        field(
            "kubeconfig",
            Kind::Text,
            "",
            "kubernetes: a file of the control plane, which must allow it; absent: the cluster that it runs in.",
        ),
        field("context", Kind::Text, "", "kubernetes: of the kubeconfig; absent: its current one."),
        field(
            "endpoint",
            Kind::Text,
            "",
            "docker, swarm, lxd: the API, as `unix:///PATH` (which the control plane must allow), `tcp://HOST:PORT` or `https://HOST:PORT`; \
             absent: the usual socket.",
        ),
        field(
            "network",
            Kind::Text,
            "",
            "docker, swarm: addresses are those of containers in this network; absent: published ports.",
        ),
        field(
            "containerPort",
            PORT,
            "",
            "docker, swarm: which of its ports; absent: what the label `awe4lb.port` says (`80`, `53/udp`), or the only one.",
        ),
        field(
            "transport",
            Kind::Word { words: &["tcp", "udp"], later: &[] },
            "",
            "docker, swarm: of `containerPort`; absent: whichever of both there is.",
        ),
        field(
            "host",
            Kind::Text,
            "",
            "docker: where ports are that are published on every address; absent: where the engine is.",
        ),
        field("project", Kind::Text, "", "lxd: absent: the default one."),
        field(
            "interface",
            Kind::Text,
            "",
            "lxd: whose addresses count; absent: what the key `user.awe4lb.interface` says, or the first that has one.",
        ),
        field(
            "family",
            Kind::Word { words: &["v4", "v6"], later: &[] },
            "\"v4\"",
            "lxd: which addresses count.",
        ),
        field(
            "services",
            Kind::OneOrMany(&Kind::Text),
            "",
            "consul: the services whose instances are backends; required.",
        ),
        field("tags", Kind::OneOrMany(&Kind::Text), "[]", "consul: an instance needs all of these."),
        field("passingOnly", Kind::Bool, "true", "consul: whether only instances count whose checks pass."),
        field("datacenter", Kind::Text, "", "consul: absent: the agent's own."),
        field("partition", Kind::Text, "", "consul (Enterprise): absent: the agent's own."),
        field(
            "sentinels",
            Kind::OneOrMany(&Kind::Text),
            "",
            "sentinel: who is asked, as host or host and port (26379); required.",
        ),
        field("master", Kind::Text, "", "sentinel: the name of the master; required."),
        field(
            "role",
            Kind::Word { words: &["primary", "replica", "any"], later: &[] },
            "\"primary\"",
            "sentinel, patroni: which servers; with `any` the primary, and its replicas as a second tier.",
        ),
        field("user", Kind::Text, "", "sentinel: absent: the default user."),
        field(
            "passwordFile",
            Kind::Text,
            "",
            "sentinel: a file of the control plane with the password of the sentinels.",
        ),
        field(
            "urls",
            Kind::OneOrMany(&Kind::Text),
            "",
            "patroni: REST APIs of its members, the first that answers is believed; required.",
        ),
        field(
            "maxLagBytes",
            Kind::Integer { min: 0, max: 1_000_000_000_000 },
            "",
            "patroni: replicas that are further behind do not count; absent: all do.",
        ),
        field(
            "format",
            Kind::Word { words: &["auto", "lines", "json"], later: &[] },
            "\"auto\"",
            "How to read it; `auto` is JSON where it begins as such, else lines.",
        ),
        field(
            "pattern",
            Kind::Regex,
            "",
            "Lines are matched by this expression with the groups `host` and `port`, maybe `weight` and `priority`.",
        ),
        field("pointers", Kind::Object(&POINTERS), "", "JSON of another shape: where everything stands."),
        field(
            "maxBytes",
            Kind::Integer { min: 1, max: 64 * 1024 * 1024 },
            "4194304",
            "A longer answer is a failure.",
        ),
        field("ttl", Kind::Duration, "", "push: what was told is forgotten after this time; absent: never."),
    ],
    later: &["labels"],
};

static POINTERS: ObjectSpec = ObjectSpec {
    name: "pointers",
    fields: &[
        field(
            "items",
            Kind::Text,
            "",
            "To the list, or the object whose values are items; absent: the document.",
        ),
        field("host", Kind::Text, "", "From an item to its host, or `host:port`; absent: the item itself."),
        field("port", Kind::Text, "", "From an item."),
        field("weight", Kind::Text, "", "From an item."),
        field("priority", Kind::Text, "", "From an item."),
        field("labels", Kind::Text, "\"/labels\"", "From an item to an object whose members are its labels."),
    ],
    later: &[],
};

/// Whether a source of this type takes a field.
pub(in crate::document) fn takes(kind: &str, name: &str) -> bool {
    let takers = takers(name);
    let is_told = kind == "push" && ASKED.contains(&name);
    !is_told && (takers.is_empty() || takers.contains(&kind))
}

/// Which types take a field; empty: all of them.
pub(in crate::document) fn takers(name: &str) -> Vec<&'static str> {
    TYPES.iter().filter(|(_, fields)| fields.contains(&name)).map(|(word, _)| *word).collect()
}
