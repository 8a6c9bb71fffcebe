//! dns-01: records by dynamic updates to a real Knot, by a program, and by an HTTP service.

use std::net::SocketAddr;

use awe4lb_e2e::{
    acme::{Scene, can_run, certificate},
    authority::Pebble,
    have,
    process::run,
    servers::Knot,
    sink::sink,
};
use serde_json::json;

const SECRET: &str = "c2VjcmV0IG9mIHRoZSB6b25lIGluIGEgdGVzdCBvZiBvdXJz";

/// TXT records of a name, as kdig sees them.
fn records(dns: SocketAddr, name: &str) -> Vec<String> {
    let (server, port) = (dns.ip().to_string(), dns.port().to_string());
    let (ok, text, why) = run("kdig", &[&format!("@{server}"), "-p", &port, "+short", "TXT", name]);
    assert!(ok, "{why}");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_wildcard_and_its_base_by_dynamic_updates_that_are_signed() {
    if !can_run() || !["knotd", "kdig"].iter().all(|tool| have(tool)) {
        return;
    }
    let mut scene = Scene::start(1, |_| ());
    let key = format!("key:\n  - id: acme\n    algorithm: hmac-sha384\n    secret: {SECRET}\n");
    let acl = "acl:\n  - id: acme\n    key: acme\n    action: update\n";
    let of_zone = "    acl: acme\n    journal-content: changes\n    zonefile-load: difference\n";
    let knot = Knot::start_with(scene.fleet.folder(), "knot", &format!("{key}{acl}"), of_zone);
    // This authority asks Knot.
    let wish = awe4lb_e2e::authority::Wish::new(scene.http, scene.tls, knot.dns);
    scene.pebble = Pebble::start(scene.fleet.folder(), &wish);
    scene.account = scene.pebble.account("ca");

    let mut web = certificate("web", &["example.test", "*.example.test"], "dns-01");
    web["acme"]["dns"] = json!({"type": "rfc2136", "server": knot.dns.to_string(), "key": "acme",
        "algorithm": "hmac-sha384", "secret": "d3Jvbmc="});
    scene.fleet.put(&scene.document(&[web.clone()]));
    let status = scene.failed("web");
    let detail = status["acme"]["lastError"]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("rfc2136") && detail.contains("key"), "{detail}");

    web["acme"]["dns"]["secret"] = json!(SECRET);
    scene.fleet.put(&scene.document(&[web.clone()]));
    let status = scene.issued("web");
    assert_eq!(status["names"], json!(["example.test", "*.example.test"]));
    scene.served("www.example.test");
    assert!(
        !scene.fleet.rest.get("/api/v1/config").to_string().contains(SECRET),
        "the secret comes back out"
    );
    // Nothing stays in the zone.
    assert_eq!(records(knot.dns, "_acme-challenge.example.test"), [] as [String; 0]);

    // Whoever writes it without the secret keeps the one that is stored.
    web["acme"]["dns"].as_object_mut().expect("an object").remove("secret");
    web["acme"]["domains"] = json!(["*.example.test"]);
    scene.fleet.put(&scene.document(&[web]));
    scene.until("web", "for the wildcard", |status| {
        status["names"] == json!(["*.example.test"]) && status["acme"]["state"] == "idle"
    });
}

#[test]
fn records_by_a_program_that_is_allowed() {
    if !can_run() {
        return;
    }
    let scene = Scene::start_with(1, &["--allow-exec", "DIR/hook"], |_| ());
    let hook = scene.fleet.folder().join("hook");
    // The environment is empty: programs are named by their whole path.
    let text = format!(
        "#!/bin/sh\ncase $2 in present) what=set-txt ;; cleanup) what=clear-txt ;; *) exit 2 ;; esac\n\
         echo \"$2 $3\" >> \"$1\"\n\
         exec /usr/bin/curl -sSf -d \"{{\\\"host\\\":\\\"$3.\\\",\\\"value\\\":\\\"$4\\\"}}\" http://{}/$what\n",
        scene.dns.management()
    );
    std::fs::write(&hook, text).expect("a file");
    assert!(run("chmod", &["+x", &hook.display().to_string()]).0);
    let calls = scene.fleet.folder().join("calls");
    let mut web = certificate("web", &["inner.test"], "dns-01");
    web["acme"]["dns"] =
        json!({"type": "exec", "command": ["/bin/true"], "servers": [scene.dns.address.to_string()]});
    scene.fleet.put(&scene.document(&[web.clone()]));
    let status = scene.failed("web");
    let error = &status["acme"]["lastError"];
    assert!(
        error["detail"].as_str().is_some_and(|detail| detail.contains("--allow-exec /bin/true")),
        "{status}"
    );

    web["acme"]["dns"]["command"] = json!([hook, calls]);
    scene.fleet.put(&scene.document(&[web]));
    scene.issued("web");
    let called = std::fs::read_to_string(&calls).expect("it was called");
    assert_eq!(called, "present _acme-challenge.inner.test\ncleanup _acme-challenge.inner.test\n");
}

#[test]
fn records_by_an_http_service() {
    if !can_run() {
        return;
    }
    let scene = Scene::start(1, |_| ());
    // A service that puts records where the authority looks.
    let dns = scene.dns.management();
    let (service, asked) = sink(move |posted| {
        if posted.header("authorization") != Some("Bearer token of the zone") {
            return 403;
        }
        let what = if posted.path() == "/zone/present" { "set-txt" } else { "clear-txt" };
        let record = json!({"host": posted.body["fqdn"], "value": posted.body["value"]});
        run("curl", &["-sSf", "-d", &record.to_string(), &format!("http://{dns}/{what}")]);
        200
    });
    let mut web = certificate("web", &["*.inner.test"], "dns-01");
    web["acme"]["dns"] = json!({"type": "http", "url": format!("http://{service}/zone"),
        "secret": "token of another", "servers": [scene.dns.address.to_string()]});
    scene.fleet.put(&scene.document(&[web.clone()]));
    let status = scene.failed("web");
    let detail = status["acme"]["lastError"]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("403") && detail.contains("\"secret\""), "{detail}");

    web["acme"]["dns"]["secret"] = json!("token of the zone");
    scene.fleet.put(&scene.document(&[web]));
    scene.issued("web");
    let paths: Vec<String> = asked.try_iter().map(|posted| posted.path().to_owned()).collect();
    assert_eq!(paths, ["/zone/present", "/zone/cleanup", "/zone/present", "/zone/cleanup"]);
}

#[test]
fn a_record_that_is_never_seen_is_not_asked_for() {
    if !can_run() {
        return;
    }
    let scene = Scene::start_with(1, &["--allow-exec", "/bin/true"], |_| ());
    let mut web = certificate("web", &["inner.test"], "dns-01");
    web["acme"]["dns"] = json!({"type": "exec", "command": ["/bin/true"], "timeout": "1s",
        "servers": [scene.dns.address.to_string()]});
    scene.fleet.put(&scene.document(&[web]));
    let status = scene.failed("web");
    let error = &status["acme"]["lastError"];
    assert_eq!(
        (&error["type"], &error["challenge"]),
        (&json!("awe4lb:dns-unseen"), &json!("dns-01")),
        "{status}"
    );
    assert!(!scene.pebble.log().contains("POST /chalZ"), "{}", scene.pebble.log());
}
