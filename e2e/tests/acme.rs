//! Certificates that take care of themselves: Pebble as the authority, three nodes that it may ask, openssl as the judge.

use std::time::Instant;

use awe4lb_e2e::{
    acme::{Scene, can_run, certificate, judged},
    at, eventually,
    fakes::front::Front,
    process::run,
    program,
};
use serde_json::{Value, json};

#[test]
fn a_name_is_all_that_is_needed_and_every_node_answers_the_authority() {
    if !can_run() {
        return;
    }
    let scene = Scene::start(3, |_| ());
    let begin = Instant::now();
    let domains = ["n1.test", "n2.test", "n3.test"];
    scene.fleet.put(&scene.document(&[certificate("web", &domains, "tls-alpn-01")]));
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

    // Somebody does not want to wait.
    let renew = [
        "--server",
        scene.fleet.http(),
        "--token",
        &scene.fleet.rest.token,
        "certificate",
        "renew",
        "web",
        "--wait",
    ];
    let (ok, out, err) = run(program("awe4lb"), &renew);
    assert!(ok && out.contains("certificate web renewed"), "{out}{err}");
    assert_eq!(scene.orders(), 2);

    // The same by HTTP, beside the traffic of the listener.
    let both = [certificate("web", &domains, "tls-alpn-01"), certificate("plain", &domains, "http-01")];
    scene.fleet.put(&scene.document(&both));
    scene.issued("plain");
    assert_eq!(scene.orders(), 3);
}

#[test]
fn two_key_types_for_one_name_and_each_client_gets_the_one_it_can_use() {
    if !can_run() {
        return;
    }
    // An authority that forgets nonces, asks late and again.
    let scene = Scene::start(1, |wish| (wish.bad_nonces, wish.sleep, wish.reuse) = (40, 1, 50));
    let mut web = certificate("web", &["n1.test"], "http-01");
    web["acme"]["keyType"] = json!(["p256", "rsa2048"]);
    let mut strong = certificate("strong", &["n1.test"], "http-01");
    strong["acme"]["keyType"] = json!("p384");
    scene.fleet.put(&scene.document(&[web, strong]));
    let types = |status: &Value| -> Vec<String> {
        let chains = status["chains"].as_array().into_iter().flatten();
        chains.map(|chain| chain["keyType"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let status =
        scene.until("web", "issued twice", |status| types(status).len() == 2 && status["state"] == "valid");
    assert_eq!(types(&status), ["ecdsa-256", "rsa-2048"]);
    assert_eq!(types(&scene.issued("strong")), ["ecdsa-384"]);
    let (root, address) = (scene.root(), at(scene.fleet.nodes[0].ip, scene.tls));
    for signature in ["ECDSA+SHA256", "RSA-PSS+SHA256"] {
        let sees = || judged(address, "n1.test", &root, &["-sigalgs", signature]).then_some(());
        eventually(signature, sees);
    }
}

#[test]
fn the_next_kind_of_challenge_is_tried_where_one_fails() {
    if !can_run() {
        return;
    }
    // Nobody listens where the authority asks for tls-alpn-01.
    let scene = Scene::start(1, |wish| wish.tls_port = awe4lb_e2e::free_port());
    let mut web = certificate("web", &["n1.test"], "tls-alpn-01");
    scene.fleet.put(&scene.document(&[web.clone()]));
    let status = scene.failed("web");
    let error = &status["acme"]["lastError"];
    assert!(error["detail"].as_str().is_some_and(|detail| detail.contains("Failed to connect")), "{status}");
    assert_eq!((&error["domain"], &error["challenge"]), (&json!("n1.test"), &json!("tls-alpn-01")));
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("443")), "{error}");
    assert_eq!((&status["state"], &status["acme"]["next"]["what"]), (&json!("placeholder"), &json!("retry")));

    web["acme"]["challenge"] = json!(["tls-alpn-01", "http-01"]);
    scene.fleet.put(&scene.document(&[web]));
    // It waits after its failure; somebody is impatient.
    assert_eq!(scene.fleet.rest.post("/api/v1/certificates/web:renew", &json!({})).status, 202);
    scene.issued("web");
    assert_eq!(scene.orders(), 3);
}

#[test]
fn accounts_bound_to_one_of_the_authority_and_their_keys_rolled_over() {
    if !can_run() {
        return;
    }
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let mut scene = Scene::start(1, |wish| wish.binding = Some(("kid-1", key)));
    scene.fleet.put(&scene.document(&[certificate("web", &["n1.test"], "http-01")]));
    let status = scene.failed("web");
    assert_eq!(
        status["acme"]["lastError"]["type"], "urn:ietf:params:acme:error:externalAccountRequired",
        "{status}"
    );
    scene.account["externalAccountBinding"] = json!({"keyId": "kid-1", "secret": key});
    scene.fleet.put(&scene.document(&[certificate("web", &["n1.test"], "http-01")]));
    scene.fleet.rest.post("/api/v1/certificates/web:renew", &json!({})).ok();
    scene.issued("web");
    let rest = &scene.fleet.rest;
    assert!(!rest.get("/api/v1/config").to_string().contains(key), "the secret comes back out");
    assert!(rest.get("/api/v1/acme-accounts/ca")["externalAccountBinding"]["secret"].is_null());

    let before = rest.get("/api/v1/acme-accounts/ca/status");
    let after = rest.post("/api/v1/acme-accounts/ca:rollover", &json!({})).ok();
    assert_eq!((&after["registered"], &after["url"]), (&json!(true), &before["url"]));
    // The new key orders, and does so after a restart.
    scene.fleet.restart_control_plane();
    scene.fleet.await_sync();
    let orders = scene.orders();
    scene.fleet.rest.post("/api/v1/certificates/web:renew", &json!({})).ok();
    eventually("another order", || (scene.orders() > orders).then_some(()));
    scene.issued("web");
}

#[test]
fn renewed_when_the_authority_says_so_and_told_what_it_replaces() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::start(1, |_| ());
    let front = Front::start(&scene.pebble);
    scene.account = front.account("ca");
    let now = |offset: &str| {
        let (ok, text, why) = run("date", &["-u", "-d", offset, "+%Y-%m-%dT%H:%M:%SZ"]);
        assert!(ok, "{why}");
        text.trim().to_owned()
    };
    front.suggest(&now("+40 days"), &now("+41 days"), 1);
    scene.fleet.put(&scene.document(&[certificate("web", &["n1.test"], "http-01")]));
    let first = scene.until("web", "told when", |status| {
        status["acme"]["next"]["why"] == "the authority suggests it" && status["state"] == "valid"
    });
    let at = first["acme"]["next"]["at"].as_str().unwrap_or_default().to_owned();
    assert!(*at >= *now("+40 days") && *at <= *now("+41 days"), "{at}");

    // It has changed its mind (it revokes, say). A restart asks at once.
    front.suggest(&now("-2 days"), &now("-1 days"), 21_600);
    scene.fleet.restart_control_plane();
    scene.fleet.await_sync();
    let fingerprint = |status: &Value| status["chains"][0]["fingerprint"].clone();
    let second = scene.until("web", "renewed", |status| fingerprint(status) != fingerprint(&first));
    assert_eq!(second["state"], "valid");
    let replacing = front.ordered().iter().filter(|ordered| ordered["replaces"].is_string()).count();
    assert_eq!(replacing, 1, "{:?}", front.ordered());
    scene.served("n1.test");
}

#[test]
fn profiles_that_the_authority_has_are_ordered_and_others_named() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::start(1, |_| ());
    let front = Front::start(&scene.pebble);
    scene.account = front.account("ca");
    front.offer_profiles(&["classic", "shortlived"]);
    let mut web = certificate("web", &["n1.test"], "http-01");
    web["acme"]["profile"] = json!("eternal");
    scene.fleet.put(&scene.document(&[web.clone()]));
    let status = scene.failed("web");
    let error = &status["acme"]["lastError"];
    assert_eq!(error["type"], "awe4lb:profile", "{status}");
    let detail = error["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("classic") && detail.contains("shortlived"), "{detail}");
    assert_eq!(front.orders(), 0);

    web["acme"]["profile"] = json!("shortlived");
    scene.fleet.put(&scene.document(&[web.clone()]));
    scene.issued("web");
    assert_eq!(front.ordered()[0]["profile"], "shortlived");
    let account = scene.fleet.rest.get("/api/v1/acme-accounts/ca/status");
    assert_eq!(account["terms"], "https://ca.test/terms", "{account}");
    // Another profile is another certificate.
    web["acme"]["profile"] = json!("classic");
    scene.fleet.put(&scene.document(&[web]));
    eventually("another order", || (front.ordered().len() == 2).then_some(()));
}

#[test]
fn no_more_orders_than_the_account_says_the_authority_takes() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::start(1, |_| ());
    scene.account["ordersPerHour"] = json!(1);
    let certificates: Vec<Value> =
        (0..5).map(|n| certificate(&format!("c{n}"), &[&format!("c{n}.test")], "http-01")).collect();
    scene.fleet.put(&scene.document(&certificates));
    let names = || (0..5).map(|n| scene.status(&format!("c{n}")));
    let is_budget = |status: &Value| status["acme"]["lastError"]["type"] == "awe4lb:budget";
    // Three hours' worth at once, the others wait without having failed.
    eventually("two wait", || (names().filter(is_budget).count() == 2).then_some(()));
    eventually("three are issued", || {
        (names().filter(|one| one["state"] == "valid").count() == 3).then_some(())
    });
    let waits = names().find(is_budget).unwrap_or_default();
    assert_eq!(
        (&waits["acme"]["state"], &waits["acme"]["failures"]),
        (&json!("waiting"), &json!(0)),
        "{waits}"
    );
    assert_eq!(waits["acme"]["next"]["why"], "the authority takes no order before");
    assert_eq!(scene.orders(), 3);
}
