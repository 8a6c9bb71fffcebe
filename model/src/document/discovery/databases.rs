//! Sources that know which server of a database is its primary: sentinel, patroni.

use super::{check_url_at, client_tls, number, some_texts, text, wanted};
use crate::{
    BackendHost,
    discovery::{DatabaseRole, PatroniSource, SentinelSource},
    document::{build::Findings, build::one_or_many, scalars, tree::Node, violation::Path},
};

/// Where sentinels listen unless somebody says otherwise.
const SENTINEL_PORT: u16 = 26_379;

pub(super) fn sentinel(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<SentinelSource> {
    some_texts(node, "sentinels", "who is asked", path, found)?;
    let here = Path::Field(path, "sentinels");
    let mut sentinels = Vec::new();
    for (index, item) in one_or_many(node.field("sentinels")).enumerate() {
        let Some(text) = item.as_text() else { continue };
        match scalars::backend_address(text) {
            Ok(address) => {
                let host: Box<str> = match address.host {
                    BackendHost::Ip(ip) => ip.to_string().into(),
                    BackendHost::Name(name) => name,
                };
                sentinels.push((host, address.port.unwrap_or(SENTINEL_PORT)));
            }
            Err(detail) => found.error(&Path::Index(&here, index), item, "bad-value", detail),
        }
    }
    let master = wanted(node, "master", "the name of the master", path, found)?;
    // It is told in one line of a protocol of lines.
    if master.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let at = node.field("master").unwrap_or(node);
        found.error(&Path::Field(path, "master"), at, "bad-value", "a name has no spaces");
    }
    if node.field("user").is_some() && node.field("passwordFile").is_none() {
        found.error(path, node, "missing-field", "\"user\" needs \"passwordFile\"");
    }
    Some(SentinelSource {
        sentinels,
        master: master.into(),
        role: role(node),
        user: text(node, "user").map(Into::into),
        password_file: super::absolute(node, "passwordFile", path, found).map(Into::into),
    })
}

pub(super) fn patroni(
    node: &Node,
    max_bytes: u32,
    path: &Path<'_>,
    found: &mut Findings,
) -> Option<PatroniSource> {
    let urls = some_texts(node, "urls", "the REST APIs of its members", path, found)?;
    let here = Path::Field(path, "urls");
    for (index, item) in one_or_many(node.field("urls")).enumerate() {
        let Some(url) = item.as_text() else { continue };
        check_url_at(url, item, &Path::Index(&here, index), found);
    }
    if node.field("maxLagBytes").is_some() && role(node) == DatabaseRole::Primary {
        let at = node.field("maxLagBytes").unwrap_or(node);
        let detail =
            "the primary is never behind: \"maxLagBytes\" is for \"role: replica\" and \"role: any\"";
        found.error(&Path::Field(path, "maxLagBytes"), at, "conflict", detail);
    }
    Some(PatroniSource {
        urls: urls.iter().map(|url| url.trim_end_matches('/').into()).collect(),
        role: role(node),
        max_lag_bytes: number(node, "maxLagBytes"),
        tls: client_tls(node, path, found),
        max_bytes,
    })
}

fn role(node: &Node) -> DatabaseRole {
    match text(node, "role") {
        Some("replica") => DatabaseRole::Replica,
        Some("any") => DatabaseRole::Any,
        _ => DatabaseRole::Primary,
    }
}
