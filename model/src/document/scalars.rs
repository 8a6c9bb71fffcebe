//! Scalars as users write them: durations, addresses, prefixes, server names. Each returns what is wrong in words.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    BackendAddress, BackendHost, BindAddress, BindHost, MapKey, PortRange, SniPattern, rule::sni_regex,
};

/// `500ms`, `5s`, `10m`, `1h`, `30d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let wrong = || format!("{text:?} is no duration: write 500ms, 5s, 10m, 1h or 30d");
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    match number.checked_mul(millis) {
        Some(0) => Err("0 has no meaning here".to_owned()),
        Some(total) if total <= 10 * 365 * 86_400_000 => Ok(Duration::from_millis(total)),
        _ => Err(format!("{text:?} is longer than ten years")),
    }
}

/// The shortest text that [`duration`] reads back as the same.
pub fn print_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// `*:443`, `0.0.0.0:80`, `[::1]:8443`.
pub fn bind(text: &str) -> Result<BindAddress, String> {
    let address = if let Some(port) = text.strip_prefix("*:") {
        port.parse().ok().map(|port| BindAddress { host: BindHost::Any, port })
    } else {
        let socket: Option<SocketAddr> = text.parse().ok();
        socket.map(|socket| BindAddress { host: BindHost::Ip(socket.ip()), port: socket.port() })
    };
    match address {
        Some(BindAddress { port: 0, .. }) => Err("port 0 has no meaning here".to_owned()),
        Some(address) => Ok(address),
        None => Err(format!("{text:?} is no address to bind: write *:443, 10.0.0.1:443 or [::1]:443")),
    }
}

/// `10.0.0.1:80`, `[::1]:80`, `app.internal:80`, and each of them without a port.
pub fn backend_address(text: &str) -> Result<BackendAddress, String> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return backend(BackendHost::Ip(socket.ip()), Some(socket.port()));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return backend(BackendHost::Ip(ip), None);
    }
    if text.starts_with("unix:") {
        return Err("unix sockets are not supported yet".to_owned());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => match port.parse::<u16>() {
            Ok(port) => (host, Some(port)),
            Err(_) => return Err(format!("{port:?} is no port")),
        },
        None => (text, None),
    };
    let host = host_name(host).ok_or_else(|| {
        format!("{text:?} is no address of a backend: write 10.0.0.1:80, [::1]:80 or app.internal:80")
    })?;
    backend(BackendHost::Name(host.into()), port)
}

fn backend(host: BackendHost, port: Option<u16>) -> Result<BackendAddress, String> {
    if port == Some(0) {
        return Err("port 0 has no meaning here".to_owned());
    }
    if let BackendHost::Ip(ip) = host
        && (ip.is_unspecified() || ip.is_multicast())
    {
        return Err(format!("{ip} is no address of one machine"));
    }
    Ok(BackendAddress { host, port })
}

/// `10.0.0.0/8`, or an address alone. Bits behind the prefix must be 0.
pub fn prefix(text: &str) -> Result<IpNet, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.into());
    }
    let net: IpNet =
        text.parse().map_err(|_| format!("{text:?} is no address or prefix: write 10.0.0.0/8"))?;
    if net.addr() != net.network() {
        return Err(format!("{text:?} has bits behind its prefix: write {}", net.trunc()));
    }
    Ok(net)
}

/// `443`, or `8000-8099`.
pub fn ports(text: &str) -> Result<PortRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(0), _) => Err("port 0 has no meaning here".to_owned()),
        (Ok(first), Ok(last)) if first <= last => Ok(PortRange { first, last }),
        _ => Err(format!("{text:?} is no port and no range of ports: write 443 or 8000-8099")),
    }
}

/// `200`, or `200-399`.
pub fn statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last && first >= 100 && last <= 599 => Ok(first..=last),
        _ => Err(format!("{text:?} is no status of HTTP and no range of them: write 200 or 200-399")),
    }
}

/// `0d0a`.
pub fn hex(text: &str) -> Result<Vec<u8>, String> {
    match ::hex::decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(format!("{text:?} is not hexadecimal: write 0d0a")),
    }
}

/// What a name begins or ends with.
pub fn name_part(text: &str) -> Result<Box<str>, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if (1..=253).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_ascii_lowercase().into())
    } else {
        Err(format!("{text:?} is no part of a server name"))
    }
}

/// An expression for whole names.
pub fn regex(text: &str) -> Result<Box<str>, String> {
    sni_regex(text).map_err(|error| format!("{text:?} is no expression: {error}"))?;
    Ok(text.into())
}

/// `app.example.com`, `*.example.com`, or the word `none`: TLS without a name.
pub fn sni(text: &str) -> Result<SniPattern, String> {
    if text == "none" {
        return Ok(SniPattern::None);
    }
    let wrong = || format!("{text:?} is no server name: write app.example.com or *.example.com");
    match text.strip_prefix("*.") {
        Some(rest) => Ok(SniPattern::Wildcard(host_name(rest).ok_or_else(wrong)?.into())),
        None => Ok(SniPattern::Exact(host_name(text).ok_or_else(wrong)?.into())),
    }
}

/// What a map knows: `app.example.com` or `*.example.com`.
pub fn map_key(text: &str) -> Result<MapKey, String> {
    let key = sni(text)?;
    MapKey::of(key).ok_or_else(|| format!("{text:?} is no server name: TLS without one is a rule's to match"))
}

/// A host name, lower case, without its trailing dot.
/// Lower case, without a trailing dot.
pub fn host_name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let fits = (1..=253).contains(&text.len()) && text.split('.').all(label);
    // All digits and dots is a mistyped address, not a name.
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (fits && !numeric).then(|| text.to_ascii_lowercase())
}

/// At least one PEM block of the label (`CERTIFICATE`, or one that ends in `PRIVATE KEY`), and nothing broken.
pub fn pem(text: &str, label_end: &str) -> Result<(), String> {
    let mut blocks = 0;
    let mut inside: Option<&str> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) {
            if inside.replace(label).is_some() {
                return Err("a PEM block begins inside another".to_owned());
            }
        } else if let Some(label) = line.strip_prefix("-----END ").and_then(|rest| rest.strip_suffix("-----"))
        {
            if inside.take() != Some(label) {
                return Err(format!("a PEM block of {label:?} ends that did not begin"));
            }
            blocks += usize::from(label.ends_with(label_end));
        } else if inside.is_some()
            && !line.bytes().all(|b| {
                b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b':' | b' ' | b',' | b'-')
            })
        {
            return Err("a PEM block holds something else than base64".to_owned());
        }
    }
    match (blocks, inside) {
        (_, Some(label)) => Err(format!("the PEM block of {label:?} does not end")),
        (0, None) => Err(format!("there is no PEM block of {label_end:?} in this text")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for text in ["500ms", "5s", "10m", "1h", "30d"] {
            assert_eq!(print_duration(duration(text).expect("a duration")), text);
        }
        for text in ["", "5", "s", "1.5s", "-1s", "0s", "99999999999999999d", "5 s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(bind("*:443").map(|b| b.to_string()), Ok("*:443".to_owned()));
        assert!(bind("*:0").is_err());
        assert!(bind("443").is_err());
        assert_eq!(
            backend_address("App.Internal.:80").map(|b| b.to_string()),
            Ok("app.internal:80".to_owned())
        );
        assert_eq!(backend_address("[::1]").map(|b| b.port), Ok(None));
        assert!(backend_address("999.0.0.1:80").is_err());
        assert!(backend_address("0.0.0.0:80").is_err());
        assert!(prefix("10.0.0.1/8").is_err());
        assert!(prefix("10.0.0.1").is_ok());
    }

    #[test]
    fn server_names() {
        assert_eq!(sni("*.Example.com"), Ok(SniPattern::Wildcard("example.com".into())));
        assert!(sni("*").is_err());
        assert!(sni("a.*.com").is_err());
        assert!(sni("-a.com").is_err());
    }
}
