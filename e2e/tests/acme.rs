//! Certificates that take care of themselves: Pebble as the authority, three nodes that it may ask, openssl as the judge.

use std::{net::SocketAddr, path::Path, time::Instant};

use awe4lb_e2e::{
    at,
    authority::{MockDns, Pebble, Wish},
    eventually,
    fleet::Fleet,
    free_port, have,
    process::run,
    servers::Samples,
};
use serde_json::{Value, json};

/// What is needed.
fn can_run() -> bool {
    ["pebble", "pebble-challtestsrv", "openssl", "curl"].iter().all(|tool| have(tool))
}

/// A fleet with an authority that asks its nodes, each by a name of its own: `n1.test`, `n2.test`, …
struct Scene {
    pebble: Pebble,
    dns: MockDns,
    samples: Samples,
    http: u16,
    tls: u16,
    fleet: Fleet,
}

impl Scene {
    fn start(nodes: u8, change: impl FnOnce(&mut Wish)) -> Self {
        Self::start_with(nodes, &[], change)
    }

    fn start_with(nodes: u8, flags: &[&str], change: impl FnOnce(&mut Wish)) -> Self {
        let fleet = Fleet::start_with(nodes, flags);
        let samples = Samples::start(fleet.folder());
        let dns = MockDns::start(fleet.folder(), [127, 0, 1, 1].into());
        for node in &fleet.nodes {
            dns.lead(&format!("n{}.test", node.ip.octets()[3]), node.ip);
        }
        let (http, tls) = (free_port(), free_port());
        let mut wish = Wish::new(http, tls, dns.address);
        change(&mut wish);
        let pebble = Pebble::start(fleet.folder(), &wish);
        Self { pebble, dns, samples, http, tls, fleet }
    }

    /// A listener for HTTP and one for TLS, and these certificates.
    fn document(&self, certificates: &[Value]) -> Value {
        let names: Vec<&Value> = certificates.iter().map(|certificate| &certificate["name"]).collect();
        json!({
            "version": 1,
            "listeners": [
                {"name": "http", "bind": [format!("*:{}", self.http)], "acmeHttp01": true, "rules": [{"pool": "echo"}]},
                {"name": "tls", "bind": [format!("*:{}", self.tls)], "tls": {"certificates": names}, "rules": [{"pool": "echo"}]},
            ],
            "pools": [{"name": "echo", "backends": [{"address": self.samples.tcp_echo[0].to_string()}]}],
            "acmeAccounts": [self.pebble.account("ca")],
            "certificates": certificates,
        })
    }

    fn certificate(name: &str, domains: &[&str], challenge: &str) -> Value {
        json!({"name": name, "acme": {"account": "ca", "domains": domains, "challenge": challenge}})
    }

    fn status(&self, name: &str) -> Value {
        self.fleet.rest.get(&format!("/api/v1/certificates/{name}/status"))
    }

    /// Until the certificate is issued; its status.
    #[track_caller]
    fn issued(&self, name: &str) -> Value {
        let mut last = Value::Null;
        let done = awe4lb_e2e::try_eventually(|| {
            last = self.status(name);
            (last["state"] == "valid" && last["acme"]["state"] == "idle").then(|| last.clone())
        });
        let log = self.fleet.control_plane().last_words();
        done.unwrap_or_else(|| panic!("{name} is not issued: {last:#}\n{log}\n{}", self.pebble.log()))
    }

    /// Until every node shows the certificate of the authority for a name, judged by openssl.
    #[track_caller]
    fn served(&self, domain: &str) {
        let root = self.root();
        for node in &self.fleet.nodes {
            let address = at(node.ip, self.tls);
            eventually(&format!("{domain} by {}", node.name), || {
                judged(address, domain, &root).then_some(())
            });
        }
    }

    fn root(&self) -> String {
        let file = self.fleet.folder().join("root.pem");
        std::fs::write(&file, self.pebble.root()).expect("a file");
        file.display().to_string()
    }

    /// Orders that the authority was asked for.
    fn orders(&self) -> usize {
        self.pebble.log().matches("POST /order-plz").count()
    }
}

/// Whether openssl trusts what is shown for a name.
fn judged(address: SocketAddr, domain: &str, root: &str) -> bool {
    let address = address.to_string();
    let arguments = [
        "s_client",
        "-connect",
        &address,
        "-servername",
        domain,
        "-verify_hostname",
        domain,
        "-CAfile",
        root,
        "-verify_return_error",
        "-brief",
    ];
    run("openssl", &arguments).0
}

#[test]
fn a_name_is_all_that_is_needed_and_every_node_answers_the_authority() {
    if !can_run() {
        return;
    }
    let scene = Scene::start(3, |_| ());
    let begin = Instant::now();
    let domains = ["n1.test", "n2.test", "n3.test"];
    scene.fleet.put(&scene.document(&[Scene::certificate("web", &domains, "tls-alpn-01")]));
    let status = scene.issued("web");
    domains.iter().for_each(|domain| scene.served(domain));
    println!("from the wish to every node: {:.1} s", begin.elapsed().as_secs_f64());
    assert!(begin.elapsed().as_secs() < 10);
    assert_eq!(status["chains"][0]["origin"], "acme", "{status}");
    assert_eq!(status["usedBy"], json!(["tls"]));
    assert_eq!(status["acme"]["next"]["what"], "renew");
    assert_eq!(scene.orders(), 1);
    let account = scene.fleet.rest.get("/api/v1/acme-accounts/ca/status");
    assert_eq!(
        (&account["registered"], &account["certificates"]),
        (&json!(true), &json!(["web"])),
        "{account}"
    );
    assert_eq!(account["contact"], json!(["mailto:ops@example.com"]));
    // The same by HTTP, beside the traffic of the listener.
    let document = scene.document(&[
        Scene::certificate("web", &domains, "tls-alpn-01"),
        Scene::certificate("plain", &domains, "http-01"),
    ]);
    scene.fleet.put(&document);
    scene.issued("plain");
    assert_eq!(scene.orders(), 2);
    let _ = (&scene.dns, Path::new(""));
}
