//! Certificates in folders: those that certbot keeps, and those of a careless script.

use awe4lb_e2e::{
    acme::{Scene, can_run, judged},
    at, eventually, have,
    process::run,
    servers::Identity,
};
use serde_json::{Value, json};

fn with_folder(scene: &Scene, folder: &std::path::Path) -> Value {
    let mut document = scene.document(&[json!({"name": "bot", "directory": folder})]);
    document.as_object_mut().expect("an object").remove("acmeAccounts");
    document
}

#[test]
fn what_certbot_renews_is_served_by_every_node() {
    if !can_run() || !have("certbot") {
        return;
    }
    let scene = Scene::start_with(2, &["--allow-files", "DIR/letsencrypt"], |_| ());
    scene.dns.lead("bot.test", [127, 0, 9, 1]);
    let folder = scene.fleet.folder().join("letsencrypt");
    let ca = scene.fleet.folder().join("pebble-ca.pem");
    std::fs::write(&ca, scene.pebble.ca()).expect("a file");
    let certbot = |command: &[&str]| {
        let folders =
            ["--config-dir", "--work-dir", "--logs-dir"].map(|flag| (flag, folder.display().to_string()));
        let mut words = vec![format!("REQUESTS_CA_BUNDLE={}", ca.display()), "certbot".to_owned()];
        words.extend(command.iter().map(|word| (*word).to_owned()));
        words.extend(folders.into_iter().flat_map(|(flag, folder)| [flag.to_owned(), folder]));
        words.extend(
            ["--non-interactive", "--agree-tos", "--register-unsafely-without-email"].map(str::to_owned),
        );
        words.extend(["--server".to_owned(), scene.pebble.directory()]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (ok, out, why) = run("env", &words);
        assert!(ok, "{out}\n{why}");
    };
    let port = scene.http.to_string();
    let own = ["--standalone", "--http-01-address", "127.0.9.1", "--http-01-port", &port];
    certbot(&[&["certonly", "-d", "bot.test"], &own[..]].concat());

    scene.fleet.put(&with_folder(&scene, &folder.join("live/bot.test")));
    let first = scene.until("bot", "read", |status| status["state"] == "valid");
    assert_eq!((&first["origin"], &first["names"]), (&json!("directory"), &json!(["bot.test"])), "{first}");
    scene.served("bot.test");
    certbot(&[&["renew", "--force-renewal", "--no-random-sleep-on-renew"], &own[..]].concat());
    let fingerprint = |status: &Value| status["chains"][0]["fingerprint"].clone();
    scene.until("bot", "read again", |status| fingerprint(status) != fingerprint(&first));
    scene.served("bot.test");
}

#[test]
fn what_does_not_fit_changes_nothing_and_is_told() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::start_with(1, &["--allow-files", "DIR/good"], |_| ());
    let (good, other) = (scene.fleet.folder().join("good"), scene.fleet.folder().join("other"));
    let write = |folder: &std::path::Path, chain: &str, key: &str| {
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join("tls.key"), key).expect("a file");
        std::fs::write(folder.join("tls.crt"), chain).expect("a file");
    };
    let (one, two) = (Identity::new(&["bot.test"]), Identity::new(&["bot.test"]));
    write(&good, &one.chain, &one.key);
    write(&other, &one.chain, &one.key);
    let error = |status: &Value| status["directory"]["error"].as_str().unwrap_or_default().to_owned();

    scene.fleet.put(&with_folder(&scene, &other));
    let status = scene.until("bot", "refused", |status| !error(status).is_empty());
    assert!(error(&status).contains("--allow-files"), "{status}");
    assert_eq!(status["state"], "placeholder");

    scene.fleet.put(&with_folder(&scene, &good));
    let status = scene.until("bot", "read", |status| status["state"] == "valid");
    let root = scene.fleet.folder().join("one.pem");
    std::fs::write(&root, &one.chain).expect("a file");
    let address = at(scene.fleet.nodes[0].ip, scene.tls);
    let serves =
        |root: &std::path::Path| judged(address, "bot.test", &root.display().to_string(), &[]).then_some(());
    eventually("the first", || serves(&root));

    // A key without its chain: as if somebody stopped half way.
    write(&good, &one.chain, &two.key);
    let wrong = scene.until("bot", "refused", |status| !error(status).is_empty());
    assert!(error(&wrong).contains("key"), "{wrong}");
    assert_eq!(wrong["chains"], status["chains"]);
    // What was read serves on, also after a restart without the files.
    std::fs::remove_dir_all(&good).expect("it goes");
    scene.fleet.restart_control_plane();
    scene.fleet.await_sync();
    let after = scene.until("bot", "missing", |status| error(status).contains("fullchain.pem"));
    assert_eq!(after["chains"], status["chains"]);
    serves(&root).expect("the first serves on");

    write(&good, &two.chain, &two.key);
    std::fs::write(&root, &two.chain).expect("a file");
    eventually("the second", || serves(&root));
    scene.until("bot", "well", |status| error(status).is_empty());
}
