//! Whether packets for addresses that are not this host's can be delivered here: what policy routing says (rtnetlink(7)),
//! asked for each mark that a rule knows.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

const RTM_GETROUTE: u16 = 26;
const RTM_GETRULE: u16 = 34;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const REQUEST_DUMP: u16 = 1 | 0x300;
const RTA_DST: u16 = 1;
const RTA_MARK: u16 = 16;
const FRA_FWMARK: u16 = 10;
/// Delivered here.
const RTN_LOCAL: u8 = 2;
/// Of a message, before its attributes.
const HEADER: usize = 16;
const BODY: usize = 12;

/// Addresses that nobody has (RFC 5737, 3849): who delivers those here delivers all.
const NOBODY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NOBODY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// Whether some mark leads packets for anybody to this host.
pub(super) fn is_there(v6: bool) -> io::Result<bool> {
    let address = if v6 { NOBODY_V6 } else { NOBODY_V4 };
    for mark in marks(v6)? {
        if is_local(address, mark)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The marks that rules of policy routing ask for.
fn marks(v6: bool) -> io::Result<Vec<u32>> {
    let mut marks = Vec::new();
    let request = message(RTM_GETRULE, REQUEST_DUMP, v6, 0, &[]);
    ask(&request, true, |_, attributes| {
        let found = each(attributes).find(|(kind, _)| *kind == FRA_FWMARK);
        let mark = found.and_then(|(_, value)| Some(u32::from_ne_bytes(value.try_into().ok()?)));
        marks.extend(mark.filter(|mark| *mark != 0));
    })?;
    Ok(marks)
}

fn is_local(address: IpAddr, mark: u32) -> io::Result<bool> {
    let (bytes, length) = match address {
        IpAddr::V4(ip) => (ip.octets().to_vec(), 32),
        IpAddr::V6(ip) => (ip.octets().to_vec(), 128),
    };
    let attributes = [(RTA_DST, bytes), (RTA_MARK, mark.to_ne_bytes().to_vec())];
    let request = message(RTM_GETROUTE, REQUEST, address.is_ipv6(), length, &attributes);
    let mut is_local = false;
    // rtm_type is the eighth byte of an rtmsg.
    ask(&request, false, |body, _| is_local = body.get(7) == Some(&RTN_LOCAL))?;
    Ok(is_local)
}

fn message(kind: u16, flags: u16, v6: bool, prefix: u8, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let mut message = vec![0; HEADER + BODY];
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[HEADER] = family.as_raw() as u8;
    message[HEADER + 1] = prefix;
    for (kind, value) in attributes {
        // All values here are multiples of four bytes long, so that none needs padding.
        message.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(value);
    }
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

/// Sends a request and tells the body and the attributes of each answer. An error of the kernel ends it; that there is no
/// route is none.
fn ask(request: &[u8], many: bool, mut tell: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
    // NETLINK_ROUTE is protocol 0, which is the default.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, request, SendFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = &buffer[..length.min(buffer.len())];
        while let Some((kind, message)) = next(&mut rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return refused(message),
                _ => {
                    let (body, attributes) = message.split_at(BODY.min(message.len()));
                    tell(body, attributes);
                    if !many {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn refused(message: &[u8]) -> io::Result<()> {
    let code = message.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    match -code {
        0 | libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// The next message: its kind, and what follows its header.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
    let message = rest.get(HEADER..length)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, message))
}

/// Attributes: kind and value.
fn each(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_host_is_local_and_nobodys_is_not() {
        assert!(is_local(Ipv4Addr::LOCALHOST.into(), 0).unwrap());
        assert!(!is_local(NOBODY_V4, 0).unwrap());
        assert!(!is_local(NOBODY_V6, 0).unwrap());
        // Asked, whatever the answer here.
        marks(false).unwrap();
        marks(true).unwrap();
    }

    #[test]
    fn answers_that_make_no_sense_are_passed_over() {
        for bytes in [&[][..], &[1, 2, 3], &[0; 16], &[255; 64], &[20, 0, 0, 0, 1, 0, 0, 0]] {
            let mut rest = bytes;
            while next(&mut rest).is_some() {}
            assert!(each(bytes).count() <= 16);
        }
    }
}
