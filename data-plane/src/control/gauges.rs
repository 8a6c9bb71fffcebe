//! What the kernel says of this process, as the control plane is told.

use awe4lb_proto::v1::NodeGauges;
use awe4lb_telemetry::process;

/// Now.
pub fn read() -> NodeGauges {
    let process = process::read();
    NodeGauges {
        cpu_micros_total: process.cpu_micros_total,
        resident_bytes: process.resident_bytes,
        open_files: process.open_files,
        open_files_limit: process.open_files_limit,
    }
}

/// Takes what the administrator allows: each connection is two files, and the soft limit is a habit of other times.
pub fn raise_open_files_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
