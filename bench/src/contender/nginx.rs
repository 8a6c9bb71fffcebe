//! nginx with the stream module: two workers, `reuseport`, TLS 1.3, no logs.

use std::{fmt::Write as _, net::SocketAddr, process::Command};

use super::{Contender, Site, log};
use crate::{process::Process, sys};

pub(super) fn start(site: &Site<'_>) -> anyhow::Result<Process> {
    let file = site.folder.join("nginx.conf");
    std::fs::write(&file, configuration(site)?)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(site.folder).arg("-e").arg("stderr").arg("-c").arg(&file);
    Process::start("nginx", command, &log(site.folder, Contender::Nginx), sys::SIGTERM)
}

fn configuration(site: &Site<'_>) -> Result<String, std::fmt::Error> {
    let folder = site.folder.display();
    let Site { ports, .. } = site;
    let mut text = format!(
        "\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
worker_processes 2;
worker_rlimit_nofile {};
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
stream {{
  access_log off;
  proxy_connect_timeout 5s;
  proxy_timeout 1h;
  tcp_nodelay on;
",
        sys::open_files()
    );
    upstream(&mut text, "echo", &site.echo)?;
    upstream(&mut text, "bulk", &site.bulk)?;
    upstream(&mut text, "udp", &site.udp)?;
    for (name, port) in [("echo", ports.echo), ("bulk", ports.bulk)] {
        writeln!(text, "  server {{ listen 127.0.0.1:{port} reuseport backlog=4096; proxy_pass {name}; }}")?;
    }
    for (port, prefix, upstream) in
        [(ports.tls.ecdsa, "", "echo"), (ports.tls.rsa, "rsa-", "echo"), (ports.tls.bulk, "", "bulk")]
    {
        writeln!(
            text,
            "  server {{ listen 127.0.0.1:{port} ssl reuseport backlog=4096; ssl_certificate {folder}/{prefix}cert.pem; \
             ssl_certificate_key {folder}/{prefix}key.pem; ssl_protocols TLSv1.3; ssl_ecdh_curve X25519; \
             proxy_pass {upstream}; }}"
        )?;
    }
    for (port, timeout) in [(ports.udp, "60s"), (ports.udp_new, "1s")] {
        writeln!(
            text,
            "  server {{ listen 127.0.0.1:{port} udp reuseport; proxy_timeout {timeout}; proxy_pass udp; }}"
        )?;
    }
    text.push_str("}\n");
    Ok(text)
}

fn upstream(text: &mut String, name: &str, backends: &[SocketAddr]) -> std::fmt::Result {
    write!(text, "  upstream {name} {{")?;
    for backend in backends {
        write!(text, " server {backend};")?;
    }
    writeln!(text, " }}")
}
