//! A fleet and an authority that asks its nodes, each by a name of its own: `n1.test`, `n2.test`, …

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{
    at,
    authority::{MockDns, Pebble, Wish},
    eventually,
    fleet::Fleet,
    free_port, have,
    process::run,
    servers::Samples,
    try_eventually,
};

/// Whether all is there that a [`Scene`] needs.
#[must_use]
pub fn can_run() -> bool {
    ["pebble", "pebble-challtestsrv", "openssl", "curl"].iter().all(|tool| have(tool))
}

/// The fleet, the authority, and what they need.
pub struct Scene {
    /// The authority.
    pub pebble: Pebble,
    /// Where it asks for names.
    pub dns: MockDns,
    /// Backends.
    pub samples: Samples,
    /// A port of every node: HTTP, with answers to http-01.
    pub http: u16,
    /// A port of every node: TLS, with all certificates.
    pub tls: u16,
    /// Its nodes are those that are asked.
    pub fleet: Fleet,
    /// The account's object.
    pub account: Value,
}

impl Scene {
    /// So many nodes; the authority may be wished different.
    #[must_use]
    pub fn start(nodes: u8, change: impl FnOnce(&mut Wish)) -> Self {
        Self::start_with(nodes, &[], change)
    }

    /// The same, the control plane with more flags.
    ///
    /// # Panics
    /// When something does not start.
    #[must_use]
    pub fn start_with(nodes: u8, flags: &[&str], change: impl FnOnce(&mut Wish)) -> Self {
        Self::around(Fleet::start_with(nodes, flags), change)
    }

    /// Around a fleet that runs.
    ///
    /// # Panics
    /// When something does not start.
    #[must_use]
    pub fn around(fleet: Fleet, change: impl FnOnce(&mut Wish)) -> Self {
        let samples = Samples::start(fleet.folder());
        let dns = MockDns::start(fleet.folder(), [127, 0, 1, 1].into());
        for node in &fleet.nodes {
            dns.lead(&format!("n{}.test", node.ip.octets()[3]), node.ip);
        }
        let (http, tls) = (free_port(), free_port());
        let mut wish = Wish::new(http, tls, dns.address);
        change(&mut wish);
        let pebble = Pebble::start(fleet.folder(), &wish);
        let account = pebble.account("ca");
        Self { pebble, dns, samples, http, tls, fleet, account }
    }

    /// Another authority in its place, which knows no account and no order.
    ///
    /// # Panics
    /// When it does not start.
    pub fn forget_everything(&mut self) {
        let folder = self.fleet.folder().join("another");
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{error}"));
        self.pebble = Pebble::start(&folder, &Wish::new(self.http, self.tls, self.dns.address));
    }

    /// A listener for HTTP and one for TLS, and these certificates.
    #[must_use]
    pub fn document(&self, certificates: &[Value]) -> Value {
        let names: Vec<&Value> = certificates.iter().map(|certificate| &certificate["name"]).collect();
        let (http, tls) = (format!("*:{}", self.http), format!("*:{}", self.tls));
        let rules = json!([{"pool": "echo"}]);
        json!({
            "version": 1,
            "listeners": [
                {"name": "http", "bind": [http], "acmeHttp01": true, "rules": rules},
                {"name": "tls", "bind": [tls], "tls": {"certificates": names}, "rules": rules},
            ],
            "pools": [{"name": "echo", "backends": [{"address": self.samples.tcp_echo[0].to_string()}]}],
            "acmeAccounts": [self.account],
            "certificates": certificates,
        })
    }

    /// How a certificate does.
    #[must_use]
    pub fn status(&self, name: &str) -> Value {
        self.fleet.rest.get(&format!("/api/v1/certificates/{name}/status"))
    }

    /// Waits until the status of a certificate is as it should be; gives it.
    ///
    /// # Panics
    /// When it does not become so.
    #[track_caller]
    pub fn until(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let done = try_eventually(|| {
            last = self.status(name);
            is(&last).then(|| last.clone())
        });
        done.unwrap_or_else(|| {
            let log = self.fleet.control_plane().last_words();
            let authority = self.pebble.log();
            let authority = &authority[authority.len().saturating_sub(3_000)..];
            panic!("{name} is not {what}: {last:#}\n{log}\n{authority}")
        })
    }

    /// Waits until a certificate is issued; its status.
    #[track_caller]
    pub fn issued(&self, name: &str) -> Value {
        self.until(name, "issued", |status| status["state"] == "valid" && status["acme"]["state"] == "idle")
    }

    /// Waits until an order has failed; its status.
    #[track_caller]
    pub fn failed(&self, name: &str) -> Value {
        self.until(name, "failing", |status| status["acme"]["state"] == "failing")
    }

    /// Until every node shows the authority's certificate for a name, judged by openssl.
    ///
    /// # Panics
    /// When one does not.
    #[track_caller]
    pub fn served(&self, domain: &str) {
        let root = self.root();
        for node in &self.fleet.nodes {
            let address = at(node.ip, self.tls);
            eventually(&format!("{domain} by {}", node.name), || {
                judged(address, domain, &root, &[]).then_some(())
            });
        }
    }

    /// A file with the root of what the authority issues.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn root(&self) -> String {
        let file = self.fleet.folder().join("root.pem");
        std::fs::write(&file, self.pebble.root()).unwrap_or_else(|error| panic!("{error}"));
        file.display().to_string()
    }

    /// Orders that the authority has taken.
    #[must_use]
    pub fn orders(&self) -> usize {
        self.pebble.log().matches("Added order ").count()
    }
}

/// A certificate by ACME, of the account `ca`.
#[must_use]
pub fn certificate(name: &str, domains: &[&str], challenge: &str) -> Value {
    json!({"name": name, "acme": {"account": "ca", "domains": domains, "challenge": challenge}})
}

/// Whether openssl trusts what is shown for a name.
#[must_use]
pub fn judged(address: SocketAddr, domain: &str, root: &str, more: &[&str]) -> bool {
    let address = address.to_string();
    let mut arguments =
        vec!["s_client", "-connect", &address, "-servername", domain, "-verify_hostname", domain];
    arguments.extend(["-CAfile", root, "-verify_return_error", "-brief"]);
    arguments.extend(more);
    run("openssl", &arguments).0
}
