//! As much of header compression (RFC 7541) as a health check needs. Writes without indexing and without Huffman; reads
//! where fields begin and end, and the few texts that it asks for.

/// Of the static table (RFC 7541 appendix A).
pub(super) const AUTHORITY: u64 = 1;
pub(super) const METHOD_POST: u64 = 3;
pub(super) const PATH: u64 = 4;
pub(super) const SCHEME_HTTP: u64 = 6;
pub(super) const SCHEME_HTTPS: u64 = 7;
pub(super) const STATUS_200: u64 = 8;
pub(super) const STATUS_500: u64 = 14;
pub(super) const CONTENT_TYPE: u64 = 31;

/// The statuses of the static table, from [`STATUS_200`] to [`STATUS_500`].
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// A field that is in the table as a whole.
pub(super) fn write_indexed(out: &mut Vec<u8>, index: u64) {
    write_number(out, 0x80, 7, index);
}

/// A field whose name is in the table.
pub(super) fn write_named(out: &mut Vec<u8>, name: u64, value: &[u8]) {
    write_number(out, 0, 4, name);
    write_text(out, value);
}

/// A field that is in no table.
pub(super) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0);
    write_text(out, name);
    write_text(out, value);
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    write_number(out, 0, 7, text.len() as u64);
    out.extend_from_slice(text);
}

/// A number behind the upper bits of its first byte (section 5.1).
fn write_number(out: &mut Vec<u8>, upper: u8, prefix: u32, number: u64) {
    let most = (1 << prefix) - 1;
    if number < most {
        out.push(upper | number as u8);
        return;
    }
    out.push(upper | most as u8);
    let mut rest = number - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// What the fields of one block say, as far as they are asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// `:status`.
    pub(super) status: Option<u16>,
    /// `grpc-status`.
    pub(super) grpc_status: Option<u16>,
}

/// Reads a block of fields; `None` when it is none. Knows no dynamic table: a field that is only there is passed over.
pub(super) fn read(mut block: &[u8]) -> Option<Fields> {
    let mut fields = Fields::default();
    while let [first, ..] = *block {
        let input = &mut block;
        if first & 0x80 != 0 {
            let index = read_number(input, 7)?;
            if let Some(status) = index.checked_sub(STATUS_200) {
                let status = usize::try_from(status).ok().and_then(|status| STATUSES.get(status));
                fields.status = status.copied().or(fields.status);
            }
            continue;
        }
        if first & 0xe0 == 0x20 {
            read_number(input, 5)?; // the size of the dynamic table
            continue;
        }
        let name = read_number(input, if first & 0x40 != 0 { 6 } else { 4 })?;
        let name = if name == 0 { Name::Text(read_text(input)?) } else { Name::Index(name) };
        let value = read_text(input)?;
        match name {
            Name::Index(STATUS_200..=STATUS_500) => fields.status = value.number(),
            Name::Text(name) if name.is_status() => fields.status = value.number(),
            Name::Text(name) if name.is_grpc_status() => fields.grpc_status = value.number(),
            Name::Index(_) | Name::Text(_) => {}
        }
    }
    Some(fields)
}

enum Name<'a> {
    Index(u64),
    Text(Text<'a>),
}

/// A text as it was written.
struct Text<'a> {
    is_huffman: bool,
    bytes: &'a [u8],
}

impl Text<'_> {
    fn is_status(&self) -> bool {
        self.bytes == if self.is_huffman { &b"\xb8\x84\x8d\x36\xa3"[..] } else { b":status" }
    }

    fn is_grpc_status(&self) -> bool {
        self.bytes == if self.is_huffman { &b"\x9a\xca\xc8\xb2\x12\x34\xda\x8f"[..] } else { b"grpc-status" }
    }

    /// Of one to three digits.
    fn number(&self) -> Option<u16> {
        let mut digits = Vec::new();
        if self.is_huffman {
            huffman_digits(self.bytes, &mut digits)?
        } else {
            digits.extend_from_slice(self.bytes)
        }
        let plain = digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(&digits).ok().filter(|_| plain)?.parse().ok()
    }
}

/// Of the Huffman code (appendix B) only the digits: `0` to `2` have five bits, the others six.
fn huffman_digits(bytes: &[u8], digits: &mut Vec<u8>) -> Option<()> {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    while digits.len() <= 3 {
        let mut code = 0;
        let mut length = 0;
        let digit = loop {
            let Some(bit) = bits.next() else {
                // Less than a byte of ones fills the last byte.
                return (code + 1 == 1 << length).then_some(());
            };
            code = code << 1 | bit;
            length += 1;
            match (length, code) {
                (5, 0..=2) => break code,
                (6, 0b01_1001..=0b01_1111) => break code - 0b01_1001 + 3,
                (8.., _) => return None,
                _ => {}
            }
        };
        digits.push(b'0' + digit);
    }
    None
}

/// A number behind the upper bits of its first byte (section 5.1), within reason.
fn read_number(input: &mut &[u8], prefix: u32) -> Option<u64> {
    let (first, mut rest) = input.split_first()?;
    let most = (1_u8 << prefix) - 1;
    let mut number = u64::from(first & most);
    if number == u64::from(most) {
        let mut shift = 0;
        loop {
            let (byte, behind) = rest.split_first()?;
            rest = behind;
            if shift > 28 {
                return None;
            }
            number += u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *input = rest;
    Some(number)
}

fn read_text<'a>(input: &mut &'a [u8]) -> Option<Text<'a>> {
    let is_huffman = input.first()? & 0x80 != 0;
    let length = usize::try_from(read_number(input, 7)?).ok()?;
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(Text { is_huffman, bytes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(status: Option<u16>, grpc_status: Option<u16>) -> Option<Fields> {
        Some(Fields { status, grpc_status })
    }

    #[test]
    fn numbers_as_in_the_rfc() {
        for (number, prefix, bytes) in [(10, 5, &[0b01010][..]), (1337, 5, &[31, 154, 10]), (42, 8, &[42])] {
            let mut out = Vec::new();
            write_number(&mut out, 0, prefix, number);
            assert_eq!(out, bytes, "appendix C.1");
        }
        assert_eq!(read_number(&mut &[31, 154, 10][..], 5), Some(1337));
        assert_eq!(read_number(&mut &[0xff; 20][..], 5), None, "without an end");
    }

    #[test]
    fn what_servers_say() {
        // grpc-go: literals with indexing, names by Huffman.
        assert_eq!(
            read(b"\x88\x5f\x8b\x1d\x75\xd0\x62\x0d\x26\x3d\x4c\x4d\x65\x64"),
            fields(Some(200), None)
        );
        assert_eq!(read(b"\x40\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x010"), fields(None, Some(0)));
        assert_eq!(read(b"\x40\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x0212"), fields(None, Some(12)));
        // Digits by Huffman, as some always do.
        assert_eq!(read(b"\x00\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x81\x07"), fields(None, Some(0)));
        assert_eq!(read(b"\x00\x0bgrpc-status\x82\x08\xbf"), fields(None, Some(12)));
        assert_eq!(read(b"\x48\x82\x10\x01"), fields(Some(200), None));
        assert_eq!(read(b"\x48\x82\x6c\x0f"), fields(None, None), "no digits");
        // Sizes of a table, and a field of a table that is not kept.
        assert_eq!(read(b"\x20\x3f\xe1\x1f\xbe\x8d"), fields(Some(404), None));
        assert_eq!(read(b"\x08\x03503"), fields(Some(503), None));
        assert_eq!(read(b"\x00\x07:status\x03302"), fields(Some(302), None));
    }

    #[test]
    fn a_block_that_ends_within_a_field_is_none() {
        let block = b"\x40\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x0212";
        for length in 1..block.len() {
            assert_eq!(read(&block[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn numbers_come_back(number in 0_u64..1 << 28, prefix in 4_u32..8, upper in any::<u8>()) {
            let mut out = Vec::new();
            write_number(&mut out, upper & !((1_u8 << prefix) - 1), prefix, number);
            let mut input = &out[..];
            prop_assert_eq!(read_number(&mut input, prefix), Some(number));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn fields_come_back(status in 100_u16..1000, grpc_status in 0_u16..1000, name in "[a-z]{1,200}") {
            let mut out = Vec::new();
            write_named(&mut out, STATUS_200, status.to_string().as_bytes());
            write_indexed(&mut out, METHOD_POST);
            write_field(&mut out, name.as_bytes(), b"x");
            write_field(&mut out, b"grpc-status", grpc_status.to_string().as_bytes());
            prop_assert_eq!(read(&out), fields(Some(status), Some(grpc_status)));
        }

        #[test]
        fn never_panics(block in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(&block);
        }
    }
}
