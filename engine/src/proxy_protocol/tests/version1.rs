//! Lines.

use super::*;

#[test]
fn lines_of_version_1() {
    for (line, source, destination) in [
        ("TCP4 192.168.0.1 192.168.0.11 56324 443", "192.168.0.1:56324", "192.168.0.11:443"),
        (
            "TCP4 255.255.255.255 255.255.255.255 65535 65535",
            "255.255.255.255:65535",
            "255.255.255.255:65535",
        ),
        ("TCP4 0.0.0.0 1.2.3.4 0 1", "0.0.0.0:0", "1.2.3.4:1"),
        ("TCP6 ::1 ::1 45218 21002", "[::1]:45218", "[::1]:21002"),
        ("TCP6 2001:DB8::7 2001:db8:0:0::0001 1 2", "[2001:db8::7]:1", "[2001:db8::1]:2"),
        // HAProxy between families.
        ("TCP6 ::ffff:192.0.2.1 ::1 38772 21007", "192.0.2.1:38772", "[::1]:21007"),
        ("TCP6 2001:db8::7 ::ffff:127.0.0.1 52374 21010", "[2001:db8::7]:52374", "127.0.0.1:21010"),
    ] {
        let header = whole(format!("PROXY {line}\r\n").as_bytes());
        assert_eq!(ends(&header), Some((source.to_owned(), destination.to_owned())), "{line}");
        assert_eq!((header.version, header.is_local, header.is_datagram), (Version::V1, false, false));
        assert_eq!(header.tlvs.iter().count(), 0);
    }
}

#[test]
fn what_follows_unknown_is_ignored() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
    assert_eq!(longest.len(), MAX_V1_BYTES);
    for line in
        ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN \r\n", "PROXY UNKNOWN 1  2 \0\u{fc}\r\n", longest.as_str()]
    {
        assert_eq!(ends(&whole(line.as_bytes())), None, "{line}");
    }
}

#[test]
fn lines_that_are_nearly_right() {
    for line in [
        "TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "TCP4 1.2.3.4 5.6.7.8 1  2\r\n",
        "TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "TCP4 1.2.3.4\t5.6.7.8 1 2\r\n",
        "TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "TCP4 1.2.3.4 5.6.7.8 1 \r\n",
        "TCP4\r\n",
        "TCP4 \r\n",
        "TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "TCP4 1.2.3.4 5.6.7.8 00 2\r\n",
        "TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        "TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
        "TCP4 1.2.3.4 5.6.7.8 1 0x2\r\n",
        "TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
        "TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
        "TCP4 1.2.3 5.6.7.8 1 2\r\n",
        "TCP4 ::1 ::1 1 2\r\n",
        "TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "TCP6 ::1%lo ::1 1 2\r\n",
        "TCP6 [::1] ::1 1 2\r\n",
        "TCP6 1::2::3 ::1 1 2\r\n",
        "TCP6 00001::2 ::1 1 2\r\n",
        "TCP4 1.2.3.4 5.6.7.8 1 \u{662}\r\n",
        "TCP4 1.2.3.4 5.6.7.8 1 2\n",
        "TCP4 1.2.3.4 5.6.7.8 1 2\rX",
        "TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n",
        "UNKNOWN\n",
        "UNKNOWNX\r\n",
        "UNKNOWN a\rb\r\n",
        "TCP5 ",
        "UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        " TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "\r\n",
    ] {
        malformed(format!("PROXY {line}").as_bytes());
    }
    assert_eq!(malformed(b"PROXY UDP"), "neither TCP4, TCP6 nor UNKNOWN");
}

#[test]
fn a_line_has_107_bytes_at_most() {
    for line in [format!("PROXY UNKNOWN {}", "f".repeat(93)), format!("PROXY TCP6 {}", "f".repeat(96))] {
        assert_eq!(parse(&line.as_bytes()[..MAX_V1_BYTES - 1]), Parsed::NeedMore);
        assert_eq!(malformed(&line.as_bytes()[..MAX_V1_BYTES]), "a line of more than 107 bytes");
        assert_eq!(malformed(format!("{line}\r\n").as_bytes()), "a line of more than 107 bytes");
    }
    // Its CR is the last byte that may come, then no LF can.
    let line = format!("PROXY UNKNOWN {}\r\n", "f".repeat(92));
    assert_eq!(malformed(&line.as_bytes()[..MAX_V1_BYTES]), "a line of more than 107 bytes");
}
