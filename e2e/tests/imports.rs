//! Certificates by hand, with the command line, and openssl as maker and judge.

use awe4lb_e2e::{
    acme::judged,
    at, eventually,
    fleet::Fleet,
    free_port, have,
    process::run,
    program,
    servers::{Identity, Samples},
};
use serde_json::{Value, json};

/// The command line, signed in as admin: success, standard output, standard error.
fn awe4lb(fleet: &Fleet, arguments: &[&str]) -> (bool, String, String) {
    let mut words = vec!["--server", fleet.http(), "--token", &fleet.rest.token];
    words.extend(arguments);
    run(program("awe4lb"), &words)
}

#[track_caller]
fn done(fleet: &Fleet, arguments: &[&str]) -> (String, String) {
    let (ok, out, err) = awe4lb(fleet, arguments);
    assert!(ok, "{arguments:?}: {out}\n{err}");
    (out, err)
}

fn document(samples: &Samples, port: u16, certificates: &[Value]) -> Value {
    json!({
        "version": 1,
        "listeners": [{"name": "tls", "bind": [format!("*:{port}")], "tls": {"certificates": ["site"]},
            "rules": [{"match": {"sni": "a.test"}, "pool": "echo"}, {"match": {"sni": "b.test"}, "pool": "echo"}]}],
        "pools": [{"name": "echo", "backends": [{"address": samples.tcp_echo[0].to_string()}]}],
        "certificates": certificates,
    })
}

#[test]
fn an_archive_is_imported_served_and_compared_with_what_it_replaces() {
    if !have("openssl") {
        return;
    }
    let fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let (port, folder) = (free_port(), fleet.folder());
    let file = |name: &str| folder.join(name).display().to_string();
    fleet.apply(&document(&samples, port, &[Identity::new(&["a.test", "b.test", "c.test"]).object("site")]));

    let (chain, key, _) = Identity::new(&["a.test"]).files(folder, "new");
    let (chain, key) = (chain.display().to_string(), key.display().to_string());
    let archive = file("new.p12");
    let (ok, _, why) = run(
        "openssl",
        &["pkcs12", "-export", "-in", &chain, "-inkey", &key, "-passout", "pass:geheim", "-out", &archive],
    );
    assert!(ok, "{why}");
    std::fs::write(file("password"), "geheim\n").expect("a file");
    std::fs::write(file("wrong"), "falsch\n").expect("a file");
    let import = |more: &[&str]| {
        awe4lb(&fleet, &[&["certificate", "import", &archive, "--name", "site"], more].concat())
    };
    let (ok, _, err) = import(&["--password-file", &file("wrong")]);
    assert!(!ok && err.contains("password of the PKCS#12 file is wrong"), "{err}");

    let (ok, out, err) = import(&["--password-file", &file("password"), "--dry-run"]);
    assert!(ok && out.contains("would be stored"), "{out}{err}");
    assert!(err.contains("b.test, which a rule of listener \"tls\" asks for"), "{err}");
    assert!(err.contains("was also for b.test, c.test"), "{err}");
    let address = at(fleet.nodes[0].ip, port);
    assert!(!judged(address, "a.test", &chain, &[]), "nothing is stored by a dry run");
    let (ok, out, err) = import(&["--password-file", &file("password")]);
    assert!(ok && out.contains("in place of one until"), "{out}{err}");
    eventually("the new one", || judged(address, "a.test", &chain, &[]).then_some(()));

    let (exported, _) = done(&fleet, &["certificate", "export", "site"]);
    let written = std::fs::read_to_string(&chain).expect("the chain");
    assert_eq!(exported.replace('\n', ""), written.replace(['\r', '\n'], ""));
    assert!(!fleet.rest.get("/api/v1/config").to_string().contains("PRIVATE KEY"));
    let (described, _) = done(&fleet, &["describe", "certificates", "site"]);
    assert!(described.contains("Used by") && described.contains("tls"), "{described}");
    let (listed, _) = done(&fleet, &["get", "certificates"]);
    assert!(listed.contains("DAYS LEFT") && listed.contains("a.test"), "{listed}");

    // One that renews itself is not replaced by accident.
    fleet
        .rest
        .put(
            "/api/v1/acme-accounts/ca",
            &json!({"name": "ca", "directory": "https://127.0.0.1:1/", "termsAgreed": true}),
        )
        .ok();
    let wish =
        json!({"name": "auto", "acme": {"account": "ca", "domains": ["a.test"], "challenge": "http-01"}});
    fleet.rest.put("/api/v1/certificates/auto", &wish).ok();
    let (ok, _, err) = awe4lb(&fleet, &["certificate", "import", &chain, &key, "--name", "auto"]);
    assert!(!ok && err.contains("renews itself"), "{err}");
    done(&fleet, &["certificate", "import", &chain, &key, "--name", "auto", "--force"]);
}

#[test]
fn the_internal_authority_signs_for_listeners_and_for_backends() {
    if !have("openssl") {
        return;
    }
    let fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    let folder = fleet.folder().display().to_string();
    let names = ["--domain", "a.test", "--domain", "b.test"];
    done(&fleet, &[&["certificate", "issue", "site", "--ca", "internal"], &names[..]].concat());
    let site = fleet.rest.get("/api/v1/certificates/site");
    fleet.apply(&document(&samples, port, &[json!({"name": "site", "chain": site["chain"]})]));
    let (ca, _) = done(&fleet, &["certificate", "ca"]);
    let root = format!("{folder}/root.pem");
    std::fs::write(&root, &ca).expect("a file");
    let address = at(fleet.nodes[0].ip, port);
    eventually("openssl trusts it", || judged(address, "b.test", &root, &[]).then_some(()));
    assert!(!judged(address, "c.test", &root, &[]));

    // For a backend: files, and nothing in the control plane.
    let out = format!("{folder}/backend");
    done(
        &fleet,
        &[
            "certificate",
            "issue",
            "db",
            "--domain",
            "db.test",
            "--key-type",
            "rsa2048",
            "--days",
            "7",
            "--out",
            &out,
        ],
    );
    let (ok, text, why) = run(
        "openssl",
        &[
            "verify",
            "-x509_strict",
            "-CAfile",
            &format!("{out}/ca.pem"),
            "-verify_hostname",
            "db.test",
            &format!("{out}/db.pem"),
        ],
    );
    assert!(ok, "{text}{why}");
    let (_, mode, _) = run("stat", &["-c", "%a", &format!("{out}/db.key")]);
    assert_eq!(mode.trim(), "600");
    assert_eq!(std::fs::read_to_string(format!("{out}/ca.pem")).expect("the root").trim(), ca.trim());
    let stored = fleet.rest.get("/api/v1/certificates");
    assert_eq!(stored["total"], 1, "{stored}");

    let (ok, _, err) = awe4lb(&fleet, &["certificate", "issue", "x", "--domain", "a b"]);
    assert!(!ok && err.contains("\"a b\" is no name"), "{err}");
    let (ok, _, err) =
        awe4lb(&fleet, &["certificate", "issue", "x", "--domain", "a.test", "--days", "10000"]);
    assert!(!ok && err.contains("825"), "{err}");
}
