//! Real servers behind the fleet, each on free ports, each ending with its test.

use std::{
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    eventually, free_port,
    process::{Program, run},
    program,
};

/// A self-made certificate.
pub struct Identity {
    /// Chain, PEM.
    pub chain: String,
    /// Key, PEM.
    pub key: String,
}

impl Identity {
    /// For these names.
    ///
    /// # Panics
    /// When a name is none.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap_or_else(|error| panic!("{error}"));
        Self { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// As an object of the configuration.
    #[must_use]
    pub fn object(&self, name: &str) -> Value {
        json!({"name": name, "chain": self.chain, "key": self.key})
    }

    /// Accepts TLS as this.
    ///
    /// # Panics
    /// When it does not fit together, which it does.
    #[must_use]
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.chain.as_bytes()).collect();
        let key =
            PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap_or_else(|error| panic!("{error}"))
            .with_no_client_auth()
            .with_single_cert(chain.unwrap_or_else(|error| panic!("{error}")), key);
        std::sync::Arc::new(config.unwrap_or_else(|error| panic!("{error}"))).into()
    }

    /// The same, and clients must show a certificate that these (PEM) have signed.
    ///
    /// # Panics
    /// When it does not fit together, which it does.
    #[must_use]
    pub fn acceptor_of_clients(&self, clients: &str) -> tokio_rustls::TlsAcceptor {
        use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
        let chain = |pem: &str| -> Vec<CertificateDer<'static>> {
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            read.unwrap_or_else(|error| panic!("{error}"))
        };
        let key =
            PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        chain(clients).into_iter().for_each(|root| roots.add(root).unwrap_or_else(|error| panic!("{error}")));
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap_or_else(|error| panic!("{error}"))
            .with_client_cert_verifier(verifier.build().unwrap_or_else(|error| panic!("{error}")))
            .with_single_cert(chain(&self.chain), key);
        std::sync::Arc::new(config.unwrap_or_else(|error| panic!("{error}"))).into()
    }

    /// As files: chain, key, and both in one.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn files(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf, PathBuf) {
        let write = |suffix: &str, text: &str| {
            let path = folder.join(format!("{name}.{suffix}"));
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{error}"));
            path
        };
        (
            write("crt", &self.chain),
            write("key", &self.key),
            write("pem", &format!("{}{}", self.chain, self.key)),
        )
    }
}

/// Waits until somebody listens.
pub fn listening(address: SocketAddr) {
    eventually(&format!("{address} answers"), || TcpStream::connect(address).ok());
}

/// Our own sample backends: HTTP servers that say their names, and echoes.
pub struct Samples {
    _program: Program,
    /// Say `hello from http-PORT`.
    pub http: Vec<SocketAddr>,
    /// Sends back what it gets.
    pub tcp_echo: Vec<SocketAddr>,
    /// Sends back each datagram.
    pub udp_echo: SocketAddr,
}

impl Samples {
    /// Two HTTP servers, two TCP echoes, a UDP echo.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let mut arguments = Vec::new();
        for flag in ["--http", "--http", "--tcp-echo", "--tcp-echo", "--udp-echo"] {
            arguments.extend([flag, "127.0.0.1:0"]);
        }
        let mut program = Program::start("samples", folder, program("awe4lb-sample-backends"), arguments);
        let ready = program.ready();
        let addresses = |field: &str| -> Vec<SocketAddr> {
            let list = ready[field].as_array().into_iter().flatten();
            list.filter_map(|one| one.as_str()?.parse().ok()).collect()
        };
        let udp_echo = addresses("udpEcho")[0];
        Self { http: addresses("http"), tcp_echo: addresses("tcpEcho"), udp_echo, _program: program }
    }
}

/// nginx: HTTP, and HTTPS if it has an identity. Says `nginx PORT` and serves what is in its folder under `/files/`.
pub struct Nginx {
    _program: Program,
    /// HTTP.
    pub http: SocketAddr,
    /// HTTPS.
    pub https: SocketAddr,
}

impl Nginx {
    /// Starts one.
    ///
    /// # Panics
    /// When its files cannot be written.
    #[must_use]
    pub fn start(folder: &Path, identity: &Identity) -> Self {
        let folder = folder.join("nginx");
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{error}"));
        let (http, https) = (free_port(), free_port());
        let (chain, key, _) = identity.files(&folder, "nginx");
        let dir = folder.display();
        let text = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log stderr;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n access_log off;\n client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;\n \
             uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;\n \
             server {{\n  listen 127.0.0.1:{http};\n  listen 127.0.0.1:{https} ssl;\n  \
             ssl_certificate {}; ssl_certificate_key {};\n  \
             location / {{ return 200 'nginx $server_port\\n'; }}\n  location /files/ {{ alias {dir}/; }}\n }}\n}}\n",
            chain.display(),
            key.display()
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("{error}"));
        let arguments = ["-c", &file.display().to_string(), "-p", &dir.to_string()].map(str::to_owned);
        let program = Program::start("nginx", &folder, "nginx", arguments);
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        listening(local(http));
        Self { _program: program, http: local(http), https: local(https) }
    }
}

/// HAProxy that ends TLS itself and says `haproxy`.
pub struct HaProxy {
    _program: Program,
    /// HTTPS.
    pub https: SocketAddr,
}

impl HaProxy {
    /// Starts one.
    ///
    /// # Panics
    /// When its files cannot be written.
    #[must_use]
    pub fn start(folder: &Path, identity: &Identity) -> Self {
        let folder = folder.join("haproxy");
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{error}"));
        let port = free_port();
        let (_, _, both) = identity.files(&folder, "haproxy");
        let text = format!(
            "defaults\n mode http\n timeout client 10s\n timeout server 10s\n timeout connect 5s\n\
             frontend f\n bind 127.0.0.1:{port} ssl crt {}\n http-request return status 200 content-type text/plain string haproxy\n",
            both.display()
        );
        let file = folder.join("haproxy.cfg");
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("{error}"));
        let program =
            Program::start("haproxy", &folder, "haproxy", ["-db", "-f", &file.display().to_string()]);
        let https = SocketAddr::from(([127, 0, 0, 1], port));
        listening(https);
        Self { _program: program, https }
    }
}

/// Knot DNS with the zone `example.test`; its version says which of several it is.
pub struct Knot {
    program: Program,
    folder: PathBuf,
    serial: u32,
    /// UDP and TCP.
    pub dns: SocketAddr,
}

impl Knot {
    /// Starts one that calls itself `name`: the TXT record of `who.example.test`.
    ///
    /// # Panics
    /// When its files cannot be written.
    #[must_use]
    pub fn start(folder: &Path, name: &str) -> Self {
        Self::start_with(folder, name, "", "")
    }

    /// The same with more sections in its configuration, and more lines in that of its zone.
    ///
    /// # Panics
    /// When its files cannot be written.
    #[must_use]
    pub fn start_with(folder: &Path, name: &str, sections: &str, of_zone: &str) -> Self {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{error}"));
        let port = free_port();
        let dir = folder.display();
        let write = |file: &str, text: String| {
            std::fs::write(folder.join(file), text).unwrap_or_else(|error| panic!("{error}"));
        };
        write(
            "example.test.zone",
            format!(
                "$ORIGIN example.test.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n\
                 who TXT \"{name}\"\nwww A 192.0.2.7\n"
            ),
        );
        write(
            "knot.conf",
            format!(
                "server:\n  rundir: {dir}\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
                 database:\n  storage: {dir}\nlog:\n  - target: stderr\n    any: info\n{sections}\
                 zone:\n  - domain: example.test\n    storage: {dir}\n    file: example.test.zone\n{of_zone}"
            ),
        );
        let program = Program::start(name, &folder, "knotd", ["-c", &format!("{dir}/knot.conf")]);
        let dns = SocketAddr::from(([127, 0, 0, 1], port));
        listening(dns);
        Self { program, folder, serial: 1, dns }
    }

    /// Replaces the records of `example.test`, beside its own, and waits until they are served.
    ///
    /// # Panics
    /// When the server does not take them.
    pub fn records(&mut self, ttl: u32, records: &str) {
        self.serial += 1;
        let text = format!(
            "$ORIGIN example.test.\n$TTL {ttl}\n@ SOA ns hostmaster {} 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n{records}",
            self.serial
        );
        std::fs::write(self.folder.join("example.test.zone"), text).unwrap_or_else(|error| panic!("{error}"));
        let config = self.folder.join("knot.conf").display().to_string();
        let (ok, _, why) = run("knotc", &["-b", "-c", &config, "zone-reload", "example.test"]);
        assert!(ok, "{why}");
    }

    /// Stops it answering, or lets it answer again.
    pub fn pause(&self, on: bool) {
        self.program.pause(on);
    }
}
