//! Reads the server name out of a TLS ClientHello without speaking TLS (RFC 8446 section 4.1.2, RFC 6066 section 3).
//!
//! Works on what has arrived so far: a hello may come in many segments and in many records.

/// The longest hello that is waited for, records' headers included.
pub const MAX_HELLO_BYTES: usize = 16 * 1024 + 1024;

const RECORD_HEADER: usize = 5;
const MAX_RECORD: usize = 16 * 1024;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// A server name: lower case, without a trailing dot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ServerName {
    bytes: [u8; 253],
    length: u8,
}

impl ServerName {
    /// Folds case and one trailing dot. `None` when it is no host name: those are never compared.
    pub fn new(raw: &[u8]) -> Option<Self> {
        let raw = raw.strip_suffix(b".").unwrap_or(raw);
        let mut name = Self { bytes: [0; 253], length: u8::try_from(raw.len()).ok()? };
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if raw.is_empty() || raw.len() > name.bytes.len() || !raw.iter().all(plain) {
            return None;
        }
        name.bytes[..raw.len()].copy_from_slice(raw);
        name.bytes.make_ascii_lowercase();
        Some(name)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl std::fmt::Debug for ServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The application protocols that a client offers (RFC 7301).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Alpn {
    /// Names with their lengths before them, as they were sent.
    bytes: [u8; 255],
    length: u8,
}

impl Alpn {
    /// None are offered.
    pub const EMPTY: Self = Self { bytes: [0; 255], length: 0 };

    /// Names with their lengths before them. Of a list that is longer than any sensible one, what comes first.
    pub fn of_list(list: &[u8]) -> Self {
        let mut alpn = Self::EMPTY;
        let mut end = 0;
        while let Some(length) = list.get(end) {
            let next = end + 1 + usize::from(*length);
            if next > list.len().min(alpn.bytes.len()) {
                break;
            }
            end = next;
        }
        alpn.bytes[..end].copy_from_slice(&list[..end]);
        alpn.length = end as u8;
        alpn
    }

    /// In the order of the client's preference.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut reader = Reader(&self.bytes[..usize::from(self.length)]);
        std::iter::from_fn(move || reader.vector8())
    }

    /// Whether this one is offered, and nothing else.
    pub fn is_only(&self, protocol: &str) -> bool {
        self.iter().eq([protocol.as_bytes()])
    }

    /// Whether this one is offered.
    pub fn offers(&self, protocol: &str) -> bool {
        self.iter().any(|offered| offered == protocol.as_bytes())
    }
}

impl std::fmt::Debug for Alpn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(String::from_utf8_lossy)).finish()
    }
}

/// What a hello says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHello {
    /// `None`: no server name, or one that is no host name.
    pub server_name: Option<ServerName>,
    /// What the client would speak.
    pub alpn: Alpn,
}

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for a moment; a box would cost an allocation a connection"
)]
pub enum Sniff {
    /// The start of something that may become a hello.
    NeedMore,
    /// A whole hello.
    Hello(ClientHello),
    /// Not TLS at all.
    NotTls,
    /// TLS, but not a hello that anyone should answer.
    Malformed,
    /// Longer than [`MAX_HELLO_BYTES`].
    TooLarge,
}

/// Looks at everything that has arrived so far.
pub fn sniff(bytes: &[u8]) -> Sniff {
    let mut assembled: Vec<u8> = Vec::new();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some((record, complete)) = record(rest) else {
            return if starts_like_a_record(rest) {
                need_more(bytes)
            } else if at == 0 {
                Sniff::NotTls
            } else {
                Sniff::Malformed
            };
        };
        // One record is the rule: then nothing is copied.
        let handshake = if assembled.is_empty() && at == 0 {
            record
        } else {
            assembled.extend_from_slice(record);
            &assembled
        };
        match message(handshake) {
            Message::Whole(body) => return parse(body).map_or(Sniff::Malformed, Sniff::Hello),
            Message::Wrong => return Sniff::Malformed,
            Message::Partial if !complete => return need_more(bytes),
            Message::Partial => {}
        }
        if at == 0 {
            assembled.extend_from_slice(record);
        }
        at += RECORD_HEADER + record.len();
        if assembled.len() > MAX_HELLO_BYTES {
            return Sniff::TooLarge;
        }
    }
}

/// Looks at a handshake message without records, as far as it is there: what QUIC carries.
pub fn sniff_message(bytes: &[u8]) -> Sniff {
    match message(bytes) {
        Message::Whole(body) => parse(body).map_or(Sniff::Malformed, Sniff::Hello),
        Message::Wrong => Sniff::Malformed,
        Message::Partial => need_more(bytes),
    }
}

fn need_more(bytes: &[u8]) -> Sniff {
    if bytes.len() >= MAX_HELLO_BYTES { Sniff::TooLarge } else { Sniff::NeedMore }
}

/// Less than a handshake record's header, and nothing in it that could not become one.
fn starts_like_a_record(bytes: &[u8]) -> bool {
    let holds = |at: usize, wanted: fn(u8) -> bool| bytes.get(at).is_none_or(|b| wanted(*b));
    bytes.len() < RECORD_HEADER && holds(0, |b| b == HANDSHAKE) && holds(1, |b| b == 3)
}

/// The payload of the first record as far as it is there, and whether that is all of it.
fn record(bytes: &[u8]) -> Option<(&[u8], bool)> {
    // The minor version "MUST be ignored for all purposes" (RFC 8446 section 5.1), and TLS libraries do: who looked at
    // it would route by no name what the backend answers by its name.
    let [HANDSHAKE, 3, _, high, low, rest @ ..] = bytes else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length == 0 || length > MAX_RECORD {
        return None;
    }
    Some(rest.get(..length).map_or((rest, false), |whole| (whole, true)))
}

enum Message<'a> {
    Whole(&'a [u8]),
    Partial,
    Wrong,
}

fn message(handshake: &[u8]) -> Message<'_> {
    match handshake {
        [] => Message::Partial,
        [kind, ..] if *kind != CLIENT_HELLO => Message::Wrong,
        [_, a, b, c, body @ ..] => {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if length > MAX_HELLO_BYTES {
                return Message::Wrong;
            }
            body.get(..length).map_or(Message::Partial, Message::Whole)
        }
        _ => Message::Partial,
    }
}

/// The body of a ClientHello. `None` when lengths do not fit.
fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    let version = reader.take(2)?;
    if version[0] != 3 {
        return None;
    }
    reader.take(32)?; // random
    reader.vector8()?; // legacy_session_id
    let suites = reader.vector16()?;
    if suites.is_empty() || suites.len() % 2 != 0 {
        return None;
    }
    reader.vector8()?; // legacy_compression_methods
    let mut hello = ClientHello { server_name: None, alpn: Alpn::EMPTY };
    if reader.0.is_empty() {
        return Some(hello); // TLS 1.2 without extensions
    }
    let mut extensions = Reader(reader.vector16()?);
    if !reader.0.is_empty() {
        return None;
    }
    let mut seen_name = false;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector16()?;
        match kind {
            // Twice is ambiguous: what we route by must be what a backend would see.
            SERVER_NAME if seen_name => return None,
            SERVER_NAME => {
                seen_name = true;
                hello.server_name = ServerName::new(server_name(data)?);
            }
            ALPN if hello.alpn != Alpn::EMPTY => return None,
            ALPN => hello.alpn = Alpn::of_list(protocols(data)?),
            _ => {}
        }
    }
    Some(hello)
}

/// ServerNameList: the one entry of type host_name.
fn server_name(data: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.vector16()?);
    if !reader.0.is_empty() {
        return None;
    }
    let kind = list.take(1)?[0];
    let name = list.vector16()?;
    (kind == 0 && list.0.is_empty()).then_some(name)
}

/// ProtocolNameList: names of at least one byte.
fn protocols(data: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(data);
    let list = reader.vector16()?;
    let mut names = Reader(list);
    while !names.0.is_empty() {
        if names.vector8()?.is_empty() {
            return None;
        }
    }
    (reader.0.is_empty() && !list.is_empty()).then_some(list)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.take(1)?[0]);
        self.take(length)
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// A real hello, as rustls writes it (with a post-quantum key share, larger than a segment).
    fn hello(name: &str, alpn: bool) -> Vec<u8> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768];
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        if alpn {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let name = name.to_owned().try_into().expect("a name");
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).expect("a hello");
        bytes
    }

    /// The same hello in records of `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in hello[RECORD_HEADER..].chunks(size) {
            out.extend_from_slice(&[HANDSHAKE, 3, 1]);
            out.extend_from_slice(&u16::try_from(piece.len()).expect("a short piece").to_be_bytes());
            out.extend_from_slice(piece);
        }
        out
    }

    fn name_of(sniff: Sniff) -> Option<String> {
        match sniff {
            Sniff::Hello(hello) => hello.server_name.map(|name| name.as_str().to_owned()),
            other => panic!("not a hello: {other:?}"),
        }
    }

    #[test]
    fn one_byte_at_a_time() {
        let bytes = hello("App.Example.com", true);
        assert!(bytes.len() > 1400, "post-quantum size");
        for length in 0..bytes.len() {
            assert_eq!(sniff(&bytes[..length]), Sniff::NeedMore, "after {length} bytes");
        }
        assert_eq!(name_of(sniff(&bytes)).as_deref(), Some("app.example.com"));
    }

    #[test]
    fn many_records_and_segments() {
        let bytes = hello("app.example.com", false);
        for size in [1, 3, 100, 700] {
            let records = in_records(&bytes, size);
            if records.len() > MAX_HELLO_BYTES {
                continue;
            }
            for length in 0..records.len() {
                assert_eq!(sniff(&records[..length]), Sniff::NeedMore, "{size}: after {length}");
            }
            assert_eq!(name_of(sniff(&records)).as_deref(), Some("app.example.com"));
        }
    }

    #[test]
    fn what_is_not_tls_is_known_at_the_first_byte() {
        for bytes in [&b"GET / HTTP/1.1"[..], b"\x16\x04", b"\x17\x03\x03", b"SSH-2.0"] {
            assert_eq!(sniff(bytes), Sniff::NotTls, "{bytes:?}");
        }
        assert_eq!(sniff(b""), Sniff::NeedMore);
    }

    #[test]
    fn a_record_of_an_odd_minor_version_does_not_hide_the_name() {
        let mut bytes = hello("app.example.com", false);
        bytes[2] = 0x84;
        assert_eq!(name_of(sniff(&bytes)).as_deref(), Some("app.example.com"));
        assert_eq!(sniff(&bytes[..4]), Sniff::NeedMore);
    }

    #[test]
    fn lengths_that_lie_are_malformed() {
        let mut bytes = hello("app.example.com", false);
        let at = bytes.windows(15).position(|w| w == b"app.example.com").expect("the name");
        bytes[at - 1] = 200;
        assert_eq!(sniff(&bytes), Sniff::Malformed);
    }

    #[test]
    fn huge_hellos_end() {
        let mut bytes = vec![HANDSHAKE, 3, 1, 0x40, 0, CLIENT_HELLO, 0, 0x43, 0];
        bytes.resize(MAX_HELLO_BYTES, 0);
        assert!(matches!(sniff(&bytes), Sniff::TooLarge | Sniff::Malformed));
    }

    #[test]
    fn agrees_with_an_independent_parser() {
        for name in ["a.b", "xn--bcher-kva.example", "a-very-long-label-0123456789.example.com"] {
            let bytes = hello(name, true);
            let (_, record) = tls_parser::parse_tls_plaintext(&bytes).expect("a record");
            let tls_parser::TlsMessage::Handshake(tls_parser::TlsMessageHandshake::ClientHello(theirs)) =
                &record.msg[0]
            else {
                panic!("a hello")
            };
            let (_, extensions) =
                tls_parser::parse_tls_extensions(theirs.ext.expect("extensions")).expect("extensions");
            let theirs = extensions.iter().find_map(|extension| match extension {
                tls_parser::TlsExtension::SNI(names) => Some(names[0].1.to_vec()),
                _ => None,
            });
            assert_eq!(name_of(sniff(&bytes)).map(String::into_bytes), theirs);
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), as_tls in any::<bool>()) {
            let mut bytes = bytes;
            if as_tls && bytes.len() > 6 {
                bytes[..3].copy_from_slice(&[22, 3, 1]);
                bytes[5] = 1;
            }
            let _ = sniff(&bytes);
        }

        #[test]
        fn damaged_hellos_never_panic_and_never_shrink(at in 0usize..1500, byte in any::<u8>(), cut in 0usize..1600) {
            let mut bytes = hello("app.example.com", true);
            let at = at % bytes.len();
            bytes[at] = byte;
            let whole = sniff(&bytes);
            let part = sniff(&bytes[..cut.min(bytes.len())]);
            // What is said of a part is never taken back.
            if part != Sniff::NeedMore {
                prop_assert_eq!(part, whole);
            }
        }
    }
}
