//! Sources of type consul.

use super::{boolean, check_url_at, client_tls, some_texts, text, texts};
use crate::{
    discovery::ConsulSource,
    document::{build::Findings, tree::Node, violation::Path},
};

/// Where an agent is unless somebody says otherwise.
const AGENT: &str = "http://127.0.0.1:8500";

pub(super) fn consul(
    node: &Node,
    max_bytes: u32,
    path: &Path<'_>,
    found: &mut Findings,
) -> Option<ConsulSource> {
    let url = text(node, "url").unwrap_or(AGENT);
    let here = Path::Field(path, "url");
    check_url_at(url, node.field("url").unwrap_or(node), &here, found)?;
    if url.contains('?') {
        found.error(
            &here,
            node.field("url").unwrap_or(node),
            "bad-value",
            "where the agent is, without a query",
        );
        return None;
    }
    let boxed = |field| text(node, field).map(Box::<str>::from);
    Some(ConsulSource {
        url: url.trim_end_matches('/').into(),
        services: some_texts(node, "services", "the names of services", path, found)?,
        tags: texts(node, "tags"),
        passing_only: boolean(node, "passingOnly").unwrap_or(true),
        datacenter: boxed("datacenter"),
        namespace: boxed("namespace"),
        partition: boxed("partition"),
        token_file: super::absolute(node, "tokenFile", path, found).map(Into::into),
        tls: client_tls(node, path, found),
        max_bytes,
    })
}
