//! Certificates that change while clients come: each handshake gets exactly one that counted while it lasted.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use awe4lb_e2e::{
    at, eventually,
    fleet::Fleet,
    free_port,
    servers::{Identity, Samples},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use serde_json::json;

/// Believes every certificate and tells which it was; that the server has its key is verified.
#[derive(Debug)]
struct Witness {
    seen: Mutex<Vec<u8>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = leaf.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 alone".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// One full handshake: the leaf that was shown.
async fn handshake(to: SocketAddr) -> std::io::Result<Vec<u8>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let witness = Arc::new(Witness { seen: Mutex::default(), provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_no_client_auth();
    let name = ServerName::try_from("turning.test").map_err(std::io::Error::other)?;
    let stream = tokio::net::TcpStream::connect(to).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(std::mem::take(&mut *witness.seen.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// What happened: handshakes in all, and those that were not as they have to be.
#[derive(Default)]
struct Outcome {
    handshakes: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// So many replacements under so many handshakes a second (as fast as it goes where that is less), a twentieth of a second of
/// them between two.
fn replace(times: usize, rate: f64) -> Outcome {
    let fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let identities: Vec<Identity> = (0..=times).map(|_| Identity::new(&["turning.test"])).collect();
    let leaves: Vec<Vec<u8>> = identities
        .iter()
        .map(|identity| CertificateDer::from_pem_slice(identity.chain.as_bytes()).expect("a leaf").to_vec())
        .collect();
    let port = free_port();
    fleet.apply(&json!({
        "version": 1,
        "listeners": [{"name": "l", "bind": [format!("*:{port}")], "tls": {"certificates": ["c"]}, "rules": [{"pool": "p"}]}],
        "pools": [{"name": "p", "backends": [{"address": samples.tcp_echo[0].to_string()}]}],
        "certificates": [identities[0].object("c")],
    }));
    let target = at(fleet.nodes[0].ip, port);
    let outcome = Arc::new(Outcome::default());
    // The certificate that every node runs, and the newest that any may run.
    let (known, newest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let is_over = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (outcome, known, newest, is_over) =
                (outcome.clone(), known.clone(), newest.clone(), is_over.clone());
            let leaves = leaves.clone();
            runtime.spawn(async move {
                let each = Duration::from_secs_f64(16.0 / rate);
                while !is_over.load(SeqCst) {
                    let (begin, oldest) = (Instant::now(), known.load(SeqCst));
                    let result = handshake(target).await;
                    let latest = newest.load(SeqCst);
                    outcome.handshakes.fetch_add(1, SeqCst);
                    let wrong = match result {
                        Err(error) => Some(error.to_string()),
                        Ok(leaf) => match leaves.iter().position(|known| *known == leaf) {
                            Some(index) if (oldest..=latest).contains(&index) => None,
                            other => Some(format!("{other:?} between {oldest} and {latest}")),
                        },
                    };
                    outcome.wrong.lock().unwrap_or_else(PoisonError::into_inner).extend(wrong);
                    tokio::time::sleep(each.saturating_sub(begin.elapsed())).await;
                }
            })
        })
        .collect();
    for (index, identity) in identities.iter().enumerate().skip(1) {
        newest.store(index, SeqCst);
        let done = fleet.rest.put("/api/v1/certificates/c", &identity.object("c")).ok();
        fleet.await_revision(done["meta"]["revision"].as_u64().expect("a revision"));
        known.store(index, SeqCst);
        let enough = outcome.handshakes.load(SeqCst) + (rate / 20.0) as u64;
        eventually("handshakes", || (outcome.handshakes.load(SeqCst) >= enough).then_some(()));
    }
    is_over.store(true, SeqCst);
    runtime.block_on(async {
        for client in clients {
            client.await.expect("it does not panic");
        }
    });
    Arc::into_inner(outcome).expect("nobody else has it")
}

fn check(times: usize, rate: f64) {
    let begin = Instant::now();
    let outcome = replace(times, rate);
    let (handshakes, wrong) =
        (outcome.handshakes.into_inner(), outcome.wrong.into_inner().unwrap_or_default());
    let seconds = begin.elapsed().as_secs_f64();
    println!("{times} replacements, {handshakes} handshakes in {seconds:.1} s");
    assert!(handshakes as usize > times, "{handshakes}");
    assert!(wrong.is_empty(), "{} of {handshakes} wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn each_handshake_gets_the_old_or_the_new_certificate_and_none_fails() {
    check(10, 200.0);
}

#[test]
#[ignore = "the deep lane: debug binaries (without AWE4LB_BIN_DIR) cannot carry this"]
fn a_hundred_replacements_under_two_thousand_handshakes_a_second() {
    check(100, 2_000.0);
}
