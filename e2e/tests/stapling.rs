//! OCSP stapling as clients see it: openssl asks, openssl judges.

#[path = "../../control-plane/tests/support/authority.rs"]
mod authority;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use authority::{Authority, CURVE};
use awe4lb_e2e::{at, eventually, fleet::Fleet, free_port, have, servers::Samples};
use serde_json::json;

/// What `openssl s_client -status` sees.
fn status(authority: &Authority, to: SocketAddr) -> String {
    let output = Command::new("openssl")
        .current_dir(authority.path())
        .args(["s_client", "-status", "-CAfile", "ca.pem", "-servername", "a.test", "-connect"])
        .arg(to.to_string())
        .stdin(Stdio::null())
        .output();
    String::from_utf8_lossy(&output.expect("openssl runs").stdout).into_owned()
}

fn is_stapled(seen: &str) -> bool {
    let is_trusted = seen.contains("Verify return code: 0 (ok)");
    assert!(is_trusted, "{seen}");
    seen.contains("OCSP Response Status: successful") && seen.contains("Cert Status: good")
}

/// In front of a responder: questions wait until they may pass.
fn gate(to: u16) -> (u16, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (open, opened) = mpsc::channel::<()>();
    thread::spawn(move || {
        let mut client = listener.accept().expect("a connection").0;
        opened.recv().expect("the test opens it");
        let mut responder = TcpStream::connect(("127.0.0.1", to)).expect("the responder");
        let (mut question, mut back) =
            (client.try_clone().expect("a clone"), responder.try_clone().expect("a clone"));
        thread::spawn(move || std::io::copy(&mut question, &mut responder));
        let _ = std::io::copy(&mut back, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
    (port, open)
}

/// A client that stays.
fn client(authority: &Authority, to: SocketAddr) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(authority.read("ca.pem").as_bytes()).expect("a certificate");
    roots.add(ca).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("a.test").expect("a name");
    let connection = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let stream = TcpStream::connect(to).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    rustls::StreamOwned::new(connection, stream)
}

fn echo(client: &mut rustls::StreamOwned<rustls::ClientConnection, TcpStream>) {
    client.write_all(b"ping").expect("it is sent");
    let mut back = [0; 4];
    client.read_exact(&mut back).expect("it comes back");
    assert_eq!(&back, b"ping");
}

/// The inodes of the sockets that listen there.
fn sockets(at: SocketAddr) -> Vec<String> {
    let std::net::IpAddr::V4(ip) = at.ip() else { panic!("{at} is not IPv4") };
    let address = format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), at.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = rows.filter(|row| row.len() > 9 && row[1] == address && row[3] == "0A");
    listening.map(|row| row[9].to_owned()).collect()
}

#[test]
fn clients_get_what_the_responder_says_and_connections_do_not_notice() {
    if !have("openssl") {
        return;
    }
    let authority = Authority::new(CURVE);
    authority.issue("appointed", "3001", "extendedKeyUsage=OCSPSigning");
    authority.know(&[("1001", false)]);
    let port = free_port();
    let responder = authority.respond(port, "appointed");
    let (gate, open) = gate(port);
    let extensions = format!(
        "subjectAltName=DNS:a.test\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:{gate}/\ntlsfeature=status_request"
    );
    authority.issue("leaf", "1001", &extensions);

    let mut fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    fleet.apply(&json!({
        "version": 1,
        "listeners": [{"name": "l", "bind": [format!("*:{port}")], "tls": {"certificates": ["c"]}, "rules": [{"pool": "p"}]}],
        "pools": [{"name": "p", "backends": [{"address": samples.tcp_echo[0].to_string()}]}],
        "certificates": [{"name": "c", "chain": authority.chain("leaf"), "key": authority.read("leaf.key")}],
    }));
    let target = at(fleet.nodes[0].ip, port);
    let bound = sockets(target);
    assert!(!bound.is_empty());
    let mut stays = client(&authority, target);
    echo(&mut stays);
    assert!(!is_stapled(&status(&authority, target)));

    // The answer comes: without a revision, and nobody who is connected notices.
    open.send(()).expect("the gate");
    eventually("a staple", || is_stapled(&status(&authority, target)).then_some(()));
    echo(&mut stays);
    fleet.await_sync();
    assert_eq!(fleet.rest.get("/api/v1/revisions")["total"], 1, "no revision");
    assert_eq!(sockets(target), bound, "nothing is bound anew");

    // The responder goes, and the control plane is started again: the answer still counts, and nodes are sent nothing.
    drop(responder);
    let wanted = |fleet: &Fleet| fleet.view("node-1")["wanted"].clone();
    let before = wanted(&fleet);
    fleet.restart_control_plane();
    fleet.await_sync();
    assert_eq!(wanted(&fleet), before);
    assert!(is_stapled(&status(&authority, target)));
    echo(&mut stays);

    // A node that starts without the control plane has it in its cache.
    fleet.kill_control_plane();
    fleet.nodes[0].kill();
    fleet.nodes[0].start();
    assert!(is_stapled(&status(&authority, target)));
}

#[test]
fn a_revoked_certificate_is_served_without_an_answer() {
    if !have("openssl") {
        return;
    }
    let authority = Authority::new(CURVE);
    authority.know(&[("1001", true)]);
    let port = free_port();
    let _responder = authority.respond(port, "ca");
    let extensions =
        format!("subjectAltName=DNS:a.test\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:{port}/");
    authority.issue("leaf", "1001", &extensions);
    let fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    fleet.apply(&json!({
        "version": 1,
        "listeners": [{"name": "l", "bind": [format!("*:{port}")], "tls": {"certificates": ["c"]}, "rules": [{"pool": "p"}]}],
        "pools": [{"name": "p", "backends": [{"address": samples.tcp_echo[0].to_string()}]}],
        "certificates": [{"name": "c", "chain": authority.chain("leaf"), "key": authority.read("leaf.key")}],
    }));
    let log = fleet.folder().join("control-plane.log");
    eventually("a line in the log", || {
        let log = std::fs::read_to_string(&log).ok()?;
        log.contains("its authority revoked this certificate at 2025-01-01").then_some(())
    });
    let seen = status(&authority, at(fleet.nodes[0].ip, port));
    assert!(seen.contains("OCSP response: no response sent") && !is_stapled(&seen), "{seen}");
}
