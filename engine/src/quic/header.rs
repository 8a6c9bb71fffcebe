//! Packet headers: what is before the encrypted part.

/// The longest connection id of versions 1 and 2.
pub(super) const MAX_ID: usize = 20;
pub(super) const V1: u32 = 1;
pub(super) const V2: u32 = 0x6b33_43cf;

/// A connection id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    bytes: [u8; MAX_ID],
    length: u8,
}

impl ConnectionId {
    /// `None` when it is longer than ids are.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut id = Self { bytes: [0; MAX_ID], length: u8::try_from(bytes.len()).ok()? };
        id.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(id)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl std::fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a packet with a long header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Initial,
    ZeroRtt,
    Handshake,
    Retry,
    VersionNegotiation,
    /// Of a version that is not known here: only the ids are (RFC 8999).
    Unknown,
}

/// A packet with a long header at the start of some bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Long {
    pub(super) version: u32,
    pub(super) kind: Kind,
    pub(super) destination: ConnectionId,
    pub(super) source: ConnectionId,
    /// Where the packet number begins, and where the packet ends.
    pub(super) number_at: usize,
    pub(super) end: usize,
}

/// A cursor that never goes beyond the end.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// RFC 9000 section 16.
    pub(super) fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        let more = self.take((1 << (first >> 6)) - 1)?;
        Some(more.iter().fold(u64::from(first & 0x3f), |number, byte| number << 8 | u64::from(*byte)))
    }

    fn id(&mut self) -> Option<ConnectionId> {
        let length = usize::from(self.byte()?);
        ConnectionId::new(self.take(length)?)
    }
}

/// `None`: there is no long header, or lengths lie.
pub(super) fn long(bytes: &[u8]) -> Option<Long> {
    let mut cursor = Cursor { bytes, at: 0 };
    let first = cursor.byte()?;
    if first & 0x80 == 0 {
        return None;
    }
    let version = u32::from_be_bytes(cursor.take(4)?.try_into().ok()?);
    let (destination, source) = (cursor.id()?, cursor.id()?);
    let kind = match (version, first >> 4 & 3) {
        (0, _) => Kind::VersionNegotiation,
        (V1, 0) | (V2, 1) => Kind::Initial,
        (V1, 1) | (V2, 2) => Kind::ZeroRtt,
        (V1, 2) | (V2, 3) => Kind::Handshake,
        (V1, _) | (V2, _) => Kind::Retry,
        _ => Kind::Unknown,
    };
    let (number_at, end) = match kind {
        Kind::Initial | Kind::ZeroRtt | Kind::Handshake => {
            if kind == Kind::Initial {
                let token = cursor.number()?;
                cursor.take(usize::try_from(token).ok()?)?;
            }
            let length = usize::try_from(cursor.number()?).ok()?;
            let number_at = cursor.at;
            cursor.take(length)?;
            (number_at, cursor.at)
        }
        Kind::Retry | Kind::VersionNegotiation | Kind::Unknown => (cursor.at, bytes.len()),
    };
    Some(Long { version, kind, destination, source, number_at, end })
}

/// The packets of a datagram that have long headers.
pub(super) fn longs(datagram: &[u8]) -> impl Iterator<Item = (Long, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = long(rest)?;
        let (packet, more) = rest.split_at_checked(header.end)?;
        rest = more;
        Some((header, packet))
    })
}

/// The ids that the sender of a datagram asks to be called by, as packets with long headers say.
pub fn source_ids(datagram: &[u8]) -> impl Iterator<Item = ConnectionId> {
    let says = |header: &Long| !matches!(header.kind, Kind::VersionNegotiation | Kind::Unknown);
    longs(datagram).map(|(header, _)| header).filter(says).map(|header| header.source)
}

/// Whom a datagram is for. A short header does not say how long the id is, and its fixed bit may be either (RFC 9287).
pub fn destination_id(datagram: &[u8], short_length: usize) -> Option<ConnectionId> {
    match datagram.first()? {
        first if first & 0x80 != 0 => long(datagram).map(|header| header.destination),
        _ => ConnectionId::new(datagram.get(1..1 + short_length)?),
    }
}
