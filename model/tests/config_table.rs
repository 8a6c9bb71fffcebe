//! `docs/config.md`: its tables are made from the declared fields, its examples and defaults are proven.
//!
//! `UPDATE=1 cargo test -p awe4lb-model --test config_table` writes the tables.

use std::{fmt::Write as _, path::PathBuf};

use awe4lb_model::{
    Config,
    document::{self, FieldDoc, Format, Node},
};
use serde_json::{Value, json};

const CHAIN: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n";

/// One value for each field that is no object, as one would write it in YAML.
const EXAMPLES: &[(&str, &str)] = &[
    ("/version", "1"),
    ("/defaults/connect/timeout", "2s"),
    ("/defaults/connect/attempts", "2"),
    ("/defaults/timeouts/handshake", "5s"),
    ("/defaults/timeouts/idle", "10m"),
    ("/defaults/timeouts/halfClose", "30s"),
    ("/defaults/timeouts/lifetime", "1d"),
    ("/listeners/*/name", "web"),
    ("/listeners/*/labels", "{ team: shop }"),
    ("/listeners/*/bind", r#"["*:443", "[::1]:8443"]"#),
    ("/listeners/*/protocol", "udp"),
    ("/listeners/*/tls/certificates", "[example]"),
    ("/listeners/*/tls/minVersion", "\"1.3\""),
    ("/listeners/*/tls/alpn", "[h2, http/1.1]"),
    ("/listeners/*/tls/requireSni", "true"),
    ("/listeners/*/proxyProtocol/from", "[10.0.0.0/8]"),
    ("/listeners/*/rules/*/name", "app"),
    ("/listeners/*/rules/*/match/sni", r#"[app.example.com, "*.app.example.com"]"#),
    ("/listeners/*/rules/*/match/sni/*/prefix", "app-"),
    ("/listeners/*/rules/*/match/sni/*/suffix", ".internal"),
    ("/listeners/*/rules/*/match/sni/*/regex", "'^c[0-9]+$'"),
    ("/listeners/*/rules/*/match/sni/*/map", "tenants"),
    ("/listeners/*/rules/*/match/alpn", "[h2, http/1.1]"),
    ("/listeners/*/rules/*/match/tls", "false"),
    ("/listeners/*/rules/*/match/port", "[443, 8000-8099]"),
    ("/listeners/*/rules/*/match/any", "[{ sni: app.example.com }, { client: 10.0.0.0/8 }]"),
    ("/listeners/*/rules/*/match/all", "[{ alpn: h2 }, { not: { port: 8443 } }]"),
    ("/listeners/*/rules/*/match/not", "{ client: 10.0.0.0/8 }"),
    ("/listeners/*/rules/*/sticky", "client"),
    ("/listeners/*/rules/*/match/client", "[10.0.0.0/8, { list: offices }]"),
    ("/listeners/*/rules/*/match/peer", "192.0.2.7"),
    ("/listeners/*/rules/*/pool", "app"),
    ("/listeners/*/rules/*/split/*/pool", "blue"),
    ("/listeners/*/rules/*/split/*/weight", "95"),
    ("/listeners/*/rules/*/mirror/pool", "blue"),
    ("/listeners/*/rules/*/mirror/sample", "0.1"),
    ("/listeners/*/rules/*/reject", "{}"),
    ("/listeners/*/rules/*/tls", "passthrough"),
    ("/listeners/*/limits/maxConnections", "50000"),
    ("/listeners/*/limits/maxConnectionsPerClient", "200"),
    ("/listeners/*/limits/newConnectionsPerSecond", "5000"),
    ("/listeners/*/limits/newPerClientPerSecond", "50"),
    ("/listeners/*/limits/bytesPerSecond", "1000000000"),
    ("/listeners/*/limits/bytesPerSecondPerClient", "10000000"),
    ("/listeners/*/limits/bytesPerSecondPerConnection", "1000000"),
    ("/listeners/*/limits/clientPrefix/v4", "24"),
    ("/listeners/*/limits/clientPrefix/v6", "48"),
    ("/listeners/*/limits/scope", "node"),
    ("/listeners/*/access/default", "deny"),
    ("/listeners/*/access/rules/*/allow", "[10.0.0.0/8, { list: offices }]"),
    ("/listeners/*/access/rules/*/deny", "198.51.100.0/24"),
    ("/listeners/*/access/rules/*/shadow", "true"),
    ("/listeners/*/access/rules/*/closeExisting", "true"),
    ("/listeners/*/timeouts/handshake", "5s"),
    ("/listeners/*/timeouts/idle", "unlimited"),
    ("/listeners/*/timeouts/halfClose", "30s"),
    ("/listeners/*/timeouts/lifetime", "12h"),
    ("/listeners/*/udp/idleTimeout", "30s"),
    ("/listeners/*/udp/unansweredTimeout", "5s"),
    ("/listeners/*/udp/maxFlows", "200000"),
    ("/listeners/*/udp/maxFlowsPerClient", "64"),
    ("/listeners/*/udp/preset", "dns"),
    ("/listeners/*/udp/maxRequests", "1"),
    ("/listeners/*/udp/maxResponses", "1"),
    ("/listeners/*/udp/perPacket", "true"),
    ("/listeners/*/udp/ecn", "true"),
    ("/listeners/*/udp/maxReplyRatio", "10"),
    ("/listeners/*/affinity/group", "ike"),
    ("/listeners/*/affinity/key", "client"),
    ("/listeners/*/affinity/ttl", "1h"),
    ("/listeners/*/limits/packetsPerSecond", "100000"),
    ("/listeners/*/limits/packetsPerSecondPerClient", "1000"),
    ("/pools/*/proxyProtocol/datagrams", "first"),
    ("/pools/*/preserveClientAddress", "true"),
    ("/pools/*/onDown", "close"),
    ("/pools/*/onRemoved/drain", "5m"),
    ("/listeners/*/accessLog/sample", "0.1"),
    ("/listeners/*/preamble", "postgres"),
    ("/listeners/*/acmeHttp01", "true"),
    ("/pools/*/name", "app"),
    ("/pools/*/balance", "leastConn"),
    ("/pools/*/hashOn", "sni"),
    ("/pools/*/tiers/spill", "whenFull"),
    ("/pools/*/tiers/minUsable", "2"),
    ("/pools/*/tiers/failback", "manual"),
    ("/pools/*/tiers/singleActive", "true"),
    ("/pools/*/locality/prefer", "zone"),
    ("/pools/*/locality/spillBelow", "50"),
    ("/pools/*/slowStart", "30s"),
    ("/pools/*/backends/*/name", "a"),
    ("/pools/*/backends/*/address", "app.internal:3000"),
    ("/pools/*/backends/*/weight", "3"),
    ("/pools/*/backends/*/priority", "1"),
    ("/pools/*/backends/*/maxConnections", "100"),
    ("/pools/*/backends/*/zone", "eu-1a"),
    ("/pools/*/discovery/*/type", "dns"),
    ("/pools/*/discovery/*/id", "zone"),
    ("/pools/*/discovery/*/runOn", "controlPlane"),
    ("/pools/*/discovery/*/interval", "30s"),
    ("/pools/*/discovery/*/timeout", "2s"),
    ("/pools/*/discovery/*/onFailure", "clear"),
    ("/pools/*/discovery/*/minBackends", "2"),
    ("/pools/*/discovery/*/maxVanishPercent", "50"),
    ("/pools/*/discovery/*/port", "5432"),
    ("/pools/*/discovery/*/weight", "10"),
    ("/pools/*/discovery/*/priority", "1"),
    ("/pools/*/discovery/*/maxConnections", "100"),
    ("/pools/*/discovery/*/zone", "eu-1a"),
    ("/pools/*/discovery/*/select", "\"zone in (a, b), !canary, tier=web\""),
    ("/pools/*/discovery/*/nameTemplate", "\"${label.app}-${address}\""),
    ("/pools/*/discovery/*/name", "app.internal"),
    ("/pools/*/discovery/*/record", "srv"),
    ("/pools/*/discovery/*/servers", "[10.0.0.53, \"[::1]:5353\"]"),
    ("/pools/*/discovery/*/ttlMin", "5s"),
    ("/pools/*/discovery/*/ttlMax", "1m"),
    ("/pools/*/discovery/*/url", "https://inventory.internal/backends"),
    ("/pools/*/discovery/*/headers", "{ accept: application/json }"),
    ("/pools/*/discovery/*/tokenFile", "/etc/awe4lb/sources/token"),
    ("/pools/*/discovery/*/ca", "\"-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n\""),
    ("/pools/*/discovery/*/certFile", "/etc/awe4lb/sources/client.pem"),
    ("/pools/*/discovery/*/keyFile", "/etc/awe4lb/sources/client.key"),
    ("/pools/*/discovery/*/services", "[web, web-eu]"),
    ("/pools/*/discovery/*/tags", "[production]"),
    ("/pools/*/discovery/*/passingOnly", "false"),
    ("/pools/*/discovery/*/datacenter", "dc1"),
    ("/pools/*/discovery/*/partition", "default"),
    ("/pools/*/discovery/*/sentinels", "[sentinel-1.internal, \"10.0.0.5:26379\"]"),
    ("/pools/*/discovery/*/master", "mymaster"),
    ("/pools/*/discovery/*/role", "replica"),
    ("/pools/*/discovery/*/user", "awe4lb"),
    ("/pools/*/discovery/*/passwordFile", "/etc/awe4lb/sources/sentinel-password"),
    ("/pools/*/discovery/*/urls", "[\"http://10.0.0.5:8008\", \"http://10.0.0.6:8008\"]"),
    ("/pools/*/discovery/*/maxLagBytes", "1048576"),
    ("/pools/*/discovery/*/path", "/etc/awe4lb/sources/backends"),
    ("/pools/*/discovery/*/command", "[/usr/local/bin/backends, --all]"),
    ("/pools/*/discovery/*/service", "web"),
    ("/pools/*/discovery/*/selector", "app=web"),
    ("/pools/*/discovery/*/mode", "nodePort"),
    ("/pools/*/discovery/*/portName", "http"),
    ("/pools/*/discovery/*/namespace", "shop"),
    ("/pools/*/discovery/*/kubeconfig", "/etc/awe4lb/sources/kubeconfig"),
    ("/pools/*/discovery/*/context", "production"),
    ("/pools/*/discovery/*/format", "lines"),
    ("/pools/*/discovery/*/pattern", "'^(?<host>[^ ]+) (?<port>[0-9]+)$'"),
    ("/pools/*/discovery/*/pointers/items", "/data"),
    ("/pools/*/discovery/*/pointers/host", "/ip"),
    ("/pools/*/discovery/*/pointers/port", "/port"),
    ("/pools/*/discovery/*/pointers/weight", "/weight"),
    ("/pools/*/discovery/*/pointers/priority", "/tier"),
    ("/pools/*/discovery/*/pointers/labels", "/tags"),
    ("/pools/*/discovery/*/maxBytes", "65536"),
    ("/pools/*/discovery/*/endpoint", "unix:///run/podman/podman.sock"),
    ("/pools/*/discovery/*/network", "shop"),
    ("/pools/*/discovery/*/containerPort", "8080"),
    ("/pools/*/discovery/*/transport", "udp"),
    ("/pools/*/discovery/*/host", "10.0.3.1"),
    ("/pools/*/discovery/*/project", "shop"),
    ("/pools/*/discovery/*/interface", "eth1"),
    ("/pools/*/discovery/*/family", "v6"),
    ("/pools/*/discovery/*/ttl", "5m"),
    ("/pools/*/healthCheck/type", "tcp"),
    ("/pools/*/healthCheck/interval", "2s"),
    ("/pools/*/healthCheck/timeout", "500ms"),
    ("/pools/*/healthCheck/rise", "1"),
    ("/pools/*/healthCheck/fall", "2"),
    ("/pools/*/healthCheck/port", "3001"),
    ("/pools/*/healthCheck/address", "10.0.9.1"),
    ("/pools/*/healthCheck/fastInterval", "1s"),
    ("/pools/*/healthCheck/initial", "down"),
    ("/pools/*/healthCheck/proxyProtocol", "true"),
    ("/pools/*/healthCheck/method", "HEAD"),
    ("/pools/*/healthCheck/path", "/healthz?full"),
    ("/pools/*/healthCheck/host", "app.example.com"),
    ("/pools/*/healthCheck/headers", "{ authorization: Bearer abc }"),
    ("/pools/*/healthCheck/status", "[200-204, 401]"),
    ("/pools/*/healthCheck/body", "{ regex: '\"status\": ?\"(ok|warn)\"' }"),
    ("/pools/*/healthCheck/maxBodyBytes", "1024"),
    ("/pools/*/healthCheck/service", "shop.Orders"),
    ("/pools/*/healthCheck/authority", "orders.internal"),
    ("/pools/*/healthCheck/send", "{ hex: ffffffff54536f75726365 }"),
    ("/pools/*/healthCheck/expect", "{ hex: ffffffff }"),
    ("/pools/*/healthCheck/query", "example.com"),
    ("/pools/*/healthCheck/record", "soa"),
    ("/pools/*/healthCheck/rcode", "3"),
    ("/pools/*/healthCheck/steps/*/send", "\"EHLO check\\r\\n\""),
    ("/pools/*/healthCheck/steps/*/expect", "\"220 \""),
    ("/pools/*/healthCheck/steps/*/end", "{}"),
    ("/pools/*/healthCheck/user", "checker"),
    ("/pools/*/healthCheck/database", "app"),
    ("/pools/*/healthCheck/role", "primary"),
    ("/pools/*/healthCheck/command", "[/usr/local/bin/check-app, --deep]"),
    ("/pools/*/healthCheck/maxOutputBytes", "512"),
    ("/pools/*/outlier/consecutiveFailures", "3"),
    ("/pools/*/outlier/ejection", "10s"),
    ("/pools/*/outlier/maxEjectedPercent", "100"),
    ("/pools/*/whenAllDown", "any"),
    ("/pools/*/proxyProtocol/send", "v2"),
    ("/pools/*/connect/timeout", "1s"),
    ("/pools/*/connect/attempts", "5"),
    ("/certificates/*/name", "example"),
    ("/certificates/*/chain", "\"-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n\""),
    ("/certificates/*/chainFile", "certs/example.pem"),
    ("/certificates/*/key", "\"-----BEGIN PRIVATE KEY-----\\nMIGH\\n-----END PRIVATE KEY-----\\n\""),
    ("/certificates/*/keyFile", "certs/example.key"),
    ("/certificates/*/directory", "/etc/letsencrypt/live/example.com"),
    ("/certificates/*/acme/account", "le"),
    ("/certificates/*/acme/domains", r#"[example.com, "*.example.com"]"#),
    ("/certificates/*/acme/challenge", "[tls-alpn-01, http-01]"),
    ("/certificates/*/acme/keyType", "[p256, rsa2048]"),
    ("/certificates/*/acme/profile", "shortlived"),
    ("/certificates/*/acme/renewBefore", "30d"),
    ("/certificates/*/acme/dns/type", "exec"),
    ("/certificates/*/acme/dns/server", "192.0.2.53"),
    ("/certificates/*/acme/dns/zone", "example.com"),
    ("/certificates/*/acme/dns/key", "acme"),
    ("/certificates/*/acme/dns/algorithm", "hmac-sha512"),
    ("/certificates/*/acme/dns/secret", "bm8gc2VjcmV0"),
    ("/certificates/*/acme/dns/command", "[/usr/local/bin/zone-hook]"),
    ("/certificates/*/acme/dns/url", "https://zone.internal/acme"),
    ("/certificates/*/acme/dns/ca", "\"-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n\""),
    ("/certificates/*/acme/dns/servers", "[192.0.2.53, \"[2001:db8::53]:53\"]"),
    ("/certificates/*/acme/dns/check", "false"),
    ("/certificates/*/acme/dns/timeout", "10m"),
    ("/acmeAccounts/*/name", "le"),
    ("/acmeAccounts/*/directory", "https://acme-v02.api.letsencrypt.org/directory"),
    ("/acmeAccounts/*/termsAgreed", "true"),
    ("/acmeAccounts/*/contact", "[ops@example.com]"),
    ("/acmeAccounts/*/ordersPerHour", "20"),
    ("/acmeAccounts/*/externalAccountBinding/keyId", "kid-1"),
    ("/acmeAccounts/*/externalAccountBinding/secret", "bm8gc2VjcmV0"),
    ("/acmeAccounts/*/ca", "\"-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n\""),
    ("/addressLists/*/name", "offices"),
    ("/addressLists/*/entries", "[192.0.2.0/24, 2001:db8::1]"),
    ("/maps/*/name", "tenants"),
    ("/maps/*/entries", r#"{ a.example.com: app, "*.b.example.com": blue }"#),
];

/// The tables of the page, by what their fields begin with.
const TABLES: &[&str] = &[
    "",
    "/defaults",
    "/listeners/*",
    "/listeners/*/access",
    "/listeners/*/limits",
    "/listeners/*/rules/*",
    "/listeners/*/rules/*/split/*",
    "/pools/*",
    "/pools/*/backends/*",
    "/pools/*/discovery/*",
    "/pools/*/healthCheck",
    "/certificates/*",
    "/certificates/*/acme",
    "/certificates/*/acme/dns",
    "/acmeAccounts/*",
    "/addressLists/*",
    "/maps/*",
];

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md")
}

fn is_container(field: &FieldDoc) -> bool {
    field.kind == "object" || field.kind == "list of object"
}

fn example(pointer: &str) -> Option<&'static str> {
    EXAMPLES.iter().find(|(of, _)| *of == pointer).map(|(_, example)| *example)
}

/// The table with the longest beginning.
fn table_of(pointer: &str) -> &'static str {
    let within = |table: &&&str| pointer.strip_prefix(**table).is_some_and(|rest| rest.starts_with('/'));
    TABLES.iter().filter(within).max_by_key(|table| table.len()).copied().unwrap_or("")
}

fn table(of: &str, fields: &[FieldDoc]) -> String {
    let mut out = String::from("| field | value | default | example | meaning |\n|---|---|---|---|---|\n");
    for field in fields.iter().filter(|field| table_of(&field.pointer) == of) {
        let name = field.pointer[of.len() + 1..].replace("/*", "[]").replace('/', ".");
        let default = match (field.required, field.default.as_str()) {
            (true, _) => "required".to_owned(),
            (false, "") => String::new(),
            (false, default) if serde_json::from_str::<Value>(default).is_ok() => {
                format!("`{}`", default.trim_matches('"'))
            }
            (false, words) => words.replace('"', "`"),
        };
        let example = match example(&field.pointer) {
            Some(pem) if pem.contains("-----BEGIN") => "see above".to_owned(),
            Some(example) => format!("`{example}`"),
            None => String::new(),
        };
        let _ = writeln!(out, "| `{name}` | {} | {default} | {example} | {} |", field.kind, field.doc);
    }
    out
}

/// The page with its tables made anew. A table stands between `<!-- fields POINTER -->` and `<!-- end -->`.
fn renewed(text: &str) -> String {
    let fields = document::fields();
    let mut out = String::new();
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(out, "{line}");
        let marker = line.strip_prefix("<!-- fields").and_then(|rest| rest.strip_suffix("-->"));
        if let Some(pointer) = marker.map(str::trim) {
            found.push(pointer.to_owned());
            let _ = write!(out, "\n{}\n", table(pointer, &fields));
            let end = lines.find(|line| *line == "<!-- end -->").expect("every table has an end");
            let _ = writeln!(out, "{end}");
        }
    }
    found.sort();
    let mut wanted: Vec<_> = TABLES.iter().map(|table| (*table).to_owned()).collect();
    wanted.sort();
    assert_eq!(found, wanted, "the tables in docs/config.md");
    out
}

#[test]
fn the_tables_are_those_of_the_declared_fields() {
    let text = std::fs::read_to_string(page()).expect("docs/config.md");
    let wanted = renewed(&text);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(page(), wanted).expect("write docs/config.md");
    } else {
        assert!(
            text == wanted,
            "docs/config.md is behind the fields: UPDATE=1 cargo test -p awe4lb-model --test config_table"
        );
    }
}

/// A small document in which the field at `pointer` makes sense.
fn base(pointer: &str) -> Value {
    let mut document = json!({
        "listeners": [{ "name": "web", "bind": ["*:443"], "rules": [{ "name": "all", "pool": "app" }] }],
        "pools": [
            { "name": "app", "backends": [{ "name": "a", "address": "10.0.1.1:3000" }] },
            { "name": "blue", "backends": [{ "name": "a", "address": "10.0.2.1:3000" }] },
        ],
        "certificates": [{ "name": "example", "chain": CHAIN, "key": KEY }],
        "addressLists": [{ "name": "offices", "entries": ["192.0.2.0/24"] }],
        "maps": [{ "name": "tenants", "entries": { "a.example.com": "app" } }],
        "acmeAccounts": [{ "name": "le", "directory": "https://ca.internal/", "termsAgreed": true }],
    });
    if pointer.contains("/externalAccountBinding/") {
        document["acmeAccounts"][0]["externalAccountBinding"] = json!({ "keyId": "kid-1" });
    }
    if pointer.contains("/acme/") {
        document["certificates"][0] = issued_with(pointer);
    }
    if pointer.contains("/tls") {
        document["listeners"][0]["tls"] = json!({ "certificates": ["example"] });
    }
    if pointer.contains("/access/") {
        document["listeners"][0]["access"] = json!({});
    }
    if pointer.contains("/access/rules/*/") {
        document["listeners"][0]["access"] = json!({ "rules": [{}] });
    }
    if pointer.ends_with("/shadow") || pointer.ends_with("/closeExisting") {
        document["listeners"][0]["access"] = json!({ "rules": [{ "deny": "10.0.0.0/8" }] });
    }
    if pointer.contains("/accessLog") {
        document["listeners"][0]["accessLog"] = json!({});
    }
    if pointer.contains("/proxyProtocol/datagrams") {
        document["pools"][0]["proxyProtocol"] = json!({ "send": "v2" });
    }
    if pointer.ends_with("/spillBelow") {
        document["pools"][0]["locality"] = json!({ "prefer": "zone" });
    }
    if pointer.contains("/affinity/") {
        document["listeners"][0]["affinity"] = json!({ "group": "ike" });
    }
    if pointer.contains("/mirror/") {
        document["listeners"][0]["rules"][0]["mirror"] = json!({ "pool": "blue" });
    }
    if ["/udp/", "/packetsPerSecond", "/mirror/"].iter().any(|part| pointer.contains(part)) {
        document["listeners"][0]["protocol"] = json!("udp");
    }
    if pointer.contains("/healthCheck") {
        document["pools"][0]["healthCheck"] = check_with(pointer);
    }
    if pointer.contains("/discovery/") {
        document["pools"][0]["discovery"] = json!([source_with(pointer)]);
    }
    let rule = document["listeners"][0]["rules"][0].as_object_mut().expect("a rule");
    if pointer.contains("/sni/*/") {
        rule.insert("match".to_owned(), json!({ "sni": [{}] }));
    }
    if pointer.contains("/split") || pointer.ends_with("/sticky") {
        rule.remove("pool");
        let half = |pool: &str| json!({ "pool": pool, "weight": 1 });
        rule.insert("split".to_owned(), json!([half("app"), half("blue")]));
    }
    if pointer.contains("/reject") || pointer.ends_with("/sni/*/map") {
        rule.remove("pool");
    }
    let certificate = document["certificates"][0].as_object_mut().expect("a certificate");
    if pointer == "/certificates/*/directory" {
        certificate.retain(|field, _| field == "name");
    }
    if let Some(field) = pointer.strip_prefix("/certificates/*/").and_then(|field| field.strip_suffix("File"))
    {
        certificate.remove(field);
    }
    document
}

/// A certificate that is to be issued, with a hook that takes the field.
fn issued_with(pointer: &str) -> Value {
    let mut acme = json!({ "account": "le", "domains": ["example.com"], "challenge": "dns-01" });
    let command = json!({ "type": "exec", "command": ["/bin/true"] });
    acme["dns"] = match pointer.trim_start_matches("/certificates/*/acme/dns/") {
        "server" | "zone" | "algorithm" | "key" | "secret" => {
            json!({ "type": "rfc2136", "server": "192.0.2.53", "key": "acme" })
        }
        "url" | "ca" => json!({ "type": "http", "url": "https://zone.internal" }),
        _ => command,
    };
    if pointer.ends_with("/challenge") {
        acme.as_object_mut().expect("an object").remove("dns");
    }
    json!({ "name": "example", "acme": acme })
}

/// A check of a type that takes the field.
fn check_with(pointer: &str) -> Value {
    match pointer.trim_start_matches("/pools/*/healthCheck/") {
        "method" | "path" | "host" | "headers" | "status" | "body" | "maxBodyBytes" => {
            json!({ "type": "http" })
        }
        "service" | "authority" => json!({ "type": "grpc" }),
        "send" | "expect" => json!({ "type": "udp", "send": "ping" }),
        "query" | "record" | "rcode" => json!({ "type": "dns" }),
        field if field.starts_with("steps") => json!({ "type": "script", "steps": [{}] }),
        "user" | "role" => json!({ "type": "mysql", "user": "checker" }),
        "database" => json!({ "type": "postgres" }),
        "command" | "maxOutputBytes" => json!({ "type": "exec", "command": ["/bin/true"] }),
        _ => json!({ "type": "tcp" }),
    }
}

/// A source of a type that takes the field.
fn source_with(pointer: &str) -> Value {
    match pointer.trim_start_matches("/pools/*/discovery/*/") {
        "services" | "tags" | "passingOnly" | "datacenter" | "partition" => {
            json!({ "id": "s", "type": "consul", "services": "web" })
        }
        "sentinels" | "master" | "role" => {
            json!({ "id": "s", "type": "sentinel", "sentinels": "a", "master": "m" })
        }
        "user" | "passwordFile" => {
            json!({ "id": "s", "type": "sentinel", "sentinels": "a", "master": "m", "passwordFile": "/a" })
        }
        "urls" | "maxLagBytes" => {
            json!({ "id": "s", "type": "patroni", "urls": "http://a", "role": "replica" })
        }
        "certFile" => json!({ "id": "s", "type": "http", "url": "http://a/", "keyFile": "/a" }),
        "keyFile" => json!({ "id": "s", "type": "http", "url": "http://a/", "certFile": "/a" }),
        "url" | "headers" | "tokenFile" | "ca" => json!({ "id": "s", "type": "http", "url": "http://a/" }),
        "path" | "format" | "pattern" | "maxBytes" => json!({ "id": "s", "type": "file", "path": "/a" }),
        field if field.starts_with("pointers") => {
            json!({ "id": "s", "type": "file", "path": "/a", "pointers": {} })
        }
        "command" => json!({ "id": "s", "type": "exec", "command": ["/bin/true"] }),
        "selector" => json!({ "id": "s", "type": "kubernetes" }),
        "service" | "mode" | "portName" | "namespace" | "kubeconfig" | "context" => {
            json!({ "id": "s", "type": "kubernetes", "service": "app" })
        }
        "endpoint" | "network" | "containerPort" | "host" => json!({ "id": "s", "type": "docker" }),
        "transport" => json!({ "id": "s", "type": "docker", "containerPort": 53 }),
        "project" | "interface" | "family" => json!({ "id": "s", "type": "lxd" }),
        "ttl" => json!({ "id": "s", "type": "push" }),
        _ => json!({ "id": "s", "type": "dns", "name": "app.internal" }),
    }
}

fn set(document: &mut Value, pointer: &str, value: Value) {
    let mut place = document;
    for part in pointer.split('/').skip(1) {
        place = match part {
            "*" => &mut place[0],
            name => &mut place[name],
        };
    }
    *place = value;
}

fn compile(document: &Value) -> Result<Config, String> {
    let mut node = Node::from_json(document);
    let read = |name: &str| Ok(if name.ends_with(".key") { KEY } else { CHAIN }.to_owned());
    let compiled = document::inline_files(&mut node, read).and_then(|()| document::compile(node));
    compiled.map(|compiled| compiled.config).map_err(|violations| format!("{violations:?}"))
}

#[test]
fn every_field_has_an_example_that_holds() {
    let fields = document::fields();
    for field in fields.iter().filter(|field| !is_container(field)) {
        let Some(example) = example(&field.pointer) else { panic!("no example for {}", field.pointer) };
        let value = document::parse(example, Format::Yaml).expect("YAML").to_json();
        let mut document = base(&field.pointer);
        set(&mut document, &field.pointer, value);
        if let Err(why) = compile(&document) {
            panic!("the example of {} does not hold: {why}", field.pointer);
        }
    }
    for (pointer, _) in EXAMPLES {
        assert!(fields.iter().any(|field| field.pointer == *pointer), "{pointer} is no field");
    }
}

/// Who writes the default down gets what they would have got without it.
#[test]
fn every_default_is_what_an_absent_field_means() {
    let mut checked = 0;
    for field in document::fields() {
        let Ok(default) = serde_json::from_str::<Value>(&field.default) else { continue };
        if is_container(&field) {
            continue;
        }
        let without = base(&field.pointer);
        let mut with = without.clone();
        set(&mut with, &field.pointer, default);
        let (without, with) = (compile(&without), compile(&with));
        assert!(without.is_ok(), "{}: {without:?}", field.pointer);
        assert_eq!(with, without, "{}", field.pointer);
        checked += 1;
    }
    assert!(checked > 20, "only {checked} defaults");
}
