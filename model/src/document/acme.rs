//! From the objects of ACME to the nouns.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    build::{Findings, boolean, duration, name, number, one_or_many, text},
    scalars,
    spec::acme::DNS_TYPES,
    tree::{Node, NodeKind},
    violation::Path,
};
use crate::acme::{
    AcmeAccount, AcmeCertificate, AcmeChallenge, AcmeDns, DnsHook, KeyType, MAX_DOMAINS, TsigAlgorithm,
};

/// What the largest public authority takes on the average.
const ORDERS_PER_HOUR: u32 = 100;
/// How long a record may take.
const DNS_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn account(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<AcmeAccount> {
    let directory = text(node, "directory")?;
    https(directory, node, "directory", path, found);
    if let Some(agreed) = node.field("termsAgreed")
        && boolean(node, "termsAgreed") == Some(false)
    {
        let detail = "without your agreement to its terms an authority gives no account";
        found.error(&Path::Field(path, "termsAgreed"), agreed, "terms-not-agreed", detail);
    }
    let contact = contacts(node, path, found);
    let binding = node.field("externalAccountBinding");
    if let Some(secret) = binding.and_then(|binding| binding.field("secret"))
        && !secret.as_text().is_some_and(is_base64)
    {
        let binding = Path::Field(path, "externalAccountBinding");
        found.error(&Path::Field(&binding, "secret"), secret, "bad-value", "the secret is no base64url");
    }
    Some(AcmeAccount {
        name: name(node, "name")?,
        directory: directory.into(),
        contact,
        external_key_id: binding.and_then(|binding| text(binding, "keyId")).map(Into::into),
        ca_pem: text(node, "ca").map(Into::into),
        orders_per_hour: number(node, "ordersPerHour").unwrap_or(ORDERS_PER_HOUR),
    })
}

/// URLs; an address for mail may be written as it is.
fn contacts(node: &Node, path: &Path<'_>, found: &mut Findings) -> Vec<Box<str>> {
    let list = Path::Field(path, "contact");
    let items = node.field("contact").map(Node::items).unwrap_or_default();
    let contact = items.iter().enumerate().filter_map(|(index, item)| {
        let text = item.as_text()?;
        match text.split_once('@') {
            _ if text.contains(':') => Some(text.into()),
            Some((who, at)) if !who.is_empty() && !at.is_empty() => Some(format!("mailto:{text}").into()),
            _ => {
                let detail = format!("{text:?} is no address for mail and no URL: write ops@example.com");
                found.error(&Path::Index(&list, index), item, "bad-value", detail);
                None
            }
        }
    });
    contact.collect()
}

/// The certificate of an object that has `acme`.
pub(super) fn certificate(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<AcmeCertificate> {
    let acme = node.field("acme")?;
    let here = Path::Field(path, "acme");
    for other in ["chain", "chainFile", "key", "keyFile"] {
        if let Some(value) = node.field(other) {
            let detail = format!("what is issued by ACME has no {other:?}");
            found.error(&Path::Field(path, other), value, "conflict", detail);
        }
    }
    let challenges: Vec<AcmeChallenge> = one_or_many(acme.field("challenge"))
        .filter_map(|item| AcmeChallenge::of_word(item.as_text()?))
        .collect();
    let domains = domains(acme, &challenges, &here, found)?;
    let mut key_types: Vec<KeyType> = Vec::new();
    for item in one_or_many(acme.field("keyType")) {
        let Some(key_type) = item.as_text().and_then(KeyType::of_word) else { continue };
        if key_types.contains(&key_type) {
            let detail = format!("{:?} is there twice", key_type.word());
            found.error(&Path::Field(&here, "keyType"), item, "duplicate", detail);
        } else {
            key_types.push(key_type);
        }
    }
    if key_types.is_empty() {
        key_types.push(KeyType::P256);
    }
    let dns = acme.field("dns").and_then(|dns| self::dns(dns, &Path::Field(&here, "dns"), found));
    let wants_dns = challenges.contains(&AcmeChallenge::Dns01);
    if wants_dns && acme.field("dns").is_none() {
        let detail = "dns-01 needs \"dns\": how records get into the zone";
        found.error(&here, acme, "missing-field", detail);
    }
    if let Some(dns) = acme.field("dns").filter(|_| !wants_dns) {
        found.error(&Path::Field(&here, "dns"), dns, "conflict", "only the challenge dns-01 uses it");
    }
    if challenges.is_empty() {
        found.error(&Path::Field(&here, "challenge"), acme, "empty", "at least one challenge");
    }
    let certificate = AcmeCertificate {
        name: name(node, "name")?,
        account: name(acme, "account")?,
        domains,
        challenges,
        key_types,
        profile: text(acme, "profile").map(Into::into),
        renew_before: duration(acme, "renewBefore"),
        dns,
    };
    if certificate.key_types.iter().any(|key_type| certificate.placed_name(*key_type).is_none()) {
        let detail = "with several key types the name is too long: nodes know each chain by name and type";
        found.error(path, node, "bad-value", detail);
    }
    Some(certificate)
}

fn domains(
    node: &Node,
    challenges: &[AcmeChallenge],
    path: &Path<'_>,
    found: &mut Findings,
) -> Option<Vec<Box<str>>> {
    let list = node.field("domains")?;
    let path = Path::Field(path, "domains");
    let mut domains: Vec<Box<str>> = Vec::new();
    for (index, item) in list.items().iter().enumerate() {
        let here = Path::Index(&path, index);
        let Some(text) = item.as_text() else { continue };
        let is_wildcard = text.starts_with("*.");
        let Some(base) = scalars::host_name(text.strip_prefix("*.").unwrap_or(text)) else {
            let detail = match text.parse::<IpAddr>() {
                Ok(_) => "certificates for addresses are not supported yet".to_owned(),
                Err(_) => format!("{text:?} is no domain: write example.com or *.example.com"),
            };
            found.error(&here, item, "bad-value", detail);
            continue;
        };
        if base.contains('_') || !base.contains('.') {
            let detail = format!("authorities issue nothing for {text:?}");
            found.warn(&here, item, "unusual-domain", detail);
        }
        if is_wildcard && challenges.iter().any(|challenge| *challenge != AcmeChallenge::Dns01) {
            let detail = format!("{text:?} is validated by dns-01 alone");
            found.error(&here, item, "conflict", detail);
        }
        let domain: Box<str> = if is_wildcard { format!("*.{base}").into() } else { base.into() };
        if domains.contains(&domain) {
            found.error(&here, item, "duplicate", format!("{domain:?} is there twice"));
        } else {
            domains.push(domain);
        }
    }
    if list.items().is_empty() {
        found.error(&path, list, "empty", "a certificate is for at least one domain");
    }
    if domains.len() > MAX_DOMAINS {
        let detail = format!("{} domains, and a certificate has at most {MAX_DOMAINS}", domains.len());
        found.error(&path, list, "too-large", detail);
    }
    Some(domains)
}

fn dns(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<AcmeDns> {
    let word = text(node, "type")?;
    fields_fit(node, word, path, found);
    let servers = node.field("servers").map(Node::items).unwrap_or_default();
    let list = Path::Field(path, "servers");
    let servers = servers.iter().enumerate().filter_map(|(index, item)| {
        let address = item.as_text().and_then(server);
        if address.is_none() {
            found.error(
                &Path::Index(&list, index),
                item,
                "bad-value",
                "write 192.0.2.53 or [2001:db8::53]:53",
            );
        }
        address
    });
    let servers = servers.collect();
    Some(AcmeDns {
        hook: hook(node, word, path, found)?,
        servers,
        is_checked: boolean(node, "check").unwrap_or(true),
        timeout: duration(node, "timeout").unwrap_or(DNS_TIMEOUT),
    })
}

fn hook(node: &Node, word: &str, path: &Path<'_>, found: &mut Findings) -> Option<DnsHook> {
    let mut wanted = |field: &str, what: &str| {
        if node.field(field).is_none() {
            found.error(
                path,
                node,
                "missing-field",
                format!("a hook of type {word} needs {field:?}: {what}"),
            );
        }
    };
    match word {
        "rfc2136" => {
            wanted("server", "the zone's primary server");
            let server_text = text(node, "server")?;
            let Some(server) = server(server_text) else {
                let at = node.field("server")?;
                let detail = format!("{server_text:?} is no address: write 192.0.2.53 or [2001:db8::53]:53");
                found.error(&Path::Field(path, "server"), at, "bad-value", detail);
                return None;
            };
            for field in ["algorithm", "secret"] {
                if let (Some(value), None) = (node.field(field), node.field("key")) {
                    let detail = format!("{field:?} is of a \"key\", and there is none");
                    found.error(&Path::Field(path, field), value, "conflict", detail);
                }
            }
            if let Some(secret) = node.field("secret")
                && !secret.as_text().is_some_and(is_base64)
            {
                found.error(&Path::Field(path, "secret"), secret, "bad-value", "the secret is no base64");
            }
            let algorithm = match text(node, "algorithm") {
                Some("hmac-sha384") => TsigAlgorithm::HmacSha384,
                Some("hmac-sha512") => TsigAlgorithm::HmacSha512,
                _ => TsigAlgorithm::HmacSha256,
            };
            let mut named = |field: &str| {
                let name = scalars::host_name(text(node, field)?);
                if name.is_none()
                    && let Some(at) = node.field(field)
                {
                    found.error(&Path::Field(path, field), at, "bad-value", "this is no name of a domain");
                }
                name
            };
            let (zone, key) = (named("zone").map(Into::into), named("key"));
            Some(DnsHook::Rfc2136 { server, zone, key: key.map(|key| (key.into(), algorithm)) })
        }
        "exec" => {
            wanted("command", "the program and its first arguments");
            let argv = texts(node, "command");
            if let Some(command) = node.field("command")
                && !argv.first().is_some_and(|program| program.starts_with('/'))
            {
                let detail = "begin with the whole path of a program";
                found.error(&Path::Field(path, "command"), command, "bad-value", detail);
            }
            Some(DnsHook::Exec { argv })
        }
        _ => {
            wanted("url", "where the service is");
            let url = text(node, "url")?;
            if !url.starts_with("https://") && !url.starts_with("http://") {
                let at = node.field("url")?;
                found.error(&Path::Field(path, "url"), at, "bad-value", format!("{url:?} is no URL of HTTP"));
            }
            let (url, ca_pem) = (url.trim_end_matches('/').into(), text(node, "ca").map(Into::into));
            Some(DnsHook::Http { url, ca_pem })
        }
    }
}

/// A field that the type does not use is a mistake, not something to ignore.
fn fields_fit(node: &Node, word: &str, path: &Path<'_>, found: &mut Findings) {
    let NodeKind::Object(entries) = &node.kind else { return };
    for entry in entries {
        let takers: Vec<&str> = DNS_TYPES
            .iter()
            .filter(|(_, fields)| fields.contains(&entry.key.as_str()))
            .map(|(of, _)| *of)
            .collect();
        if !takers.is_empty() && !takers.contains(&word) {
            let detail = format!("{:?} is for hooks of type {}, not {word}", entry.key, takers.join(", "));
            found.error(&Path::Field(path, &entry.key), &entry.value, "conflict", detail);
        }
    }
}

fn https(url: &str, node: &Node, field: &str, path: &Path<'_>, found: &mut Findings) {
    let rest = url.strip_prefix("https://").unwrap_or_default();
    let is_plain = rest.bytes().all(|byte| byte.is_ascii_graphic());
    if rest.is_empty() || !is_plain {
        let at = node.field(field).unwrap_or(node);
        let detail = format!("{url:?} is no URL with https://");
        found.error(&Path::Field(path, field), at, "bad-value", detail);
    }
}

/// An address, with port 53 unless it says another.
fn server(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    text.parse().ok().or_else(|| Some(SocketAddr::new(bare.parse().ok()?, 53)))
}

fn is_base64(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    !text.is_empty() && text.bytes().all(plain)
}

fn texts(node: &Node, field: &str) -> Vec<Box<str>> {
    let items = node.field(field).map(Node::items).unwrap_or_default();
    items.iter().filter_map(|item| Some(item.as_text()?.into())).collect()
}
