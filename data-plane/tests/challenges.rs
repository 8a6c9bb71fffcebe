//! What certificate authorities ask is answered on listeners that carry other traffic, and nobody else notices.

mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use awe4lb_data_plane::{
    control::hot::{Challenge, ChallengeKind, DataPath},
    traffic::Traffic,
};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme,
    StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use support::*;

const HOUR: Duration = Duration::from_secs(3_600);
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const ANSWER: &str =
    "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

/// An authority looks at the certificate itself.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let _ = (message, certificate, signature);
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let _ = (message, certificate, signature);
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn client_config(alpn: &[&str]) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn tls(port: u16, name: &str, alpn: &[&str]) -> Client {
    let name = name.to_owned().try_into().expect("a name");
    StreamOwned::new(ClientConnection::new(client_config(alpn), name).expect("a client"), connect(port))
}

/// What was shown, for which protocol, and what was said afterwards.
fn shown(port: u16, name: &str, alpn: &[&str]) -> std::io::Result<(CertificateDer<'static>, String, String)> {
    let mut client = tls(port, name, alpn);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    let certificate = client.conn.peer_certificates().expect("a certificate")[0].clone();
    let protocol = String::from_utf8_lossy(client.conn.alpn_protocol().unwrap_or_default()).into_owned();
    client.conn.send_close_notify();
    client.flush()?;
    let mut said = String::new();
    client.read_to_string(&mut said)?;
    Ok((certificate, protocol, said))
}

fn https_of(name: &str) -> (String, CertificateDer<'static>, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let document = serde_json::json!({ "name": "own", "chain": made.cert.pem(), "key": made.signing_key.serialize_pem() });
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    (document.to_string(), made.cert.der().clone(), key.into())
}

/// A backend that speaks TLS itself, says its name and ends.
fn tls_greeter(says: &'static str, name: &str) -> (SocketAddr, CertificateDer<'static>) {
    let (_, certificate, key) = https_of(name);
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("fits");
    let config = Arc::new(config);
    let address = backend(move |stream| {
        let server = ServerConnection::new(config.clone()).expect("a server");
        let mut stream = StreamOwned::new(server, stream);
        let _ = stream.write_all(says.as_bytes());
        stream.conn.send_close_notify();
        let _ = stream.flush();
        let _ = stream.sock.shutdown(Shutdown::Write);
        let _ = read_to_end(&mut stream.sock);
    });
    (address, certificate)
}

/// A certificate as RFC 8737 has it.
fn by_tls(host: &str, lasts: Duration) -> (Challenge, CertificateDer<'static>) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut wish = rcgen::CertificateParams::new(vec![host.to_owned()]).expect("a name");
    wish.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(&[7; 32])];
    let made = wish.self_signed(&key).expect("a certificate");
    let kind = ChallengeKind::TlsAlpn01 {
        host: host.to_owned(),
        chain_der: vec![made.der().to_vec()],
        key_der: key.serialize_der(),
    };
    (Challenge { kind, lasts }, made.der().clone())
}

fn by_http(lasts: Duration) -> Challenge {
    let kind = ChallengeKind::Http01 { token: TOKEN.to_owned(), key_authorization: ANSWER.to_owned() };
    Challenge { kind, lasts }
}

fn question(token: &str) -> String {
    format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: app.test\r\nUser-Agent: authority\r\nAccept: */*\r\n\r\n"
    )
}

/// What comes back until the end; `bytes` are sent at once, and the client does not end first.
fn asked(port: u16, bytes: &[u8]) -> String {
    let mut stream = connect(port);
    stream.write_all(bytes).expect("sent");
    String::from_utf8(read_to_end(&mut stream).expect("a clean end")).expect("text")
}

fn is_answer(text: &str) -> bool {
    text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with(&format!("\r\n\r\n{ANSWER}"))
}

/// The kinds of listener on port 443, each with one name of its own behind it; what an ordinary client is shown and told.
fn listeners() -> Vec<(&'static str, Arc<Traffic>, u16, CertificateDer<'static>, &'static str)> {
    let (document, own, _) = https_of("app.test");
    let (passed, of_backend) = tls_greeter("passed through", "app.test");
    let plain = greeter("terminated");
    [
        ("names are read", "rules: [{ match: { sni: app.test }, pool: passed }]", &of_backend, "passed through"),
        ("TLS ends here", "tls: { certificates: [own] }, rules: [{ pool: plain }]", &own, "terminated"),
        (
            "TLS ends here by name",
            "tls: { certificates: [own] }, rules: [{ match: { sni: app.test }, pool: plain }]",
            &own,
            "terminated",
        ),
        ("nothing is read", "rules: [{ pool: passed }]", &of_backend, "passed through"),
    ]
    .map(|(what, listener, certificate, says)| {
        let port = free_port();
        let traffic = running(&format!(
            "listeners: [{{ name: l, bind: ['*:{port}'], {listener} }}]\n\
             pools: [{{ name: passed, backends: [{{ address: '{passed}' }}] }}, {{ name: plain, backends: [{{ address: '{plain}' }}] }}]\n\
             certificates: [{document}]\n"
        ));
        (what, traffic, port, certificate.clone(), says)
    })
    .into()
}

#[test]
fn a_question_by_tls_is_answered_on_every_kind_of_listener_and_others_go_their_way() {
    for (what, traffic, port, ordinary, says) in listeners() {
        let undisturbed = |when: &str| {
            for alpn in [&[][..], &["h2", "http/1.1"], &["acme-tls/1", "h2"]] {
                let got =
                    shown(port, "app.test", alpn).unwrap_or_else(|error| panic!("{what}, {when}: {error}"));
                assert_eq!(
                    got,
                    (ordinary.clone(), String::new(), says.to_owned()),
                    "{what}, {when}, {alpn:?}"
                );
            }
        };
        undisturbed("before");
        // Nobody asks: what offers the protocol is served as ever.
        assert_eq!(shown(port, "app.test", &["acme-tls/1"]).expect(what).0, ordinary, "{what}");
        let (challenge, certificate) = by_tls("app.test", HOUR);
        let (other, _) = by_tls("other.test", HOUR);
        traffic.set_challenges(vec![challenge, other]).expect("answerable");
        for name in ["app.test", "APP.test"] {
            let got = shown(port, name, &["acme-tls/1"]).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(got, (certificate.clone(), "acme-tls/1".to_owned(), String::new()), "{what}");
        }
        undisturbed("meanwhile");
        eventually("counted", || (ended(&traffic, 1, "challenge-answered") == 2).then_some(()));
        traffic.set_challenges(Vec::new()).expect("none");
        assert_eq!(shown(port, "app.test", &["acme-tls/1"]).expect(what).0, ordinary, "{what}, afterwards");
        undisturbed("afterwards");
        assert_eq!(ended(&traffic, 1, "challenge-answered"), 2, "{what}");
    }
}

#[test]
fn a_question_for_another_name_goes_its_way() {
    for (what, traffic, port, ordinary, says) in listeners() {
        let (challenge, _) = by_tls("other.test", HOUR);
        traffic.set_challenges(vec![challenge]).expect("answerable");
        let got = shown(port, "app.test", &["acme-tls/1"]).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(got, (ordinary, String::new(), says.to_owned()), "{what}");
    }
}

#[test]
fn a_name_that_no_rule_routes_is_answered_all_the_same() {
    let (document, ..) = https_of("app.test");
    for listener in [
        "rules: [{ match: { sni: app.test }, pool: p }]",
        "tls: { certificates: [own] }, rules: [{ match: { sni: app.test }, pool: p }]",
        "tls: { certificates: [own] }, rules: [{ match: { client: 192.0.2.0/24 }, pool: p }]",
        "tls: { certificates: [own] }, rules: [{ name: shut, reject: {} }]",
    ] {
        let port = free_port();
        let traffic = running(&format!(
            "listeners: [{{ name: l, bind: ['*:{port}'], {listener} }}]\n\
             pools: [{{ name: p, backends: [{{ address: '{}' }}] }}]\ncertificates: [{document}]\n",
            greeter("hello")
        ));
        let (challenge, certificate) = by_tls("new.test", HOUR);
        traffic.set_challenges(vec![challenge]).expect("answerable");
        assert_eq!(shown(port, "new.test", &["acme-tls/1"]).expect(listener).0, certificate, "{listener}");
        assert!(shown(port, "new.test", &[]).is_err(), "{listener}: others are refused as ever");
    }
}

/// openssl knows nothing of us, and says what a certificate holds.
#[test]
fn openssl_sees_the_protocol_and_the_identifier() {
    let Ok(version) = Command::new("openssl").arg("version").output() else {
        assert!(std::env::var_os("CI").is_none(), "openssl is missing, and in CI no test may skip");
        return eprintln!("SKIPPED: openssl is missing");
    };
    assert!(version.status.success());
    for (what, traffic, port, ..) in listeners() {
        let (challenge, _) = by_tls("app.test", HOUR);
        traffic.set_challenges(vec![challenge]).expect("answerable");
        for version in ["-tls1_2", "-tls1_3"] {
            let address = format!("127.0.0.1:{port}");
            let arguments =
                ["s_client", "-connect", &address, "-servername", "app.test", "-alpn", "acme-tls/1", version];
            let asked =
                Command::new("openssl").args(arguments).stdin(Stdio::null()).output().expect("openssl");
            let said = String::from_utf8_lossy(&asked.stdout).into_owned();
            assert!(said.contains("ALPN protocol: acme-tls/1"), "{what}, {version}: {said}");
            let mut reader = Command::new("openssl")
                .args(["x509", "-noout", "-text"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("openssl");
            reader.stdin.take().expect("piped").write_all(said.as_bytes()).expect("read");
            let text = reader.wait_with_output().expect("openssl");
            let text = String::from_utf8_lossy(&text.stdout).into_owned();
            // acmeIdentifier (RFC 8737 section 3), by number where a version has no name for it.
            let names = ["1.3.6.1.5.5.7.1.31: critical", "ACME Identifier: critical"];
            assert!(names.iter().any(|name| text.contains(name)), "{what}, {version}: {text}");
            assert!(text.contains("DNS:app.test"), "{what}, {version}: {text}");
        }
    }
}

#[test]
fn a_server_that_speaks_first_is_not_kept_waiting() {
    let port = free_port();
    let traffic = running(&simple(port, &[greeter("220 ready")], "", ""));
    let (challenge, certificate) = by_tls("app.test", HOUR);
    traffic.set_challenges(vec![challenge]).expect("answerable");
    for _ in 0..20 {
        let from = std::time::Instant::now();
        assert_eq!(greeting(port), "220 ready");
        assert!(from.elapsed() < Duration::from_secs(4), "nobody waited for the client");
    }
    let _ = certificate;
    eventually("counted", || (ended(&traffic, 1, "finished") == 20).then_some(()));
}

#[test]
fn where_nothing_is_read_bytes_of_all_kinds_arrive_as_they_were_sent() {
    let port = free_port();
    let traffic = running(&simple(port, &[echo()], "", ""));
    let (challenge, _) = by_tls("app.test", HOUR);
    traffic.set_challenges(vec![challenge]).expect("answerable");
    let beginnings: [&[&[u8]]; 6] = [
        &[b"hello"],
        // What looks like TLS and is none.
        &[b"\x16\x03", b"\x01 and so on"],
        &[b"\x16", b"\x03\x01\x00\x05\x02\x00\x00\x01\x00"],
        // Never a whole hello: after a while it goes on as it is.
        &[b"\x16\x03\x01\x02\x00\x01"],
        &[b"\0"],
        &[&[0x16; 20_000]],
    ];
    for pieces in beginnings {
        let mut client = connect(port);
        client.set_nodelay(true).expect("nodelay");
        for piece in pieces {
            client.write_all(piece).expect("sent");
        }
        let mut back = vec![0; pieces.concat().len()];
        client.read_exact(&mut back).unwrap_or_else(|error| panic!("{pieces:?}: {error}"));
        assert_eq!(back, pieces.concat());
        client.write_all(b"more").expect("sent");
        client.shutdown(Shutdown::Write).expect("half closed");
        assert_eq!(read_to_end(&mut client).expect("the rest"), b"more");
    }
    // A client that ends without a word.
    let mut silent = connect(port);
    silent.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(read_to_end(&mut silent).expect("an end"), b"");
    eventually("counted", || (ended(&traffic, 1, "finished") == 7).then_some(()));
}

#[test]
fn a_reset_stays_a_reset_while_something_is_asked() {
    let port = free_port();
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let silent = backend(move |mut stream| {
        let ended = read_to_end(&mut stream).map_err(|error| error.kind());
        tell.lock().expect("a lock").send(ended).expect("told");
    });
    let traffic = running(&simple(port, &[silent], "", ""));
    let (challenge, _) = by_tls("app.test", HOUR);
    traffic.set_challenges(vec![challenge]).expect("answerable");
    let client = connect(port);
    eventually("dialled", || (counters(&traffic, 4).connections_active == 1).then_some(()));
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(client);
    assert_eq!(told.recv_timeout(PATIENCE).expect("told"), Err(std::io::ErrorKind::ConnectionReset));
    eventually("counted", || (ended(&traffic, 1, "client-reset") == 1).then_some(()));
}

#[test]
fn challenges_end_by_themselves() {
    let (document, own, _) = https_of("app.test");
    let port = free_port();
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], acmeHttp01: true, tls: {{ certificates: [own] }}, rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{}' }}] }}]\ncertificates: [{document}]\n",
        greeter("hello")
    ));
    let (challenge, certificate) = by_tls("app.test", Duration::from_secs(2));
    traffic.set_challenges(vec![challenge, by_http(Duration::from_secs(2))]).expect("answerable");
    assert_eq!(shown(port, "app.test", &["acme-tls/1"]).expect("a handshake").0, certificate);
    assert!(is_answer(&asked(port, question(TOKEN).as_bytes())));
    eventually("the one by TLS is over", || {
        (shown(port, "app.test", &["acme-tls/1"]).expect("a handshake").0 == own).then_some(())
    });
    eventually("the one by HTTP is over", || {
        let mut stream = connect(port);
        stream.write_all(question(TOKEN).as_bytes()).expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        (!answer.starts_with(b"HTTP")).then_some(())
    });
}

#[test]
fn a_key_of_another_certificate_is_said_and_the_rest_is_answered() {
    let (document, ..) = https_of("app.test");
    let port = free_port();
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], tls: {{ certificates: [own] }}, rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{}' }}] }}]\ncertificates: [{document}]\n",
        greeter("hello")
    ));
    let (good, certificate) = by_tls("good.test", HOUR);
    let (mut mixed, _) = by_tls("mixed.test", HOUR);
    if let ChallengeKind::TlsAlpn01 { key_der, .. } = &mut mixed.kind {
        *key_der = rcgen::KeyPair::generate().expect("a key").serialize_der();
    }
    let (mut empty, _) = by_tls("empty.test", HOUR);
    if let ChallengeKind::TlsAlpn01 { chain_der, .. } = &mut empty.kind {
        chain_der.clear();
    }
    let why = traffic.set_challenges(vec![mixed, good, empty]).expect_err("not all");
    assert!(why.contains("mixed.test: the key does not belong") && why.contains("empty.test"), "{why}");
    assert_eq!(shown(port, "good.test", &["acme-tls/1"]).expect("a handshake").0, certificate);
}

/// One listener with `acmeHttp01`, one without, to the same backend.
fn opted_in(listener: &str, backend: SocketAddr) -> (Arc<Traffic>, u16, u16) {
    let (port, other) = (free_port(), free_port());
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], acmeHttp01: true, rules: [{{ name: r, pool: p }}]{listener} }},\
           {{ name: other, bind: ['*:{other}'], rules: [{{ name: r, pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{backend}' }}] }}]\n"
    ));
    traffic.set_challenges(vec![by_http(HOUR)]).expect("answerable");
    (traffic, port, other)
}

/// Sends back what it gets once the client has ended.
fn echoed(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    stream.write_all(bytes).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    read_to_end(&mut stream).expect("a clean end")
}

#[test]
fn a_question_by_http_is_answered_where_the_listener_opts_in() {
    let (traffic, port, other) = opted_in("", echo());
    assert!(is_answer(&asked(port, question(TOKEN).as_bytes())));
    let old = format!("GET /.well-known/acme-challenge/{TOKEN} HTTP/1.0\r\n\r\n");
    assert!(is_answer(&asked(port, old.as_bytes())));
    assert_eq!(echoed(other, question(TOKEN).as_bytes()), question(TOKEN).as_bytes());
    for bytes in [
        question("another").into_bytes(),
        question(TOKEN).replace("GET", "POST").into_bytes(),
        question(TOKEN).replace("HTTP/1.1", "HTTP/1.1 ").into_bytes(),
        b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n".to_vec(),
        b"SSH-2.0-client\r\n".to_vec(),
        vec![0; 100_000],
    ] {
        assert_eq!(
            echoed(port, &bytes),
            bytes,
            "{:?}",
            String::from_utf8_lossy(&bytes[..20.min(bytes.len())])
        );
    }
    eventually("counted", || (ended(&traffic, 1, "challenge-answered") == 2).then_some(()));
    eventually("counted", || (ended(&traffic, 1, "finished") == 6).then_some(()));
    assert_eq!(ended(&traffic, 3, "challenge-answered"), 0);
}

#[test]
fn a_listener_without_rules_answers_and_refuses_the_rest() {
    let port = free_port();
    let traffic = running(&format!("listeners: [{{ name: l, bind: ['*:{port}'], acmeHttp01: true }}]\n"));
    traffic.set_challenges(vec![by_http(HOUR)]).expect("answerable");
    assert!(is_answer(&asked(port, question(TOKEN).as_bytes())));
    let mut other = connect(port);
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    assert!(!read_to_end(&mut other).is_ok_and(|answer| !answer.is_empty()));
    eventually("counted", || (ended(&traffic, 1, "no-rule") == 1).then_some(()));
    traffic.set_challenges(Vec::new()).expect("none");
    assert_eq!(read_to_end(&mut connect(port)).expect("closed at once"), b"");
    eventually("counted", || (ended(&traffic, 1, "no-rule") == 2).then_some(()));
}

#[test]
fn a_question_one_byte_at_a_time_is_answered() {
    let (_traffic, port, _) = opted_in("", echo());
    let mut stream = connect(port);
    stream.set_nodelay(true).expect("nodelay");
    for byte in question(TOKEN).bytes() {
        stream.write_all(&[byte]).expect("sent");
    }
    assert!(is_answer(&String::from_utf8(read_to_end(&mut stream).expect("a clean end")).expect("text")));
}

#[test]
fn what_comes_behind_a_question_does_not_cost_the_answer() {
    let (_traffic, port, _) = opted_in("", echo());
    let more = [question(TOKEN), question(TOKEN), "x".repeat(30_000)].concat();
    assert!(is_answer(&asked(port, more.as_bytes())));
}

#[test]
fn requests_behind_another_are_its_backends_business() {
    let (_traffic, port, _) = opted_in("", echo());
    let both = ["GET / HTTP/1.1\r\nHost: app.test\r\n\r\n", &question(TOKEN)].concat();
    assert_eq!(echoed(port, both.as_bytes()), both.as_bytes());
}

#[test]
fn half_a_request_line_goes_on_after_the_deadline_or_with_the_clients_end() {
    let (traffic, port, _) = opted_in(", timeouts: { handshake: 500ms }", echo());
    let half = b"GET /.well-known/acme-challenge/LoqX";
    assert_eq!(echoed(port, half), half);
    let whole = question(TOKEN);
    for length in [half.len(), whole.len() - 2] {
        let (head, rest) = whole.as_bytes().split_at(length);
        let mut client = connect(port);
        client.write_all(head).expect("sent");
        let mut back = vec![0; head.len()];
        client.read_exact(&mut back).expect("after the deadline it goes its way");
        assert_eq!(back, head);
        client.write_all(rest).expect("sent");
        let mut back = vec![0; rest.len()];
        client.read_exact(&mut back).expect("so does the rest");
        assert_eq!(back, rest);
    }
    // A server that speaks first is heard late, not never.
    let (_other, port, _) = opted_in(", timeouts: { handshake: 500ms }", greeter("220 ready"));
    assert_eq!(greeting(port), "220 ready");
    assert_eq!(ended(&traffic, 1, "challenge-answered"), 0);
}

#[test]
fn a_question_behind_a_proxy_header_is_answered() {
    let (_traffic, port, _) = opted_in(", proxyProtocol: { from: [127.0.0.0/8] }", echo());
    let bytes = format!("PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\n{}", question(TOKEN));
    assert!(is_answer(&asked(port, bytes.as_bytes())));
}

#[test]
fn while_nothing_is_asked_a_listener_that_opts_in_waits_for_nobody() {
    let (traffic, port, _) = opted_in("", greeter("220 ready"));
    traffic.set_challenges(Vec::new()).expect("none");
    for _ in 0..10 {
        let from = std::time::Instant::now();
        assert_eq!(greeting(port), "220 ready");
        assert!(from.elapsed() < Duration::from_secs(8), "the client was waited for");
    }
}

#[test]
fn access_rules_hold_for_authorities_too() {
    let (traffic, port, _) = opted_in(", access: { rules: [{ deny: 127.0.0.0/8 }] }", echo());
    let mut stream = connect(port);
    let _ = stream.write_all(question(TOKEN).as_bytes());
    assert!(!read_to_end(&mut stream).is_ok_and(|answer| !answer.is_empty()));
    eventually("counted", || (ended(&traffic, 1, "access-denied") == 1).then_some(()));
}
