//! How texts say which backends there are. What is no backend is reported, and does not spoil the others.

mod json;
mod lines;

use awe4lb_model::{BackendAddress, discovery::Format, document::backend_address};

use crate::{Answer, Failure};

/// The most items of one answer; more are a mistake.
const MAX_ITEMS: usize = 100_000;

/// Reads a text in a format. Never panics, whatever the text.
pub fn read(text: &[u8], format: &Format) -> Result<Answer, Failure> {
    let text = std::str::from_utf8(text).map_err(|error| Failure::new(format!("not UTF-8: {error}")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let answer = match format {
        Format::Auto if text.trim_start().starts_with(['{', '[']) => json::read(text, None)?,
        Format::Auto | Format::Lines => lines::read(text, None)?,
        Format::Pattern(pattern) => lines::read(text, Some(pattern))?,
        Format::Json => json::read(text, None)?,
        Format::Pointers(pointers) => json::read(text, Some(pointers))?,
    };
    if answer.endpoints.len() > MAX_ITEMS {
        return Err(Failure::new(format!("{} backends, at most {MAX_ITEMS}", answer.endpoints.len())));
    }
    Ok(answer)
}

/// Host and port that come apart. An IPv6 address may be bare or in brackets.
fn joined(host: &str, port: Option<u16>) -> Result<BackendAddress, String> {
    let mut address = match host.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_ipv6() => backend_address(&format!("[{host}]")),
        _ => backend_address(host),
    }?;
    if let Some(port) = port {
        if address.port.is_some_and(|within| within != port) {
            return Err(format!("{host:?} has another port than {port}"));
        }
        address.port = Some(port);
    }
    Ok(address)
}

fn port(text: &str) -> Result<u16, String> {
    text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| format!("{text:?} is no port"))
}

/// A weight or a priority.
fn share(text: &str) -> Result<u32, String> {
    let number = text.parse::<u32>().ok().filter(|number| *number <= 65_535);
    number.ok_or_else(|| format!("{text:?} is no number from 0 to 65535"))
}
