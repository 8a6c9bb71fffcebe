//! TLS of the HTTP address: the given certificate, or a self-made one that lies in the data directory.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::{options::Options, store::data_dir::write_private};

/// The self-made certificate, for clients to trust: `awe4lb --cacert FILE`.
pub const CERTIFICATE_FILE: &str = "http-cert.pem";
const KEY_FILE: &str = "http-key.pem";
/// A self-made certificate that ends sooner is made anew at start.
const RENEW_BEFORE_DAYS: i64 = 60;
const VALID_DAYS: i64 = 825;

/// What the HTTP address speaks; `None`: plain HTTP.
pub fn server_config(options: &Options, data_dir: &Path) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    if !options.http_speaks_tls() {
        return Ok(None);
    }
    let (chain, key) = match (&options.http_tls_cert, &options.http_tls_key) {
        (Some(chain), Some(key)) => (chain.clone(), key.clone()),
        _ => {
            let (chain, key) = (data_dir.join(CERTIFICATE_FILE), data_dir.join(KEY_FILE));
            if !is_good(&chain) || !key.exists() {
                make(options, &chain, &key).context("make a certificate for the HTTP address")?;
            }
            (chain, key)
        }
    };
    let certificates = CertificateDer::pem_file_iter(&chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("certificate {}", chain.display()))?;
    let key = PrivateKeyDer::from_pem_file(&key).with_context(|| format!("key {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .context("the certificate and key of the HTTP address")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn is_good(path: &Path) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(path) else { return false };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&der) else { return false };
    let left = parsed.validity().not_after.timestamp() - jiff::Timestamp::now().as_second();
    left > RENEW_BEFORE_DAYS * 86_400
}

fn make(options: &Options, chain: &Path, key_file: &Path) -> anyhow::Result<()> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        names.push(host.trim().to_owned());
    }
    if !options.http.ip().is_unspecified() {
        names.push(options.http.ip().to_string());
    }
    names.extend(options.http_tls_name.iter().cloned());
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "awe4lb control plane");
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::hours(1);
    params.not_after = now + time::Duration::days(VALID_DAYS);
    let certificate = params.self_signed(&key)?;
    write_private(key_file, key.serialize_pem().as_bytes())?;
    write_private(chain, certificate.pem().as_bytes())?;
    Ok(())
}
