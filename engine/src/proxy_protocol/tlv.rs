//! What a header of version 2 says besides addresses: values, each behind its kind and its length.

/// The longest unique id.
pub const MAX_UNIQUE_ID_BYTES: usize = 128;

pub(super) const ALPN: u8 = 0x01;
pub(super) const AUTHORITY: u8 = 0x02;
pub(super) const CRC32C: u8 = 0x03;
pub(super) const UNIQUE_ID: u8 = 0x05;
pub(super) const SSL: u8 = 0x20;
pub(super) const SSL_VERSION: u8 = 0x21;
pub(super) const SSL_COMMON_NAME: u8 = 0x22;
pub(super) const SSL_CIPHER: u8 = 0x23;
pub(super) const SSL_SIGNATURE_ALGORITHM: u8 = 0x24;
pub(super) const SSL_KEY_ALGORITHM: u8 = 0x25;
pub(super) const NETNS: u8 = 0x30;

pub(super) const CLIENT_SSL: u8 = 1;
pub(super) const CLIENT_CERTIFICATE_CONNECTION: u8 = 2;
pub(super) const CLIENT_CERTIFICATE_SESSION: u8 = 4;

/// The kinds that say one thing about the connection: twice is ambiguous.
pub(super) const ONCE: [u8; 6] = [ALPN, AUTHORITY, CRC32C, UNIQUE_ID, SSL, NETNS];

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tlv<'a> {
    /// The application protocol, such as `h2`.
    Alpn(&'a [u8]),
    /// The name that the client asked for: the server name of its ClientHello.
    Authority(&'a str),
    /// The checksum: verified when read; computed when written.
    Crc32c,
    /// Names the connection across proxies; at most [`MAX_UNIQUE_ID_BYTES`].
    UniqueId(&'a [u8]),
    /// The client's TLS.
    Ssl(Ssl<'a>),
    /// The network namespace.
    Netns(&'a str),
    /// Any other kind; also an authority or namespace that is no text.
    Other {
        /// Which kind.
        kind: u8,
        /// Its value, uninterpreted.
        value: &'a [u8],
    },
}

/// What the sender knows of the client's TLS. Texts that are absent, or are no text, are `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ssl<'a> {
    /// The client spoke TLS.
    pub is_tls: bool,
    /// The client gave a certificate on this connection.
    pub certificate_on_connection: bool,
    /// The client gave a certificate at least once in the TLS session that this connection belongs to.
    pub certificate_in_session: bool,
    /// The client gave a certificate, and it is good. HAProxy's field says "good" when there was none; this does not.
    pub verified: bool,
    /// Such as `TLSv1.3`.
    pub version: Option<&'a str>,
    /// The common name of the client's certificate.
    pub common_name: Option<&'a str>,
    /// Such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: Option<&'a str>,
    /// How the proxy's certificate is signed, such as `RSA-SHA256`.
    pub signature_algorithm: Option<&'a str>,
    /// The key of the proxy's certificate, such as `RSA2048`.
    pub key_algorithm: Option<&'a str>,
}

/// The values of a header, in the order in which they came. Lengths fit, and what may be there once is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tlvs(Box<[u8]>);

impl Tlvs {
    /// And where the checksum is, if there is one. Or what is wrong.
    pub(super) fn checked(bytes: &[u8]) -> Result<(Self, Option<usize>), &'static str> {
        let checksum_at = check(bytes)?;
        Ok((Self(bytes.into()), checksum_at))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Tlv<'_>> {
        raw(&self.0).map(|(kind, value)| Tlv::of(kind, value))
    }

    /// The value of the first of this kind.
    pub fn get(&self, kind: u8) -> Option<&[u8]> {
        raw(&self.0).find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The application protocol.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.get(ALPN)
    }

    /// The name that the client asked for, as it was sent; `None` also when it is no text.
    pub fn authority(&self) -> Option<&str> {
        text(self.get(AUTHORITY)?)
    }

    /// What names the connection across proxies.
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.get(UNIQUE_ID)
    }

    /// The client's TLS.
    pub fn ssl(&self) -> Option<Ssl<'_>> {
        Ssl::of(self.get(SSL)?)
    }

    /// The network namespace; `None` also when it is no text.
    pub fn netns(&self) -> Option<&str> {
        text(self.get(NETNS)?)
    }
}

impl std::fmt::Debug for Tlvs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Tlv<'a> {
    fn of(kind: u8, value: &'a [u8]) -> Self {
        let known = match kind {
            ALPN => Some(Self::Alpn(value)),
            AUTHORITY => text(value).map(Self::Authority),
            CRC32C => Some(Self::Crc32c),
            UNIQUE_ID => Some(Self::UniqueId(value)),
            SSL => Ssl::of(value).map(Self::Ssl),
            NETNS => text(value).map(Self::Netns),
            _ => None,
        };
        known.unwrap_or(Self::Other { kind, value })
    }
}

impl<'a> Ssl<'a> {
    fn of(value: &'a [u8]) -> Option<Self> {
        let (&[client, ref verify @ ..], inner) = value.split_first_chunk::<5>()?;
        let has = |flag| client & flag != 0;
        let of = |kind| raw(inner).find(|(found, _)| *found == kind).and_then(|(_, value)| text(value));
        let has_certificate = has(CLIENT_CERTIFICATE_CONNECTION | CLIENT_CERTIFICATE_SESSION);
        Some(Self {
            is_tls: has(CLIENT_SSL),
            certificate_on_connection: has(CLIENT_CERTIFICATE_CONNECTION),
            certificate_in_session: has(CLIENT_CERTIFICATE_SESSION),
            verified: has_certificate && *verify == [0; 4],
            version: of(SSL_VERSION),
            common_name: of(SSL_COMMON_NAME),
            cipher: of(SSL_CIPHER),
            signature_algorithm: of(SSL_SIGNATURE_ALGORITHM),
            key_algorithm: of(SSL_KEY_ALGORITHM),
        })
    }
}

/// Kind and value, as long as lengths fit.
fn raw(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, value, rest) = split(bytes)?;
        bytes = rest;
        Some((kind, value))
    })
}

fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [kind, high, low, rest @ ..] = bytes else { return None };
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((*kind, value, rest))
}

fn check(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut seen = [false; 256];
    let mut checksum_at = None;
    let mut unread = bytes;
    while !unread.is_empty() {
        let (kind, value, rest) = split(unread).ok_or("a TLV that goes beyond the header")?;
        let twice = std::mem::replace(&mut seen[usize::from(kind)], true);
        match kind {
            _ if twice && ONCE.contains(&kind) => return Err("a TLV twice"),
            CRC32C if value.len() != 4 => return Err("a checksum of the wrong length"),
            UNIQUE_ID if value.len() > MAX_UNIQUE_ID_BYTES => {
                return Err("a unique id of more than 128 bytes");
            }
            CRC32C => checksum_at = Some(bytes.len() - rest.len() - value.len()),
            SSL => check_ssl(value)?,
            _ => {}
        }
        unread = rest;
    }
    Ok(checksum_at)
}

fn check_ssl(value: &[u8]) -> Result<(), &'static str> {
    let mut inner = value.get(5..).ok_or("a TLV about TLS that is too short")?;
    let mut seen = [false; 256];
    while !inner.is_empty() {
        let (kind, _, rest) = split(inner).ok_or("a TLV that goes beyond the one around it")?;
        let twice = std::mem::replace(&mut seen[usize::from(kind)], true);
        if twice && (SSL_VERSION..=SSL_KEY_ALGORITHM).contains(&kind) {
            return Err("a TLV about TLS twice");
        }
        inner = rest;
    }
    Ok(())
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}
