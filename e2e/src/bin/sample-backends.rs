//! Small real servers to balance over: HTTP and HTTPS that say who they are, a TCP echo, a UDP echo.
//!
//! `awe4lb-sample-backends --http 127.0.0.1:0 --tcp-echo 127.0.0.1:0 …` prints one line of JSON with the real
//! addresses once all of them listen, and leaves on SIGTERM or Ctrl-C. Every option may be given several times.

use std::{
    convert::Infallible,
    fs, io,
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};
use tokio_rustls::TlsAcceptor;

/// Sample servers for trying out a load balancer.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Answers each request with its name.
    #[arg(long, value_name = "ADDRESS")]
    http: Vec<SocketAddr>,
    /// The same over TLS, with a certificate it makes itself.
    #[arg(long, value_name = "ADDRESS")]
    https: Vec<SocketAddr>,
    /// Sends back what it gets.
    #[arg(long, value_name = "ADDRESS")]
    tcp_echo: Vec<SocketAddr>,
    /// Sends back each datagram.
    #[arg(long, value_name = "ADDRESS")]
    udp_echo: Vec<SocketAddr>,
    /// Server names in the certificate of `--https`.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    tls_name: Vec<String>,
    /// Writes a self-made certificate for the `--tls-name`s to DIR/demo.pem and DIR/demo.key, and leaves. Files that
    /// are there stay.
    #[arg(long, value_name = "DIR")]
    make_certificate: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(folder) = &options.make_certificate {
        return make_certificate(folder, &options.tls_name);
    }
    let tls = tls_acceptor(&options.tls_name)?;

    let mut ready = serde_json::json!({ "event": "ready", "pid": std::process::id() });
    let mut start = |kind: &str, address: SocketAddr| {
        if let Some(list) =
            ready.as_object_mut().map(|r| r.entry(kind).or_insert_with(|| serde_json::json!([])))
            && let Some(list) = list.as_array_mut()
        {
            list.push(address.to_string().into());
        }
    };
    for address in options.http {
        let (listener, address) = listen(address).await?;
        start("http", address);
        tokio::spawn(serve_http(listener, None, format!("http-{}", address.port())));
    }
    for address in options.https {
        let (listener, address) = listen(address).await?;
        start("https", address);
        tokio::spawn(serve_http(listener, Some(tls.clone()), format!("https-{}", address.port())));
    }
    for address in options.tcp_echo {
        let (listener, address) = listen(address).await?;
        start("tcpEcho", address);
        tokio::spawn(serve_echo(listener));
    }
    for address in options.udp_echo {
        let socket = UdpSocket::bind(address).await.with_context(|| format!("cannot bind UDP {address}"))?;
        start("udpEcho", socket.local_addr()?);
        tokio::spawn(serve_udp_echo(socket));
    }
    println!("{ready}");

    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot bind TCP {address}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// An accept error (out of descriptors, say) must not end the server: it waits for the next turn.
async fn accept(listener: &TcpListener) -> tokio::net::TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers should leave at once; failing to say so is harmless.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn serve_http(listener: TcpListener, tls: Option<TlsAcceptor>, name: String) {
    let name: Arc<str> = name.into();
    loop {
        let stream = accept(&listener).await;
        let (tls, name) = (tls.clone(), name.clone());
        tokio::spawn(async move {
            match tls {
                None => serve_http_connection(stream, name).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve_http_connection(stream, name).await;
                    }
                }
            }
        });
    }
}

async fn serve_http_connection(stream: impl AsyncRead + AsyncWrite + Unpin, name: Arc<str>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let text = format!("hello from {name}: {} {}\n", request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))) }
    });
    // A client that goes away in the middle is no news.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn serve_echo(listener: TcpListener) {
    loop {
        let mut stream = accept(&listener).await;
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            let echo = async {
                loop {
                    let length = stream.read(&mut buffer).await?;
                    if length == 0 {
                        return stream.shutdown().await;
                    }
                    stream.write_all(&buffer[..length]).await?;
                }
            };
            let _: io::Result<()> = echo.await;
        });
    }
}

async fn serve_udp_echo(socket: UdpSocket) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // An ICMP error of an earlier answer surfaces here; the next datagram is unaffected.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    }
}

fn make_certificate(folder: &Path, names: &[String]) -> anyhow::Result<()> {
    let chain = folder.join("demo.pem");
    if chain.exists() {
        return Ok(());
    }
    let made = rcgen::generate_simple_self_signed(names.to_vec()).context("cannot make a certificate")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut key = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(folder.join("demo.key"))
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    key.write_all(made.signing_key.serialize_pem().as_bytes())?;
    fs::write(chain, made.cert.pem())?;
    Ok(())
}

fn tls_acceptor(names: &[String]) -> anyhow::Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(names.to_vec()).context("cannot make a certificate")?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
