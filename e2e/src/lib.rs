//! The whole as processes: a control plane, nodes, real servers and clients around them. Tests read like prose; what
//! they need is started here, on free ports, and ends with them.

pub mod acme;
pub mod authority;
pub mod containers;
pub mod fakes;
pub mod fleet;
pub mod load;
pub mod network;
pub mod process;
pub mod rest;
pub mod servers;
pub mod sink;

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// How long anything may take before it counts as hanging. Two cores carry several fleets at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A built program: from `AWE4LB_BIN_DIR`, or beside this test.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("AWE4LB_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().unwrap_or_default();
        test.parent().and_then(Path::parent).unwrap_or(Path::new(".")).to_owned()
    });
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

/// Whether a tool is there. If not, the test that asks is to return: it is counted as skipped.
///
/// # Panics
/// When it is missing and `CI` is set: no test may skip there.
#[must_use]
pub fn have(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.into_iter().any(|folder| folder.join(tool).is_file());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{tool} is missing, and in CI no test may skip");
        let text = format!("{tool} is missing\n");
        eprint!("SKIPPED: {text}");
        if let Some(file) = std::env::var_os("AWE4LB_SKIPPED_TESTS") {
            let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
            let _ = file.and_then(|mut file| file.write_all(text.as_bytes()));
        }
    }
    found
}

/// Asks until there is an answer.
///
/// # Panics
/// When there is none in time.
#[track_caller]
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    try_eventually(ask).unwrap_or_else(|| panic!("did not happen within {PATIENCE:?}: {what}"))
}

/// Asks until there is an answer; `None` when there is none in time.
pub fn try_eventually<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || started.elapsed() >= PATIENCE {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that nobody uses, for TCP and UDP, below those that the kernel gives to clients.
///
/// # Panics
/// When all are taken.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id().wrapping_mul(7_919) % 19_000) as u16;
    for _ in 0..19_000 {
        let port = 12_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 19_000;
        let any = (Ipv4Addr::UNSPECIFIED, port);
        if TcpListener::bind(any).is_ok() && UdpSocket::bind(any).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// An address of this machine.
#[must_use]
pub fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    (ip, port).into()
}
