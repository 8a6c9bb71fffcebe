//! The contenders: no proxy at all, HAProxy, nginx, ours. Each listens on the same kinds of port and has backends
//! at addresses of its own, so that none runs out of ports because of another.

mod haproxy;
mod nginx;
mod ours;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;

use crate::{backend, cost, process::Process, sys};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// The client speaks to the backend itself.
    Direct,
    /// HAProxy in TCP mode with `splice-auto`, two threads.
    Haproxy,
    /// nginx with its stream module, two workers.
    Nginx,
    /// awe4lb's data plane, two workers.
    Ours,
}

impl Contender {
    /// All, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Haproxy, Self::Nginx, Self::Ours];

    /// The column's heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Ours => "ours",
        }
    }

    /// Backends of a contender live in a network of its own within 127/8.
    fn address(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 10 + self as u8, host)
    }

    /// The backends' addresses for TCP: many, because every short connection leaves one port waiting.
    fn tcp_addresses(self) -> Vec<Ipv4Addr> {
        (1..=16).map(|host| self.address(host)).collect()
    }

    /// The backends' addresses for datagrams.
    pub fn udp_addresses(self) -> Vec<Ipv4Addr> {
        (1..=4).map(|host| self.address(host)).collect()
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a configuration is made of.
#[derive(Debug)]
struct Site<'a> {
    folder: &'a Path,
    ports: Ports,
    echo: Vec<SocketAddr>,
    bulk: Vec<SocketAddr>,
    udp: Vec<SocketAddr>,
}

/// Ports that a proxy listens on, all at 127.0.0.1.
#[derive(Debug, Clone, Copy)]
struct Ports {
    echo: u16,
    bulk: u16,
    tls: Terminating,
    udp: u16,
    /// Where flows end soon.
    udp_new: u16,
}

/// The three that terminate TLS, as ports or as addresses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terminating<T = u16> {
    /// Before the TCP echo, with the ECDSA certificate.
    pub ecdsa: T,
    /// Before the TCP echo, with the RSA certificate.
    pub rsa: T,
    /// Before the bulk source, with the ECDSA certificate.
    pub bulk: T,
}

impl Ports {
    /// Ports that are free now: HAProxy and nginx cannot tell which port they were given.
    fn free() -> std::io::Result<Self> {
        let listeners = [
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
        ];
        let [echo, bulk, ecdsa, rsa, tls_bulk] = &listeners;
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        let udp_new = UdpSocket::bind("127.0.0.1:0")?;
        Ok(Self {
            echo: echo.local_addr()?.port(),
            bulk: bulk.local_addr()?.port(),
            tls: Terminating {
                ecdsa: ecdsa.local_addr()?.port(),
                rsa: rsa.local_addr()?.port(),
                bulk: tls_bulk.local_addr()?.port(),
            },
            udp: udp.local_addr()?.port(),
            udp_new: udp_new.local_addr()?.port(),
        })
    }
}

/// A contender that serves.
#[derive(Debug)]
pub struct Running {
    /// Who it is.
    pub contender: Contender,
    /// Where the TCP echo answers.
    pub echo: Vec<SocketAddr>,
    /// Where the bulk source answers.
    pub bulk: Vec<SocketAddr>,
    /// Where TLS ends; nobody terminates for `direct`.
    pub tls: Option<Terminating<[SocketAddr; 1]>>,
    /// Where the datagram echo answers; HAProxy forwards no datagrams.
    pub udp: Vec<SocketAddr>,
    /// For datagrams, where flows end soon; likewise.
    pub udp_new: Vec<SocketAddr>,
    process: Option<Process>,
}

/// Where ours is and how it is started.
#[derive(Debug, Clone)]
pub struct OursOptions {
    /// The binary of the data plane.
    pub binary: PathBuf,
    /// Workers.
    pub threads: usize,
}

impl Running {
    /// Starts a contender before the backends and waits until it serves. `folder` must hold the certificate.
    pub fn start(
        contender: Contender,
        backend: backend::Ready,
        folder: &Path,
        ours: &OursOptions,
    ) -> anyhow::Result<Self> {
        let at = |addresses: Vec<Ipv4Addr>, port: u16| -> Vec<SocketAddr> {
            addresses.into_iter().map(|address| SocketAddr::from((address, port))).collect()
        };
        let echo = at(contender.tcp_addresses(), backend.echo);
        let bulk = at(contender.tcp_addresses(), backend.bulk);
        let udp = at(contender.udp_addresses(), backend.udp);
        if contender == Contender::Direct {
            return Ok(Self { contender, echo, bulk, tls: None, udp_new: udp.clone(), udp, process: None });
        }
        let ports = Ports::free()?;
        let site = Site { folder, ports, echo, bulk, udp };
        let mut process = match contender {
            Contender::Direct | Contender::Haproxy => haproxy::start(&site)?,
            Contender::Nginx => nginx::start(&site)?,
            Contender::Ours => ours::start(&site, ours)?,
        };
        let own = |port: u16| [SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
        for port in [ports.echo, ports.bulk, ports.tls.ecdsa, ports.tls.rsa, ports.tls.bulk] {
            wait_for(&mut process, port).with_context(|| told(contender, folder))?;
        }
        Ok(Self {
            contender,
            echo: own(ports.echo).to_vec(),
            bulk: own(ports.bulk).to_vec(),
            tls: Some(Terminating {
                ecdsa: own(ports.tls.ecdsa),
                rsa: own(ports.tls.rsa),
                bulk: own(ports.tls.bulk),
            }),
            udp: if contender == Contender::Haproxy { Vec::new() } else { own(ports.udp).to_vec() },
            udp_new: if contender == Contender::Haproxy { Vec::new() } else { own(ports.udp_new).to_vec() },
            process: Some(process),
        })
    }

    /// All processes of the proxy; none for `direct`.
    pub fn pids(&self) -> Vec<u32> {
        self.process.as_ref().map_or_else(Vec::new, |process| cost::family(process.pid()))
    }

    /// An error when the proxy has ended.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::alive)
    }
}

fn wait_for(process: &mut Process, port: u16) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        process.alive()?;
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(());
        }
        if begin.elapsed() > Duration::from_secs(10) {
            bail!("port {port} does not answer");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The end of what a contender wrote to its standard error.
pub fn told(contender: Contender, folder: &Path) -> String {
    let text = std::fs::read_to_string(log(folder, contender)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(12).collect();
    let last: Vec<&str> = lines.into_iter().rev().collect();
    format!("{contender} does not serve; it said:\n{}", last.join("\n"))
}

fn log(folder: &Path, contender: Contender) -> PathBuf {
    folder.join(format!("{contender}.log"))
}

/// Starts the backends as a process of this same binary.
pub fn start_backends(folder: &Path) -> anyhow::Result<(Process, backend::Ready)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("backend").arg("--udp-address").stdout(Stdio::piped());
    command
        .args(Contender::ALL.iter().flat_map(|one| one.udp_addresses()).map(|address| address.to_string()));
    let mut process = Process::start("the backends", command, &folder.join("backends.log"), sys::SIGKILL)?;
    let line = process.first_line(Duration::from_secs(10))?;
    let ready = serde_json::from_str(&line).with_context(|| format!("the backends said {line:?}"))?;
    Ok((process, ready))
}
