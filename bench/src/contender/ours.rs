//! awe4lb's data plane, from a document and without a control plane.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};

use super::{Contender, OursOptions, Site, log, told};
use crate::{process::Process, sys};

pub(super) fn start(site: &Site<'_>, options: &OursOptions) -> anyhow::Result<Process> {
    let file = site.folder.join("awe4lb.yaml");
    std::fs::write(&file, document(site)?)?;
    let state = tempfile::tempdir_in(site.folder)?.keep();
    let mut command = Command::new(&options.binary);
    command.arg("--snapshot-file").arg(&file).arg("--state-dir").arg(state);
    command
        .args(["--admin", "127.0.0.1:0", "--threads"])
        .arg(options.threads.to_string())
        .stdout(Stdio::piped());
    let mut process = Process::start("ours", command, &log(site.folder, Contender::Ours), sys::SIGTERM)?;
    let line =
        process.first_line(Duration::from_secs(20)).with_context(|| told(Contender::Ours, site.folder))?;
    let ready: serde_json::Value =
        serde_json::from_str(&line).with_context(|| format!("ours said {line:?} where JSON was promised"))?;
    if ready["event"] != "ready" {
        bail!("ours said {line:?} where \"ready\" was promised");
    }
    Ok(process)
}

fn document(site: &Site<'_>) -> Result<String, std::fmt::Error> {
    let mut text = "version: 1\n\
        defaults: { connect: { timeout: 5s }, timeouts: { idle: 1h } }\n\
        listeners:\n"
        .to_owned();
    let Site { ports, .. } = site;
    for (name, port, pool, more) in [
        ("echo", ports.echo, "echo", ""),
        ("bulk", ports.bulk, "bulk", ""),
        ("tls", ports.tls.ecdsa, "echo", ", tls: { certificates: [bench] }"),
        ("tls-rsa", ports.tls.rsa, "echo", ", tls: { certificates: [bench-rsa] }"),
        ("tls-bulk", ports.tls.bulk, "bulk", ", tls: { certificates: [bench] }"),
        ("udp", ports.udp, "udp", ", protocol: udp, udp: { idleTimeout: 60s }"),
        ("udp-new", ports.udp_new, "udp", ", protocol: udp, udp: { idleTimeout: 1s, maxFlows: 1000000 }"),
    ] {
        writeln!(
            text,
            "  - {{ name: {name}, bind: [\"127.0.0.1:{port}\"]{more}, rules: [ {{ name: all, pool: {pool} }} ] }}"
        )?;
    }
    text.push_str("pools:\n");
    pool(&mut text, "echo", &site.echo)?;
    pool(&mut text, "bulk", &site.bulk)?;
    pool(&mut text, "udp", &site.udp)?;
    text.push_str(
        "certificates:\n  - { name: bench, chainFile: cert.pem, keyFile: key.pem }\n  \
         - { name: bench-rsa, chainFile: rsa-cert.pem, keyFile: rsa-key.pem }\n",
    );
    Ok(text)
}

fn pool(text: &mut String, name: &str, backends: &[SocketAddr]) -> std::fmt::Result {
    writeln!(text, "  - name: {name}\n    balance: roundRobin\n    backends:")?;
    for (number, backend) in backends.iter().enumerate() {
        writeln!(text, "      - {{ name: b{number}, address: \"{backend}\" }}")?;
    }
    Ok(())
}
