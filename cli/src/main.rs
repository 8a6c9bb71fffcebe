//! `awe4lb`: the command line of the control plane.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    awe4lb_cli::main().await
}
