//! What may go wrong while certificates are ordered: what served goes on, the cause is shown, and no order is placed twice.

use awe4lb_e2e::{
    acme::{Scene, can_run, certificate},
    eventually,
    fakes::front::Front,
    fleet::Fleet,
    process::run,
};
use serde_json::{Value, json};

/// A scene whose authority stands behind a front.
fn behind_a_front(nodes: u8) -> (Scene, Front) {
    let mut scene = Scene::start(nodes, |_| ());
    let front = Front::start(&scene.pebble);
    scene.account = front.account("ca");
    (scene, front)
}

fn date(offset: &str, form: &str) -> String {
    let (ok, text, why) = run("date", &["-u", "-d", offset, form]);
    assert!(ok, "{why}");
    text.trim().to_owned()
}

#[test]
fn the_control_plane_is_killed_after_each_step_of_an_order_and_goes_on_with_the_same() {
    if !can_run() {
        return;
    }
    let (mut scene, front) = behind_a_front(1);
    let mut again = Vec::new();
    for nth in 1.. {
        // Each time another account, so that its registration is among the steps.
        scene.account = front.account(&format!("ca{nth}"));
        let name = format!("web{nth}");
        let mut web = certificate(&name, &["n1.test"], "http-01");
        web["acme"]["account"] = json!(format!("ca{nth}"));
        let halted = front.halt_at(nth);
        scene.fleet.put(&scene.document(&[web]));
        let is_halted = || {
            let over = scene.status(&name)["acme"]["state"] == "idle";
            (halted.try_recv().is_ok() || over).then_some(over)
        };
        if eventually("the authority keeps back an answer", is_halted) {
            println!("an order has {} requests", front.go_on());
            assert!(nth > 8, "{:?}", front.asked());
            break;
        }
        scene.fleet.kill_control_plane();
        front.go_on();
        scene.fleet.restart_control_plane();
        scene.issued(&name);
        let asked = front.asked();
        let of_halt = &asked[nth - 1].0;
        // Whose answer with the order's address is lost, has nothing to go on with.
        let most = if of_halt == "POST /order-plz" { 2 } else { 1 };
        if front.orders() > most {
            again.push(format!("{} orders after {of_halt}: {asked:?}", front.orders()));
        }
    }
    assert!(again.is_empty(), "{again:#?}");
}

#[test]
fn an_authority_that_is_away_or_full_is_left_alone() {
    if !can_run() {
        return;
    }
    let (mut scene, front) = behind_a_front(1);
    let web = [certificate("web", &["n1.test"], "http-01")];
    scene.fleet.put(&scene.document(&web));
    let first = scene.issued("web");

    // A proxy's page in place of the authority.
    front.break_down(true);
    let renew = |scene: &Scene, name: &str| {
        scene.fleet.rest.post(&format!("/api/v1/certificates/{name}:renew"), &json!({})).ok();
    };
    renew(&scene, "web");
    let status = scene.failed("web");
    assert!(
        status["acme"]["lastError"]["detail"].as_str().is_some_and(|detail| detail.contains("502")),
        "{status}"
    );
    assert_eq!((&status["state"], &status["chains"]), (&json!("valid"), &first["chains"]));
    assert_eq!(front.orders(), 1);
    scene.served("n1.test");

    // It is back, and takes nothing for ten minutes. That is kept over a restart, and by those who are impatient.
    front.break_down(false);
    front.refuse(Some((429, "rateLimited", "600".to_owned())));
    scene.fleet.put(&scene.document(&[web[0].clone(), certificate("other", &["n1.test"], "http-01")]));
    let asked_to_wait = |status: &Value| {
        status["acme"]["next"]["why"] == "the authority takes no order before"
            && status["acme"]["failures"] == 1
    };
    let status = scene.until("other", "asked to wait", asked_to_wait);
    let soonest = date("+9 minutes", "+%Y-%m-%dT%H:%M:%SZ");
    assert!(status["acme"]["next"]["at"].as_str() >= Some(&soonest), "{status}");
    front.refuse(None);
    scene.fleet.restart_control_plane();
    scene.fleet.await_sync();
    renew(&scene, "other");
    // Somebody else's order goes well meanwhile: this one was not forgotten, it waits.
    renew(&scene, "web");
    eventually("the other order", || (front.orders() == 2).then_some(()));
    scene.issued("web");
    assert!(asked_to_wait(&scene.status("other")), "{}", scene.status("other"));
    assert_eq!(front.orders(), 2);
}

#[test]
fn an_authority_that_has_forgotten_account_and_order_is_told_both_anew() {
    if !can_run() {
        return;
    }
    let (mut scene, front) = behind_a_front(1);
    let halted = front.halt_at(8);
    scene.fleet.put(&scene.document(&[certificate("web", &["n1.test"], "http-01")]));
    eventually("an order is on its way", || halted.try_recv().ok());
    scene.fleet.kill_control_plane();
    scene.forget_everything();
    front.stand_before(&scene.pebble);
    front.go_on();
    scene.fleet.restart_control_plane();
    let status = scene.failed("web");
    assert_eq!(
        status["acme"]["lastError"]["type"], "urn:ietf:params:acme:error:accountDoesNotExist",
        "{status}"
    );
    scene.fleet.rest.post("/api/v1/certificates/web:renew", &json!({})).ok();
    scene.issued("web");
    assert_eq!(scene.orders(), 1);
    scene.served("n1.test");
}

#[test]
fn with_a_clock_that_is_wrong_nothing_is_ordered() {
    if !can_run() {
        return;
    }
    let (scene, front) = behind_a_front(1);
    front.date(Some(&date("+3 hours", "+%a, %d %b %Y %H:%M:%S GMT")));
    scene.fleet.put(&scene.document(&[certificate("web", &["n1.test"], "http-01")]));
    let status = scene.failed("web");
    let error = &status["acme"]["lastError"];
    assert_eq!(error["type"], "awe4lb:clock", "{status}");
    assert!(error["detail"].as_str().is_some_and(|detail| detail.contains("differ by 1")), "{status}");
    assert_eq!(front.orders(), 0);
    // It is set right, and believed at once.
    front.date(None);
    scene.fleet.rest.post("/api/v1/certificates/web:renew", &json!({})).ok();
    scene.issued("web");
}

#[test]
fn a_node_that_is_down_is_named_and_gets_the_certificate_when_it_is_back() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::start(2, |_| ());
    scene.fleet.nodes[1].kill();
    // The authority asks the one that is there: it goes well, after a while.
    let good = certificate("good", &["n1.test"], "http-01");
    scene.fleet.put(&scene.document(std::slice::from_ref(&good)));
    scene.issued("good");
    // It asks the one that is not.
    scene.fleet.put(&scene.document(&[good, certificate("bad", &["n2.test"], "http-01")]));
    let status = scene.failed("bad");
    let error = &status["acme"]["lastError"];
    assert_eq!((&error["nodes"], &error["domain"]), (&json!(["node-2"]), &json!("n2.test")), "{status}");

    scene.fleet.nodes[1].start();
    scene.fleet.await_sync();
    scene.served("n1.test");
    scene.fleet.rest.post("/api/v1/certificates/bad:renew", &json!({})).ok();
    scene.issued("bad");
    scene.served("n2.test");
}

#[test]
fn without_a_node_the_authority_is_not_asked() {
    if !can_run() {
        return;
    }
    let scene = Scene::start(0, |_| ());
    scene.dns.lead("n1.test", [127, 0, 1, 1]);
    scene.fleet.put(&scene.document(&[certificate("web", &["n1.test"], "http-01")]));
    let status = scene.failed("web");
    assert_eq!(status["acme"]["lastError"]["type"], "awe4lb:no-node", "{status}");
    assert!(!scene.pebble.log().contains("POST /chalZ"), "{}", scene.pebble.log());
}

#[test]
fn what_is_wished_anew_while_it_is_ordered_is_ordered_as_it_is_wished() {
    if !can_run() {
        return;
    }
    let (scene, front) = behind_a_front(1);
    let halted = front.halt_at(8);
    scene.fleet.put(&scene.document(&[certificate("web", &["n1.test"], "http-01")]));
    eventually("an order is on its way", || halted.try_recv().ok());
    scene.dns.lead("other.test", [127, 0, 1, 1]);
    scene.fleet.put(&scene.document(&[certificate("web", &["other.test"], "http-01")]));
    front.go_on();
    let names = |status: &Value| status["names"] == json!(["other.test"]) && status["state"] == "valid";
    scene.until("web", "for the other name", names);
    scene.served("other.test");
}

#[test]
fn with_a_full_disk_nothing_is_ordered_and_what_served_goes_on() {
    if !can_run() {
        return;
    }
    let scene = Scene::around(Fleet::start_on_a_small_disk(1, 24), |_| ());
    scene.fleet.put(&scene.document(&[certificate("web", &["n1.test"], "http-01")]));
    let first = scene.issued("web");
    scene.fleet.fill_disk(true);
    let renew = || drop(scene.fleet.rest.post("/api/v1/certificates/web:renew", &json!({})).ok());
    renew();
    let status = scene.failed("web");
    assert_eq!(status["acme"]["lastError"]["type"], "awe4lb:storage", "{status}");
    assert_eq!((scene.orders(), &status["chains"]), (1, &first["chains"]));
    scene.served("n1.test");
    scene.fleet.fill_disk(false);
    renew();
    scene.until("web", "renewed", |status| {
        status["chains"] != first["chains"] && status["acme"]["failures"] == 0
    });
    assert_eq!(scene.orders(), 2);
}
