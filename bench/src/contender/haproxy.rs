//! HAProxy: TCP mode, two threads, `splice-auto`, no logs, no checks.

use std::{fmt::Write as _, net::SocketAddr, process::Command};

use super::{Contender, Site, log};
use crate::{process::Process, sys};

pub(super) fn start(site: &Site<'_>) -> anyhow::Result<Process> {
    let file = site.folder.join("haproxy.cfg");
    std::fs::write(&file, configuration(site)?)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    Process::start("haproxy", command, &log(site.folder, Contender::Haproxy), sys::SIGTERM)
}

fn configuration(site: &Site<'_>) -> Result<String, std::fmt::Error> {
    let folder = site.folder.display();
    let mut text = "\
global
  nbthread 2
  maxconn 7500
defaults
  mode tcp
  option splice-auto
  balance roundrobin
  maxconn 7500
  backlog 4096
  timeout connect 5s
  timeout client 1h
  timeout server 1h
"
    .to_owned();
    let Site { ports, .. } = site;
    let tls = |pair: &str| format!(" ssl crt {folder}/{pair}.pem ssl-min-ver TLSv1.3 curves X25519");
    service(&mut text, "echo", ports.echo, "", &site.echo)?;
    service(&mut text, "bulk", ports.bulk, "", &site.bulk)?;
    service(&mut text, "tls", ports.tls.ecdsa, &tls("both"), &site.echo)?;
    service(&mut text, "tls-rsa", ports.tls.rsa, &tls("rsa-both"), &site.echo)?;
    service(&mut text, "tls-bulk", ports.tls.bulk, &tls("both"), &site.bulk)?;
    Ok(text)
}

fn service(
    text: &mut String,
    name: &str,
    port: u16,
    options: &str,
    backends: &[SocketAddr],
) -> std::fmt::Result {
    writeln!(text, "listen {name}\n  bind 127.0.0.1:{port}{options}")?;
    for (number, backend) in backends.iter().enumerate() {
        writeln!(text, "  server s{number} {backend}")?;
    }
    Ok(())
}
