//! Bytes as psql 15, PostgreSQL 15, OpenSSL and libldap sent them, and whatever else may come.

use proptest::prelude::*;

use super::*;

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSSENC_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
const PSQL_STARTUP: &[u8] = b"\0\0\0\x37\0\x03\0\0user\0alice\0database\0app\0application_name\0psql\0\0";
const PSQL_CANCEL: &[u8] = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\x66\xb8\xed\xf5\xde\xaa";
const SERVER_GREETING: &[u8] = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x1aapplication_name\0psql\0\
    S\0\0\0\x19client_encoding\0UTF8\0S\0\0\0\x17DateStyle\0ISO, MDY\0S\0\0\0\x15TimeZone\0Etc/UTC\0\
    K\0\0\0\x0c\0\0\x66\xb8\xed\xf5\xde\xaaZ\0\0\0\x05I";
const OPENSSL_START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const LIBLDAP_SEARCH: &[u8] =
    b"\x30\x29\x02\x01\x02\x63\x24\x04\x04dc=x\x0a\x01\0\x0a\x01\0\x02\x01\0\x02\x01\0\
    \x01\x01\0\x87\x0bobjectclass0\0";
/// What OpenLDAP says: yes, without a name.
const SLAPD_YES: &[u8] = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\0\x04\0\x04\0";

fn postgres(bytes: &[u8]) -> Read {
    read(Preamble::Postgres, bytes)
}

fn ldap(bytes: &[u8]) -> Read {
    read(Preamble::Ldap, bytes)
}

/// What it says of the whole, after it asked for more at each byte.
fn whole(kind: Preamble, bytes: &[u8]) -> Read {
    for length in 0..bytes.len() {
        assert_eq!(read(kind, &bytes[..length]), Read::NeedMore, "{length} of {bytes:02x?}");
    }
    read(kind, bytes)
}

fn is_malformed(read: &Read) -> bool {
    matches!(read, Read::Malformed(_))
}

/// A first message with this code.
fn message(code: [u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).expect("short").to_be_bytes();
    [&length[..], &code, body].concat()
}

fn startup(body: &[u8]) -> Read {
    postgres(&message([0, 3, 0, 0], body))
}

#[test]
fn postgres_asks_for_tls() {
    let expected = Read::StartTls { length: 8, answer: b"S".to_vec(), refusal: b"N".to_vec() };
    assert_eq!(whole(Preamble::Postgres, SSL_REQUEST), expected);
    assert_eq!(request(Preamble::Postgres), SSL_REQUEST);
    assert_eq!(postgres(b"\x16"), Read::Tls, "direct");
}

#[test]
fn what_comes_before_the_answer_is_refused() {
    for behind in [&b"\x16\x03\x01"[..], PSQL_STARTUP, b"\0"] {
        assert_eq!(postgres(&[SSL_REQUEST, behind].concat()), Read::Malformed(TOO_EARLY));
        assert_eq!(ldap(&[OPENSSL_START_TLS, behind].concat()), Read::Malformed(TOO_EARLY));
        assert_eq!(answer(Preamble::Postgres, &[b"S", behind].concat()), Answer::Malformed(TOO_EARLY));
        assert_eq!(answer(Preamble::Ldap, &[SLAPD_YES, behind].concat()), Answer::Malformed(TOO_EARLY));
    }
}

#[test]
fn gssapi_is_refused_and_the_client_goes_on() {
    let expected = Read::Refuse { length: 8, answer: b"N".to_vec() };
    assert_eq!(whole(Preamble::Postgres, GSSENC_REQUEST), expected);
    assert_eq!(postgres(&[GSSENC_REQUEST, SSL_REQUEST].concat()), expected);
}

#[test]
fn postgres_cancels() {
    let expected = Read::Cancel { length: 16, process: 0x66b8, key: vec![0xed, 0xf5, 0xde, 0xaa] };
    assert_eq!(whole(Preamble::Postgres, PSQL_CANCEL), expected);
    let cancel = |key: usize| message([4, 0xd2, 0x16, 0x2e], &[&[0, 0, 0, 7][..], &vec![9; key]].concat());
    for key in [4, 5, 32, 256] {
        let expected = Read::Cancel { length: 12 + key, process: 7, key: vec![9; key] };
        assert_eq!(whole(Preamble::Postgres, &cancel(key)), expected);
    }
    for key in [0, 3, 257] {
        assert!(is_malformed(&postgres(&cancel(key)[..8])), "{key}");
    }
}

#[test]
fn postgres_starts_without_tls() {
    let Read::Plain { startup: Some(psql) } = whole(Preamble::Postgres, PSQL_STARTUP) else {
        panic!("no startup")
    };
    assert_eq!((psql.user(), psql.database(), psql.minor_version()), (&b"alice"[..], &b"app"[..], 0));
    assert_eq!(psql.parameter(b"application_name"), Some(&b"psql"[..]));
    assert_eq!(psql.parameters().count(), 3);
    assert_eq!(postgres(&[PSQL_STARTUP, b"Q"].concat()), Read::Plain { startup: Some(psql) });

    let Read::Plain { startup: Some(other) } = postgres(&message([0, 3, 0, 2], b"user\0bob\0_pq_.x\0\0\0"))
    else {
        panic!("no startup")
    };
    assert_eq!((other.database(), other.minor_version()), (&b"bob"[..], 2), "the user's name");
    let text = format!("{other:?}");
    assert!(text.contains("bob") && !text.contains("_pq_"), "{text}");
}

#[test]
fn startups_that_a_server_would_not_take_or_that_are_ambiguous() {
    for (body, reason) in [
        (&b"\0"[..], "no user"),
        (b"user\0\0\0", "no user"),
        (b"database\0a\0\0", "no user"),
        (b"user\0a\0user\0b\0\0", "a user or a database twice"),
        (b"user\0a\0database\0b\0database\0c\0\0", "a user or a database twice"),
        (b"user\0a\0", "a parameter without a value"),
        (b"user\0a", "parameters without an end"),
        (b"user\0a\0x\0\0", "a parameter without a value"),
        (b"user\0a\0\0\0", "a parameter without a value"),
        (b"\0user\0\0", "a parameter without a name"),
    ] {
        assert_eq!(startup(body), Read::Malformed(reason), "{body:?}");
    }
}

#[test]
fn first_messages_are_bounded() {
    let longest = [&b"user\0a\0x\0"[..], &vec![b'x'; MAX_PREAMBLE_BYTES - 8 - 9 - 2], b"\0\0"].concat();
    assert_eq!(longest.len() + 8, MAX_PREAMBLE_BYTES);
    assert!(matches!(startup(&longest), Read::Plain { .. }));
    assert_eq!(postgres(b"\0\0\x27\x14\0\x03\0\0"), Read::NeedMore);
    for bytes in [&b"\0\0\x27\x15\0\x03\0\0"[..], b"\0\0\0\x08\0\x03\0\0", b"\0\0\0\x09\x04\xd2\x16\x2f"] {
        assert_eq!(postgres(bytes), Read::Malformed("a message of the wrong length"), "{bytes:?}");
    }
    for bytes in [&b"\0\0\0\x08\x04\xd2\x16\x31"[..], b"\0\0\0\x09\0\x02\0\0", b"\0\0\0\x09\0\x04\0\0"] {
        assert_eq!(postgres(bytes), Read::Malformed("a version other than 3"), "{bytes:?}");
    }
    for bytes in [&b"GET /"[..], b"Q", b"\x01", b"\0\x01", b"\x30"] {
        assert_eq!(postgres(bytes), Read::Malformed("not a message of PostgreSQL"), "{bytes:?}");
    }
}

#[test]
fn ldap_asks_for_tls() {
    let name = START_TLS_NAME;
    let said = |id: &[u8], code: u8| {
        let id = [&[2, id.len() as u8][..], id].concat();
        let inside = [&id[..], &[0x78, 31, 0x0a, 1, code, 4, 0, 4, 0, 0x8a, 22], name].concat();
        [&[0x30, inside.len() as u8][..], &inside].concat()
    };
    let yes = |length, id: &[u8]| Read::StartTls { length, answer: said(id, 0), refusal: said(id, 2) };
    assert_eq!(whole(Preamble::Ldap, OPENSSL_START_TLS), yes(31, &[1]));
    assert_eq!(request(Preamble::Ldap), OPENSSL_START_TLS);

    let with_id = |id: &[u8]| {
        let inside = [&[2, id.len() as u8][..], id, &OPENSSL_START_TLS[5..]].concat();
        [&[0x30, inside.len() as u8][..], &inside].concat()
    };
    // As short as an integer that is not negative can be.
    for (sent, echoed) in [
        (&[0x7f][..], &[0x7f][..]),
        (&[0, 0x80], &[0, 0x80]),
        (&[1, 0], &[1, 0]),
        (&[0, 0, 0, 5], &[5]),
        (&[0x7f, 0xff, 0xff, 0xff], &[0x7f, 0xff, 0xff, 0xff]),
    ] {
        let bytes = with_id(sent);
        assert_eq!(whole(Preamble::Ldap, &bytes), yes(bytes.len(), echoed), "{sent:?}");
    }
    for id in [&[0][..], &[0x80], &[0xff, 0xff], &[], &[0, 0, 0, 0, 1]] {
        assert!(is_malformed(&ldap(&with_id(id))), "{id:?}");
    }
    // Active Directory's clients write all lengths in four bytes.
    let inside = [&OPENSSL_START_TLS[2..5], b"\x77\x84\0\0\0\x1c\x80\x84\0\0\0\x16", name].concat();
    let bytes = [&b"\x30\x84\0\0\0\x25"[..], &inside].concat();
    assert_eq!(whole(Preamble::Ldap, &bytes), yes(bytes.len(), &[1]));
    assert_eq!(ldap(b"\x16"), Read::Tls, "LDAPS");
}

const START_TLS_NAME: &[u8] = b"1.3.6.1.4.1.1466.20037";

#[test]
fn other_messages_of_ldap_are_not_start_tls() {
    let plain = Read::Plain { startup: None };
    assert_eq!(ldap(LIBLDAP_SEARCH), plain);
    assert_eq!(whole(Preamble::Ldap, &LIBLDAP_SEARCH[..6]), plain, "known by its operation");
    // Bind, unbind, "who am I", a name of the same length.
    for bytes in [
        &b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0"[..],
        b"\x30\x05\x02\x01\x02\x42\0",
        b"\x30\x1e\x02\x01\x02\x77\x19\x80\x171.3.6.1.4.1.4203.1.11.3",
        b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20038",
        // A modification of 16 MiB, of which the start is here.
        b"\x30\x84\x01\0\0\0\x02\x01\x02\x66",
    ] {
        assert_eq!(ldap(bytes), plain, "{bytes:02x?}");
    }
    // A long message whose name may still become that of StartTLS is not called too long before it is that.
    let long = [b"\x30\x84\x01\0\0\0\x02\x01\x01\x77\x18\x80\x16", &START_TLS_NAME[..21], b"8"].concat();
    assert_eq!(whole(Preamble::Ldap, &long), plain);
    for bytes in [
        &b"GET /"[..],
        b"\0",
        b"\x30\x80",
        b"\x30\x85",
        b"\x30\x02\x02\x01\x01",
        b"\x30\x0c\x02\x01\x01\x61\x07",
        b"\x30\x05\x02\x01\x01\x77\x01",
        b"\x30\x07\x02\x01\x01\x77\x03\x81\x01a",
        b"\x30\x04\x04\x01\x01\x60",
    ] {
        assert!(is_malformed(&ldap(bytes)), "{bytes:02x?}: {:?}", ldap(bytes));
    }
}

#[test]
fn start_tls_with_more_than_its_name_is_refused() {
    let result = |bytes: &[u8]| match whole(Preamble::Ldap, bytes) {
        Read::Refuse { length, answer } if length == bytes.len() => answer[9],
        other => panic!("{other:?}"),
    };
    let value = [b"\x30\x20\x02\x01\x01\x77\x1b\x80\x16", START_TLS_NAME, b"\x81\x01x"].concat();
    assert_eq!(result(&value), 2);
    let control =
        [b"\x30\x26\x02\x01\x01\x77\x18\x80\x16", START_TLS_NAME, b"\xa0\x07\x30\x05\x04\x03\x31.2"].concat();
    assert_eq!(result(&control), 12);
    let other = [b"\x30\x1f\x02\x01\x01\x77\x18\x80\x16", START_TLS_NAME, b"\xa1\0"].concat();
    assert!(is_malformed(&ldap(&other)));
    let long = [b"\x30\x82\x28\0\x02\x01\x01\x77\x18\x80\x16", START_TLS_NAME].concat();
    assert!(is_malformed(&ldap(&long)));
}

#[test]
fn backends_answer() {
    for (bytes, expected) in [
        (&b""[..], Answer::NeedMore),
        (b"S", Answer::Accepted { length: 1 }),
        (b"N", Answer::Refused),
        (b"E\0\0\0\x20SFATAL", Answer::Refused),
        (b"\x15\x03\x03", Answer::Malformed("neither yes nor no")),
    ] {
        assert_eq!(answer(Preamble::Postgres, bytes), expected, "{bytes:?}");
    }
    // With and without a name; as we answer ourselves.
    let Read::StartTls { answer: ours, refusal, .. } = ldap(OPENSSL_START_TLS) else { panic!("no request") };
    for yes in [SLAPD_YES, &ours] {
        for length in 0..yes.len() {
            assert_eq!(answer(Preamble::Ldap, &yes[..length]), Answer::NeedMore);
        }
        assert_eq!(answer(Preamble::Ldap, yes), Answer::Accepted { length: yes.len() });
    }
    assert_eq!(answer(Preamble::Ldap, &refusal), Answer::Refused);
    for (bytes, expected) in [
        (&b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x34\x04\0\x04\0"[..], Answer::Refused),
        (b"\x30\x24\x02\x01\0\x78\x1f\x0a\x01\x34\x04\0\x04\0", Answer::Refused),
        (
            b"\x30\x0c\x02\x01\x02\x78\x07\x0a\x01\0\x04\0\x04\0",
            Answer::Malformed("a response to something else"),
        ),
        (
            b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\0\x04\0\x04\0",
            Answer::Malformed("not an extended response"),
        ),
        (b"\x30\x0b\x02\x01\x01\x78\x06\x0a\0\x04\0\x04\0", Answer::Malformed("a response without a result")),
        (b"\x30\x82\x28\0\x02\x01\x01", Answer::Malformed("a response that is too long")),
        (b"HTTP", Answer::Malformed("not a message of LDAP")),
    ] {
        assert_eq!(answer(Preamble::Ldap, bytes), expected, "{bytes:02x?}");
    }
}

#[test]
fn the_key_is_found_wherever_the_stream_is_cut() {
    let expected = Scan::Key { process: 0x66b8, key: vec![0xed, 0xf5, 0xde, 0xaa] };
    for size in 1..=SERVER_GREETING.len() {
        let mut scanner = BackendKeyScanner::default();
        let found = SERVER_GREETING.chunks(size).map(|piece| scanner.push(piece));
        let said: Vec<_> = found.skip_while(|scan| *scan == Scan::NeedMore).collect();
        assert_eq!(said.first(), Some(&expected), "{size}");
        assert!(said[1..].iter().all(|scan| *scan == Scan::Nothing));
    }
    // It is what the client says to cancel.
    let Read::Cancel { process, key, .. } = postgres(PSQL_CANCEL) else { panic!("no request") };
    assert_eq!(expected, Scan::Key { process, key });
}

#[test]
fn keys_of_version_3_2_are_longer() {
    let greeting = |key: usize| {
        let length = u32::try_from(8 + key).expect("short").to_be_bytes();
        [&b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0R\0\0\0\x08\0\0\0\0K"[..], &length, &[0, 0, 0, 7], &vec![9; key]]
            .concat()
    };
    for key in [4, 32, 256] {
        let expected = Scan::Key { process: 7, key: vec![9; key] };
        assert_eq!(BackendKeyScanner::default().push(&greeting(key)), expected);
    }
    for key in [0, 3, 257, 60_000] {
        assert_eq!(BackendKeyScanner::default().push(&greeting(key)), Scan::Nothing);
    }
}

#[test]
fn looking_for_a_key_ends() {
    for end in [
        &b"Z\0\0\0\x05I"[..],
        b"E\0\0\0\x20",
        b"S\0\0\0\x03",
        b"T\0\0\0\x10",
        b"S\xff\xff\xff\xff",
        b"HTTP/1.1 400",
    ] {
        let mut scanner = BackendKeyScanner::default();
        assert_eq!(scanner.push(b"R\0\0\0\x08\0\0\0\0"), Scan::NeedMore);
        assert_eq!(scanner.push(end), Scan::Nothing, "{end:?}");
        assert_eq!(scanner.push(SERVER_GREETING), Scan::Nothing);
    }
    let mut scanner = BackendKeyScanner::default();
    let parameter = b"S\0\0\0\x08abc\0";
    let count = (0..).take_while(|_| scanner.push(parameter) == Scan::NeedMore).count();
    assert_eq!(count, MAX_GREETING_BYTES / 8);
}

proptest! {
    #[test]
    fn damaged_messages_never_panic_and_what_is_said_is_never_taken_back(
        which in 0usize..7,
        is_ldap in any::<bool>(),
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        cut in any::<usize>(),
    ) {
        let seeds = [
            SSL_REQUEST, GSSENC_REQUEST, PSQL_STARTUP, PSQL_CANCEL, OPENSSL_START_TLS, LIBLDAP_SEARCH, SLAPD_YES,
        ];
        let mut bytes = [seeds[which], b"rest"].concat();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let kind = if is_ldap { Preamble::Ldap } else { Preamble::Postgres };
        let part = &bytes[..cut % (bytes.len() + 1)];
        let (early, late) = (read(kind, part), read(kind, &bytes));
        // Only a request for TLS is another thing when something is behind it.
        if matches!(early, Read::StartTls { .. }) && part.len() < bytes.len() {
            prop_assert_eq!(late, Read::Malformed(TOO_EARLY));
        } else if early != Read::NeedMore {
            prop_assert_eq!(early, late);
        }
        let (early, late) = (answer(kind, part), answer(kind, &bytes));
        if matches!(early, Answer::Accepted { .. }) && part.len() < bytes.len() {
            prop_assert_eq!(late, Answer::Malformed(TOO_EARLY));
        } else if early != Answer::NeedMore {
            prop_assert_eq!(early, late);
        }
    }

    #[test]
    fn never_waits_forever(start in 0usize..5, rest in prop::collection::vec(any::<u8>(), MAX_PREAMBLE_BYTES)) {
        let startup = b"\0\0\x27\x14\0\x03\0\0";
        let start = [&b""[..], SSL_REQUEST, startup, b"\x30", b"\x30\x82\x27\x10\x02\x01\x01\x77"][start];
        let bytes = [start, &rest].concat();
        for kind in [Preamble::Postgres, Preamble::Ldap] {
            prop_assert_ne!(read(kind, &bytes), Read::NeedMore);
            prop_assert_ne!(answer(kind, &bytes), Answer::NeedMore);
        }
    }

    #[test]
    fn a_scan_says_the_same_wherever_the_stream_is_cut(
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        size in 1usize..40,
    ) {
        let mut bytes = SERVER_GREETING.to_vec();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let mut scanner = BackendKeyScanner::default();
        let at_once = BackendKeyScanner::default().push(&bytes);
        let in_pieces = bytes.chunks(size).map(|piece| scanner.push(piece)).find(|scan| *scan != Scan::NeedMore);
        prop_assert_eq!(in_pieces.unwrap_or(Scan::NeedMore), at_once);
    }
}
