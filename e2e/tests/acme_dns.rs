//! dns-01: records by dynamic updates to a real Knot, by a program, and by an HTTP service.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
};

use awe4lb_e2e::{
    acme::{Scene, can_run, certificate},
    authority::Pebble,
    have,
    process::run,
    servers::Knot,
};
use serde_json::{Value, json};

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

/// A service that takes records over HTTP, and puts them where the authority looks. Tells what it was asked.
fn zone_service(dns: SocketAddr) -> (SocketAddr, mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (told, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let _ = serve(stream, dns, &told);
        }
    });
    (address, asked)
}

fn serve(stream: TcpStream, dns: SocketAddr, told: &mpsc::Sender<(String, Value)>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_allowed = head.to_ascii_lowercase().contains("authorization: bearer token of the zone");
    let what = if head.starts_with("POST /zone/present ") { "set-txt" } else { "clear-txt" };
    if is_allowed {
        let record = json!({"host": body["fqdn"], "value": body["value"]});
        run("curl", &["-sSf", "-d", &record.to_string(), &format!("http://{dns}/{what}")]);
    }
    let _ = told.send((head, body));
    let status = if is_allowed { "200 OK" } else { "403 Forbidden" };
    write!(reader.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

#[test]
fn records_by_an_http_service() {
    if !can_run() {
        return;
    }
    let scene = Scene::start(1, |_| ());
    let (service, asked) = zone_service(scene.dns.management());
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
    let paths: Vec<String> =
        asked.try_iter().filter_map(|(head, _)| Some(head.split(' ').nth(1)?.to_owned())).collect();
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
