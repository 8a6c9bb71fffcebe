//! Certificates that live for seconds, renewed again and again while clients come: none ever sees one that is over. And a
//! thousand of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use awe4lb_e2e::{
    acme::{Scene, can_run, certificate},
    at, eventually,
    process::run,
    try_eventually,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;

/// A client that trusts the authority, and looks at the clock.
fn client(root: &str) -> tokio_rustls::TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).expect("a root")).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config).into()
}

async fn handshake(client: &tokio_rustls::TlsConnector, to: SocketAddr, name: String) -> Result<(), String> {
    let stream = tokio::net::TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    let server = ServerName::try_from(name.clone()).map_err(|error| error.to_string())?;
    client.connect(server, stream).await.map(drop).map_err(|error| format!("{name}: {error}"))
}

/// So many certificates that live for so many seconds, until there were so many renewals in all.
fn renew(count: usize, life: u64, renewals: usize) {
    let scene = Scene::start(1, |wish| wish.life = life);
    let names: Vec<String> = (0..count).map(|n| format!("c{n}.test")).collect();
    let certificates: Vec<Value> =
        names.iter().map(|name| certificate(&name.replace('.', "-"), &[name], "tls-alpn-01")).collect();
    scene.fleet.put(&scene.document(&certificates));
    let target = at(scene.fleet.nodes[0].ip, scene.tls);
    let root = scene.pebble.root();
    names.iter().for_each(|name| scene.served(name));
    let first = scene.orders();

    let wrong: Arc<Mutex<Vec<String>>> = Arc::default();
    let is_over = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let clients: Vec<_> = names
        .iter()
        .map(|name| {
            let (client, name, wrong, is_over) =
                (client(&root), name.clone(), wrong.clone(), is_over.clone());
            runtime.spawn(async move {
                let mut count = 0_u64;
                while !is_over.load(SeqCst) {
                    let result = handshake(&client, target, name.clone()).await;
                    wrong.lock().unwrap_or_else(PoisonError::into_inner).extend(result.err());
                    count += 1;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                count
            })
        })
        .collect();
    let begin = Instant::now();
    // Longer than anything else may take: it is the certificates' own pace.
    let limit = Duration::from_secs(life * (renewals / count + 2) as u64 + 30);
    while scene.orders() < first + renewals && begin.elapsed() < limit {
        let _ = try_eventually(|| (scene.orders() >= first + renewals).then_some(()));
    }
    is_over.store(true, SeqCst);
    let handshakes: u64 =
        runtime.block_on(async { futures_util::future::join_all(clients).await }).into_iter().flatten().sum();
    let orders = scene.orders() - first;
    let (seconds, wrong) =
        (begin.elapsed().as_secs(), wrong.lock().unwrap_or_else(PoisonError::into_inner).clone());
    println!(
        "{orders} renewals of {count} certificates that live {life} s, {handshakes} handshakes in {seconds} s"
    );
    assert!(orders >= renewals, "{orders} renewals in {seconds} s");
    assert!(wrong.is_empty(), "{} of {handshakes} wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(handshakes > renewals as u64);
}

#[test]
fn renewed_before_they_end_while_clients_come() {
    if can_run() {
        renew(4, 12, 8);
    }
}

/// An order that has just gone well was placed again when its end was seen before its chain.
#[test]
fn a_burst_of_certificates_is_ordered_once_each() {
    if !can_run() {
        return;
    }
    let scene = Scene::start(1, |_| ());
    let certificates: Vec<Value> =
        (0..40).map(|n| certificate(&format!("c{n}"), &[&format!("c{n}.test")], "http-01")).collect();
    scene.fleet.put(&scene.document(&certificates));
    (0..40).for_each(|n| drop(scene.issued(&format!("c{n}"))));
    assert_eq!(scene.orders(), 40);
}

#[test]
#[ignore = "the deep lane: three minutes"]
fn two_hundred_renewals_without_a_gap() {
    if can_run() {
        renew(25, 30, 200);
    }
}

#[test]
#[ignore = "the deep lane: a minute, and it measures"]
fn a_thousand_certificates_are_ordered_once_each_and_cost_nothing_afterwards() {
    if !can_run() {
        return;
    }
    let scene = Scene::start(1, |_| ());
    let certificates: Vec<Value> =
        (0..1_000).map(|n| certificate(&format!("c{n}"), &[&format!("c{n}.test")], "http-01")).collect();
    let begin = Instant::now();
    scene.fleet.put(&scene.document(&certificates));
    let issued = || {
        let (mut valid, mut cursor) = (0, String::new());
        loop {
            let page = scene.fleet.rest.get(&format!("/api/v1/certificate-status?limit=1000{cursor}"));
            let items = page["items"].as_array().cloned().unwrap_or_default();
            valid += items.iter().filter(|one| one["state"] == "valid").count();
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return valid,
            }
        }
    };
    while begin.elapsed() < Duration::from_secs(400) && issued() < 1_000 {
        std::thread::sleep(Duration::from_secs(1));
    }
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu(&scene));
    let log = scene.fleet.control_plane().log();
    let failed: Vec<&str> = log.lines().filter(|line| line.contains("not issued")).collect();
    let orders = (issued(), scene.orders());
    assert_eq!(
        orders,
        (1_000, 1_000),
        "after {seconds:.0} s, {} failures: {:?}",
        failed.len(),
        failed.first()
    );
    scene.fleet.await_sync();
    // A day of renewals, at what one order costs.
    let day = cpu / 86_400.0 * 100.0;
    let before = self::cpu(&scene);
    std::thread::sleep(Duration::from_secs(30));
    let idle = (self::cpu(&scene) - before) / 30.0 * 100.0;
    println!(
        "1,000 certificates in {seconds:.0} s and {cpu:.1} s of CPU: over a day {day:.3} % of a core; idle {idle:.2} %"
    );
    assert!(day + idle <= 1.0, "{day:.3} % and {idle:.2} % of a core");
    eventually("all are served", || (scene.status("c999")["nodes"]["serving"] == 1).then_some(()));
}

/// Seconds of the control plane.
fn cpu(scene: &Scene) -> f64 {
    let (ok, text, why) = run("curl", &["-sf", &format!("{}/metrics", scene.fleet.http())]);
    assert!(ok, "{why}");
    let line = text.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    line.and_then(|value| value.parse().ok()).expect("the metric")
}
