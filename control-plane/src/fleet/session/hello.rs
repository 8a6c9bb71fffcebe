//! Whether what a node says first lets it in.

use awe4lb_proto::v1;

use super::super::{
    FleetError, Inner,
    registry::{Facts, Fault, limited},
};

/// A node that runs something that this database never gave out comes from a later state of it, or from another one:
/// what it runs must not be replaced without somebody having looked. The exception is a node that has just joined.
pub(super) fn check_lineage(
    inner: &Inner,
    name: &str,
    running: Option<&v1::Assignment>,
) -> Result<Option<v1::Assignment>, FleetError> {
    let Some(running) = running else { return Ok(None) };
    let lineage = inner.planner.current().lineage.clone();
    let (epoch, sequence, is_new) = match inner.registry.lock().get(name) {
        Some(node) => (node.record.epoch, node.record.sequence, node.record.facts.boot_id.is_empty()),
        None => return Ok(None),
    };
    let is_ahead = (running.epoch, running.sequence) > (epoch, sequence);
    let why = if running.lineage != lineage {
        format!(
            "the node runs a configuration of another database (lineage {}, here {lineage}); to follow this one, \
             remove the folder `cache` in its state directory",
            limited(&running.lineage)
        )
    } else if is_ahead && is_new {
        return Ok(Some(running.clone()));
    } else if is_ahead {
        format!(
            "the node runs assignment ({}, {}), this database knows ({epoch}, {sequence}): it was restored from an \
             older state; forget the node and let it join again to follow this one",
            running.epoch, running.sequence
        )
    } else {
        return Ok(None);
    };
    refuse(inner, name, "lineage", &why);
    Err(FleetError::Conflict(why))
}

/// Shown on the node until its next stream.
pub(super) fn refuse(inner: &Inner, name: &str, code: &str, why: &str) {
    if let Some(node) = inner.registry.lock().get_mut(name) {
        node.live.refused = Some(Fault {
            kind: "node".to_owned(),
            name: name.to_owned(),
            code: code.to_owned(),
            field_path: String::new(),
            message: why.to_owned(),
        });
    }
    inner.publish_node(name);
}

pub(super) fn facts_of(hello: &v1::Hello) -> Facts {
    Facts {
        version: limited(&hello.version),
        boot_id: hex::encode(&hello.boot_id[..hello.boot_id.len().min(16)]),
        started_unix_ms: hello.started_unix_ms,
        threads: hello.threads,
        admin_address: limited(&hello.admin_address),
    }
}
