//! Managers of containers: docker (and Podman), swarm, lxd (and Incus).

use super::{client_tls, text, wanted};
use crate::{
    Protocol,
    discovery::{ApiAddress, ContainerApi, ContainerPort, DockerSource, LxdSource, SwarmSource},
    document::{build::Findings, tree::Node, violation::Path},
};

const DOCKER: &str = "unix:///var/run/docker.sock";
const LXD: &str = "unix:///var/lib/lxd/unix.socket";

pub(super) fn docker(
    node: &Node,
    max_bytes: u32,
    path: &Path<'_>,
    found: &mut Findings,
) -> Option<DockerSource> {
    Some(DockerSource {
        api: api(node, DOCKER, max_bytes, path, found)?,
        network: boxed(node, "network"),
        port: port(node, path, found),
        host: boxed(node, "host"),
    })
}

pub(super) fn swarm(
    node: &Node,
    max_bytes: u32,
    path: &Path<'_>,
    found: &mut Findings,
) -> Option<SwarmSource> {
    let service = wanted(node, "service", "whose tasks are backends", path, found)?.into();
    Some(SwarmSource {
        api: api(node, DOCKER, max_bytes, path, found)?,
        service,
        network: boxed(node, "network"),
        port: port(node, path, found),
    })
}

pub(super) fn lxd(node: &Node, max_bytes: u32, path: &Path<'_>, found: &mut Findings) -> Option<LxdSource> {
    Some(LxdSource {
        api: api(node, LXD, max_bytes, path, found)?,
        project: boxed(node, "project"),
        interface: boxed(node, "interface"),
        v6: text(node, "family") == Some("v6"),
    })
}

fn boxed(node: &Node, field: &str) -> Option<Box<str>> {
    text(node, field).filter(|text| !text.is_empty()).map(Into::into)
}

fn api(
    node: &Node,
    default: &str,
    max_bytes: u32,
    path: &Path<'_>,
    found: &mut Findings,
) -> Option<ContainerApi> {
    let tls = client_tls(node, path, found);
    let is_tls = tls.ca_pem.is_some() || tls.identity.is_some();
    let Some(address) = address(text(node, "endpoint").unwrap_or(default), is_tls) else {
        let at = node.field("endpoint").unwrap_or(node);
        let detail = "a unix socket is wanted, or a server: unix:///var/run/docker.sock, tcp://10.0.0.1:2376, https://10.0.0.1:8443";
        found.error(&Path::Field(path, "endpoint"), at, "bad-value", detail);
        return None;
    };
    if is_tls && !matches!(&address, ApiAddress::Url(url) if url.starts_with("https://")) {
        let detail = "\"ca\", \"certFile\" and \"keyFile\" are for an endpoint with TLS";
        found.error(path, node, "conflict", detail);
    }
    Some(ContainerApi { address, tls, max_bytes })
}

/// `tcp://`, as Docker has it, is TLS where there is something to do TLS with.
fn address(text: &str, is_tls: bool) -> Option<ApiAddress> {
    if let Some(file) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
        return file.starts_with('/').then(|| ApiAddress::Unix(file.into()));
    }
    let (scheme, rest) = text.split_once("://")?;
    let scheme = match (scheme, is_tls) {
        ("https", _) | ("tcp", true) => "https",
        ("http" | "tcp", _) => "http",
        _ => return None,
    };
    let host = rest.trim_end_matches('/');
    let is_host =
        !host.is_empty() && !host.contains(['/', '@', '?', '#']) && !host.contains(char::is_whitespace);
    is_host.then(|| ApiAddress::Url(format!("{scheme}://{host}").into()))
}

fn port(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<ContainerPort> {
    let transport = match text(node, "transport") {
        Some("tcp") => Some(Protocol::Tcp),
        Some(_) => Some(Protocol::Udp),
        None => None,
    };
    let number = super::number(node, "containerPort");
    if let (Some(_), None, Some(at)) = (transport, number, node.field("transport")) {
        found.error(&Path::Field(path, "transport"), at, "conflict", "it is that of a \"containerPort\"");
    }
    number.map(|number| ContainerPort { number, transport })
}

/// A port as Docker writes it.
pub fn container_port(text: &str) -> Option<ContainerPort> {
    let (number, transport) = match text.split_once('/') {
        Some((number, "tcp")) => (number, Some(Protocol::Tcp)),
        Some((number, "udp")) => (number, Some(Protocol::Udp)),
        Some(_) => return None,
        None => (text, None),
    };
    let number = number.parse().ok().filter(|number| *number != 0)?;
    Some(ContainerPort { number, transport })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_as_people_write_them() {
        let unix = |path: &str| Some(ApiAddress::Unix(path.into()));
        let url = |url: &str| Some(ApiAddress::Url(url.into()));
        assert_eq!(address("unix:///run/podman.sock", false), unix("/run/podman.sock"));
        assert_eq!(address("tcp://10.0.0.1:2375", false), url("http://10.0.0.1:2375"));
        assert_eq!(address("tcp://10.0.0.1:2376", true), url("https://10.0.0.1:2376"));
        assert_eq!(address("https://lxd.internal:8443/", false), url("https://lxd.internal:8443"));
        for wrong in [
            "",
            "docker.sock",
            "unix://docker.sock",
            "ssh://a",
            "https://",
            "https://me:secret@a",
            "http://a/b",
        ] {
            assert_eq!(address(wrong, false), None, "{wrong}");
        }
    }

    #[test]
    fn ports_as_docker_writes_them() {
        assert_eq!(container_port("80"), Some(ContainerPort { number: 80, transport: None }));
        assert_eq!(
            container_port("53/udp"),
            Some(ContainerPort { number: 53, transport: Some(Protocol::Udp) })
        );
        for wrong in ["", "0", "80/sctp", "x", "70000"] {
            assert_eq!(container_port(wrong), None, "{wrong}");
        }
    }
}
