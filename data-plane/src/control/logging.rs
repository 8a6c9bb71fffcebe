//! Logs go to standard error: as text on a terminal, as one JSON object a line elsewhere.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Installs the subscriber. A second call in one process does nothing.
pub fn install(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = if std::io::stderr().is_terminal() {
        base.with_target(false).try_init()
    } else {
        base.json().flatten_event(true).with_ansi(false).try_init()
    };
    Ok(())
}

/// Panics become one log line, so that they are not lost among JSON.
pub fn panics_are_logged() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        tracing::error!(
            thread = thread.name().unwrap_or("?"),
            backtrace = %std::backtrace::Backtrace::force_capture(),
            "panic: {info}"
        );
    }));
}
