//! Reads a header out of what has arrived so far.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    Header, MAX_V1_BYTES, MAX_V2_BYTES, Tlvs, UNIX_BYTES, V1_SIGNATURE, V2_FIXED_BYTES, V2_SIGNATURE,
    Version, agrees, crc32c::crc32c,
};

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// The start of something that may become a header; never for more than [`MAX_V2_BYTES`].
    NeedMore,
    /// Not this protocol: no signature begins like this.
    NotProxy,
    /// A whole header.
    Header {
        /// What it says.
        header: Header,
        /// Its bytes; what is behind them is the client's.
        length: usize,
    },
    /// This protocol, but nothing to trust; why.
    Malformed(&'static str),
}

/// Addresses and ports of source and destination, if they are said.
type Addresses = Option<(SocketAddr, SocketAddr)>;
/// A header and its length, or `None` as long as something is missing.
type Found = Option<(Header, usize)>;

/// Looks at everything that has arrived so far, or at a whole datagram: then more will not come.
pub fn parse(bytes: &[u8]) -> Parsed {
    let found = if agrees(bytes, V2_SIGNATURE) {
        version2(bytes)
    } else if agrees(bytes, V1_SIGNATURE) {
        version1(bytes)
    } else {
        return Parsed::NotProxy;
    };
    match found {
        Ok(Some((header, length))) => Parsed::Header { header, length },
        Ok(None) => Parsed::NeedMore,
        Err(reason) => Parsed::Malformed(reason),
    }
}

fn version1(bytes: &[u8]) -> Result<Found, &'static str> {
    let window = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    let rest = window.get(V1_SIGNATURE.len()..).unwrap_or_default();
    if ![&b"TCP4 "[..], b"TCP6 ", b"UNKNOWN"].iter().any(|family| agrees(rest, family)) {
        return Err("neither TCP4, TCP6 nor UNKNOWN");
    }
    // Nothing is decoded before the end is there: a port could still grow.
    let ends = window.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = match ends.map(|end| (&window[..end], &window[end..])) {
        Some((line, [b'\r', b'\n', ..])) => line,
        Some((_, [b'\r'])) | None if window.len() < MAX_V1_BYTES => return Ok(None),
        Some((_, [b'\r'])) | None => return Err("a line of more than 107 bytes"),
        Some(_) => return Err("a line that does not end with CR and LF"),
    };
    let addresses = match &line[V1_SIGNATURE.len()..] {
        [b'T', b'C', b'P', b'4', b' ', rest @ ..] => Some(line_addresses::<Ipv4Addr>(rest)?),
        [b'T', b'C', b'P', b'6', b' ', rest @ ..] => Some(line_addresses::<Ipv6Addr>(rest)?),
        // What follows is to be ignored.
        [b'U', b'N', b'K', b'N', b'O', b'W', b'N'] | [b'U', b'N', b'K', b'N', b'O', b'W', b'N', b' ', ..] => {
            None
        }
        _ => return Err("neither TCP4, TCP6 nor UNKNOWN"),
    };
    let header = header(Version::V1, false, false, addresses, Tlvs::default());
    Ok(Some((header, line.len() + 2)))
}

/// `source destination port port`, one space between each.
fn line_addresses<A: std::str::FromStr + Into<IpAddr>>(
    fields: &[u8],
) -> Result<(SocketAddr, SocketAddr), &'static str> {
    let text = std::str::from_utf8(fields).map_err(|_| "a line that is not ASCII")?;
    let mut fields = text.split(' ');
    let mut next = || fields.next();
    let (Some(source), Some(destination), Some(source_port), Some(destination_port), None) =
        (next(), next(), next(), next(), next())
    else {
        return Err("a line that does not have two addresses and two ports");
    };
    // The standard library takes no leading zeros in IPv4, and no zones.
    let ip = |text: &str| text.parse::<A>().map_err(|_| "an address that is none of its family");
    let port = |text| port(text).ok_or("a port that is none");
    let source = SocketAddr::new(ip(source)?.into(), port(source_port)?);
    Ok((source, SocketAddr::new(ip(destination)?.into(), port(destination_port)?)))
}

/// Digits alone, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn version2(bytes: &[u8]) -> Result<Found, &'static str> {
    let at = V2_SIGNATURE.len();
    let is_local = match bytes.get(at) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(byte) if byte >> 4 == 2 => return Err("a command that is neither LOCAL nor PROXY"),
        Some(_) => return Err("a version other than 2"),
    };
    let Some(byte) = bytes.get(at + 1) else { return Ok(None) };
    let (family, transport) = (byte >> 4, byte & 15);
    // With LOCAL the family "is ignored".
    if !is_local && (family > 3 || transport > 2) {
        return Err("a family or transport that does not exist");
    }
    let Some([high, low]) = bytes.get(at + 2..V2_FIXED_BYTES) else { return Ok(None) };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_V2_BYTES {
        return Err("a header of more than 4096 bytes");
    }
    let Some(whole) = bytes.get(..length) else { return Ok(None) };

    let payload = &whole[V2_FIXED_BYTES..];
    let says_addresses = !is_local && family != 0;
    let (addresses, tlvs) = match block(family, payload) {
        Some((addresses, rest)) => (addresses.filter(|_| says_addresses && transport != 0), rest),
        None if is_local => (None, &[][..]),
        None => return Err("addresses that go beyond the header"),
    };
    let tlvs_at = length - tlvs.len();
    let (tlvs, checksum_at) = match Tlvs::checked(tlvs) {
        Ok(checked) => checked,
        // Where no addresses are said, anything may be in their place, and is to be ignored.
        Err(_) if !says_addresses => Default::default(),
        Err(reason) => return Err(reason),
    };
    if checksum_at.is_some_and(|at| !checksum_holds(whole, tlvs_at + at)) {
        return Err("a checksum that does not hold");
    }
    let is_datagram = !is_local && transport == 2;
    Ok(Some((header(Version::V2, is_local, is_datagram, addresses, tlvs), length)))
}

/// The addresses of this family, and what is behind them.
fn block(family: u8, payload: &[u8]) -> Option<(Addresses, &[u8])> {
    match family {
        1 => {
            let (source, rest) = payload.split_first_chunk::<4>()?;
            let (destination, rest) = rest.split_first_chunk::<4>()?;
            ports(Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into(), rest)
        }
        2 => {
            let (source, rest) = payload.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            ports(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), rest)
        }
        3 => payload.get(UNIX_BYTES..).map(|rest| (None, rest)),
        _ => Some((None, payload)),
    }
}

fn ports(source: IpAddr, destination: IpAddr, rest: &[u8]) -> Option<(Addresses, &[u8])> {
    let (&[a, b, c, d], rest) = rest.split_first_chunk::<4>()?;
    let source = SocketAddr::new(source, u16::from_be_bytes([a, b]));
    Some((Some((source, SocketAddr::new(destination, u16::from_be_bytes([c, d])))), rest))
}

/// The checksum is that of the header with zeros in its place.
fn checksum_holds(whole: &[u8], at: usize) -> bool {
    let (before, rest) = whole.split_at(at);
    rest.split_first_chunk::<4>()
        .is_some_and(|(sum, after)| u32::from_be_bytes(*sum) == crc32c(&[before, &[0; 4], after]))
}

fn header(version: Version, is_local: bool, is_datagram: bool, addresses: Addresses, tlvs: Tlvs) -> Header {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (source, destination) = addresses.unzip();
    Header {
        version,
        is_local,
        is_datagram,
        source: source.map(canonical),
        destination: destination.map(canonical),
        tlvs,
    }
}
