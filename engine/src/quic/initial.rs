//! The ClientHello in a client's first packets.

use rustls::{
    Side,
    crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    quic::{DirectionalKeys, Version},
};

use super::header::{ConnectionId, Cursor, Kind, Long, V1, V2, long, longs};
use crate::client_hello::{self, ClientHello, MAX_HELLO_BYTES};

/// What the datagrams so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniff {
    /// The start of something that may become a hello.
    NeedMore,
    /// A whole hello.
    Hello(Box<ClientHello>),
    /// Not QUIC, or of a version whose first packets cannot be read.
    NotQuic,
    /// QUIC, but nothing that anyone should answer.
    Malformed,
    /// Longer than [`MAX_HELLO_BYTES`].
    TooLarge,
}

/// Puts a ClientHello together from one client's datagrams, whatever order they come in.
#[derive(Default)]
pub struct InitialSniffer {
    /// Of the connection id that the client made up for its first packet.
    keys: Option<(ConnectionId, DirectionalKeys)>,
    crypto: Vec<u8>,
    /// What of `crypto` is there: ranges in order that do not touch.
    there: Vec<(usize, usize)>,
    saw_early_data: bool,
}

impl std::fmt::Debug for InitialSniffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InitialSniffer").field("there", &self.there).finish_non_exhaustive()
    }
}

impl InitialSniffer {
    /// Takes the next datagram of the client.
    pub fn feed(&mut self, datagram: &[u8]) -> Sniff {
        match long(datagram) {
            Some(first) if matches!(first.kind, Kind::Initial | Kind::ZeroRtt) => {}
            // In the middle of a hello anything may come, late or early.
            Some(_) | None if self.keys.is_some() || self.saw_early_data => return self.hello(),
            Some(_) | None => return Sniff::NotQuic,
        }
        for (header, packet) in longs(datagram) {
            match header.kind {
                Kind::ZeroRtt => self.saw_early_data = true,
                Kind::Initial => match self.take(&header, packet) {
                    Ok(()) => {}
                    Err(why) => return why,
                },
                _ => {}
            }
        }
        self.hello()
    }

    fn take(&mut self, header: &Long, packet: &[u8]) -> Result<(), Sniff> {
        let known = self.keys.as_ref().and_then(|(_, keys)| open(keys, header, packet));
        let payload = match known {
            Some(payload) => payload,
            None => {
                // The first packet, or the first after a Retry, which makes the client begin anew with another id.
                let keys = keys(header.version, &header.destination).ok_or(Sniff::NotQuic)?;
                let payload = open(&keys, header, packet).ok_or(Sniff::Malformed)?;
                self.keys = Some((header.destination, keys));
                self.crypto.clear();
                self.there.clear();
                payload
            }
        };
        self.frames(&payload)
    }

    /// RFC 9000 section 12.4: the frames that an Initial may hold.
    fn frames(&mut self, payload: &[u8]) -> Result<(), Sniff> {
        let mut cursor = Cursor { bytes: payload, at: 0 };
        while cursor.at < payload.len() {
            self.frame(&mut cursor)?;
        }
        Ok(())
    }

    fn frame(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Sniff> {
        let number = |cursor: &mut Cursor<'_>| cursor.number().ok_or(Sniff::Malformed);
        match number(cursor)? {
            // Padding, ping.
            0 | 1 => {}
            // Acknowledgements.
            kind @ (2 | 3) => {
                number(cursor)?;
                number(cursor)?;
                let ranges = number(cursor)?;
                number(cursor)?;
                for _ in 0..ranges {
                    number(cursor)?;
                    number(cursor)?;
                }
                if kind == 3 {
                    for _ in 0..3 {
                        number(cursor)?;
                    }
                }
            }
            // CRYPTO.
            6 => {
                let offset = usize::try_from(number(cursor)?).map_err(|_| Sniff::TooLarge)?;
                let length = usize::try_from(number(cursor)?).map_err(|_| Sniff::Malformed)?;
                let data = cursor.take(length).ok_or(Sniff::Malformed)?;
                return self.insert(offset, data);
            }
            // CONNECTION_CLOSE.
            0x1c => {
                number(cursor)?;
                number(cursor)?;
                let reason = usize::try_from(number(cursor)?).map_err(|_| Sniff::Malformed)?;
                cursor.take(reason).ok_or(Sniff::Malformed)?;
            }
            _ => return Err(Sniff::Malformed),
        }
        Ok(())
    }

    fn insert(&mut self, offset: usize, data: &[u8]) -> Result<(), Sniff> {
        let end =
            offset.checked_add(data.len()).filter(|end| *end <= MAX_HELLO_BYTES).ok_or(Sniff::TooLarge)?;
        if data.is_empty() {
            return Ok(());
        }
        if self.crypto.len() < end {
            self.crypto.resize(end, 0);
        }
        // What is there stays: a second version of the same bytes could only be there to mislead.
        for (at, byte) in (offset..end).zip(data) {
            if !self.there.iter().any(|(from, to)| (*from..*to).contains(&at))
                && let Some(place) = self.crypto.get_mut(at)
            {
                *place = *byte;
            }
        }
        let (mut from, mut to) = (offset, end);
        self.there.retain(|(a, b)| {
            let is_apart = *b < from || *a > to;
            if !is_apart {
                (from, to) = (from.min(*a), to.max(*b));
            }
            is_apart
        });
        let place = self.there.partition_point(|(a, _)| *a < from);
        self.there.insert(place, (from, to));
        // A hello in so many pieces that do not touch is there to cost.
        if self.there.len() > MAX_PIECES { Err(Sniff::Malformed) } else { Ok(()) }
    }

    fn hello(&self) -> Sniff {
        let Some((0, end)) = self.there.first() else { return Sniff::NeedMore };
        match client_hello::sniff_message(self.crypto.get(..*end).unwrap_or_default()) {
            client_hello::Sniff::Hello(hello) => Sniff::Hello(Box::new(hello)),
            client_hello::Sniff::NeedMore => Sniff::NeedMore,
            client_hello::Sniff::TooLarge => Sniff::TooLarge,
            client_hello::Sniff::NotTls | client_hello::Sniff::Malformed => Sniff::Malformed,
        }
    }
}

/// Chrome sends its hello in a dozen pieces.
const MAX_PIECES: usize = 64;

fn keys(version: u32, id: &ConnectionId) -> Option<DirectionalKeys> {
    let version = match version {
        V1 => Version::V1,
        V2 => Version::V2,
        _ => return None,
    };
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
    Some(suite.keys(id.as_bytes(), Side::Server, version).remote)
}

/// Takes off header protection and encryption (RFC 9001 section 5). `None`: the keys do not fit.
fn open(keys: &DirectionalKeys, header: &Long, packet: &[u8]) -> Option<Vec<u8>> {
    const NUMBER: usize = 4;
    let mut packet = packet.to_vec();
    let sample_at = header.number_at + NUMBER;
    let sample = packet.get(sample_at..sample_at + keys.header.sample_len())?.to_vec();
    let (head, tail) = packet.split_at_mut_checked(header.number_at)?;
    let first = head.first_mut()?;
    keys.header.decrypt_in_place(&sample, first, tail.get_mut(..NUMBER)?).ok()?;
    let length = usize::from(*first & 3) + 1;
    let number = tail.get(..length)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let (associated, payload) = packet.split_at_mut_checked(header.number_at + length)?;
    let opened = keys.packet.decrypt_in_place(number, associated, payload).ok()?;
    Some(opened.to_vec())
}
