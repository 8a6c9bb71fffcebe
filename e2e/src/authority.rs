//! A real certificate authority for tests: Let's Encrypt's Pebble, and the DNS it asks.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use serde_json::{Value, json};

use crate::{
    free_port,
    process::{Program, run},
    servers::{Identity, listening},
};

/// How an authority is to be.
pub struct Wish {
    /// Where it asks for http-01.
    pub http_port: u16,
    /// Where it asks for tls-alpn-01.
    pub tls_port: u16,
    /// Of its certificates, in seconds.
    pub life: u64,
    /// Its DNS server.
    pub dns: SocketAddr,
    /// In percent: good nonces that it calls bad.
    pub bad_nonces: u8,
    /// In percent: names it is convinced of that it asks for again.
    pub reuse: u8,
    /// Waits up to so many seconds before it asks.
    pub sleep: u8,
    /// Accounts are bound to one of its own: id and key (base64url).
    pub binding: Option<(&'static str, &'static str)>,
}

impl Wish {
    /// Asks at these ports, uses this DNS, and is as kind as it can be.
    #[must_use]
    pub fn new(http_port: u16, tls_port: u16, dns: SocketAddr) -> Self {
        Self { http_port, tls_port, life: 90 * 86_400, dns, bad_nonces: 0, reuse: 0, sleep: 0, binding: None }
    }
}

/// A running Pebble.
pub struct Pebble {
    program: Program,
    /// Where ACME is.
    pub address: SocketAddr,
    /// Where its own matters are.
    management: SocketAddr,
    identity: Identity,
}

impl Pebble {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(folder: &Path, wish: &Wish) -> Self {
        let identity = Identity::new(&["localhost", "127.0.0.1"]);
        let (certificate, key, _) = identity.files(folder, "pebble");
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (address, management) = (at(free_port()), at(free_port()));
        let mut config = json!({
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": certificate,
            "privateKey": key,
            "httpPort": wish.http_port,
            "tlsPort": wish.tls_port,
            "certificateValidityPeriod": wish.life,
            "externalAccountBindingRequired": wish.binding.is_some(),
        });
        if let Some((id, key)) = wish.binding {
            config["externalAccountMACKeys"] = json!({ id: key });
        }
        let file = folder.join("pebble.json");
        std::fs::write(&file, json!({"pebble": config}).to_string())
            .unwrap_or_else(|error| panic!("{error}"));
        let (nonces, reuse) = (wish.bad_nonces.to_string(), wish.reuse.to_string());
        let mut words =
            vec![format!("PEBBLE_WFE_NONCEREJECT={nonces}"), format!("PEBBLE_AUTHZREUSE={reuse}")];
        words.push(match wish.sleep {
            0 => "PEBBLE_VA_NOSLEEP=1".to_owned(),
            seconds => format!("PEBBLE_VA_SLEEPTIME={seconds}"),
        });
        words.extend(["pebble".to_owned(), "-config".to_owned(), file.display().to_string()]);
        words.extend(["-dnsserver".to_owned(), wish.dns.to_string(), "-strict".to_owned()]);
        let program = Program::start("pebble", folder, "env", words);
        listening(address);
        listening(management);
        Self { program, address, management, identity }
    }

    /// The URL of its directory.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// Whom clients of its API trust, PEM.
    #[must_use]
    pub fn ca(&self) -> &str {
        &self.identity.chain
    }

    /// As an object of the configuration.
    #[must_use]
    pub fn account(&self, name: &str) -> Value {
        json!({"name": name, "directory": self.directory(), "termsAgreed": true, "ca": self.ca(),
            "contact": ["ops@example.com"], "ordersPerHour": 10_000})
    }

    /// The root of the certificates that it issues, PEM.
    ///
    /// # Panics
    /// When it does not say.
    #[must_use]
    pub fn root(&self) -> String {
        let (ok, root, why) = run("curl", &["-sSk", &format!("https://{}/roots/0", self.management)]);
        assert!(ok, "{why}");
        root
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        // It logs on its standard output.
        format!("{}{}", self.program.output(), self.program.log())
    }

    /// SIGSTOP, SIGCONT.
    pub fn pause(&self, paused: bool) {
        self.program.pause(paused);
    }
}

/// Pebble's own DNS server, told over HTTP what it says.
pub struct MockDns {
    _program: Program,
    /// Over UDP and TCP.
    pub address: SocketAddr,
    management: SocketAddr,
}

impl MockDns {
    /// Starts one; names lead to `ip` unless told otherwise.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(folder: &Path, ip: IpAddr) -> Self {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (address, management) = (at(free_port()), at(free_port()));
        let words = [
            "-defaultIPv4".to_owned(),
            ip.to_string(),
            "-defaultIPv6".to_owned(),
            String::new(),
            "-dns01".to_owned(),
            address.to_string(),
            "-management".to_owned(),
            management.to_string(),
            "-http01".to_owned(),
            String::new(),
            "-https01".to_owned(),
            String::new(),
            "-tlsalpn01".to_owned(),
            String::new(),
        ];
        let program = Program::start("mock-dns", folder, "pebble-challtestsrv", words);
        listening(management);
        listening(address);
        Self { _program: program, address, management }
    }

    /// Tells it something; see its documentation.
    ///
    /// # Panics
    /// When it does not take it.
    pub fn tell(&self, what: &str, body: &Value) {
        let url = format!("http://{}/{what}", self.management);
        let (ok, _, why) = run("curl", &["-sSf", "-d", &body.to_string(), &url]);
        assert!(ok, "{what}: {why}");
    }

    /// A name leads to this address.
    pub fn lead(&self, name: &str, ip: impl Into<IpAddr>) {
        self.tell("add-a", &json!({"host": name, "addresses": [ip.into().to_string()]}));
    }

    /// Where it is told.
    #[must_use]
    pub fn management(&self) -> SocketAddr {
        self.management
    }
}
