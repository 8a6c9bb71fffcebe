//! What holds whatever a backend says: no panic, an end, and the same verdict wherever the stream was cut.

use awe4lb_model::{
    BackendRole, CheckKind, DnsCheck, GrpcCheck, HttpCheck, MysqlCheck, Pattern, Payload, PostgresCheck,
    RedisCheck, ScriptCheck, ScriptStep, UdpCheck,
};
use proptest::{prelude::*, sample::Index};

use super::*;

/// Each conversation over a stream, with what makes it go on and on.
fn streams() -> Vec<(CheckKind, &'static [u8])> {
    let http = |body| CheckKind::Http(HttpCheck { body, ..HttpCheck::default() });
    let user = Some("nat".into());
    let role = BackendRole::Replica;
    let steps = vec![
        ScriptStep::Expect(Pattern::Regex("^a+$".into())),
        ScriptStep::Send(Payload::Bytes(b"x".to_vec())),
        ScriptStep::Expect(Pattern::Bytes(b"bb".to_vec())),
        ScriptStep::End,
    ];
    let postgres = PostgresCheck { password: password(), role, ..PostgresCheck::default() };
    vec![
        (http(None), b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP/1.1 204 No Content\r\n"),
        (http(Some(Pattern::Bytes(b"ok".to_vec()))), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nit is ok\n"),
        (
            http(Some(Pattern::Regex("o.$".into()))),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nit \r\n4;x\r\nisok\r\n0\r\n\r\n",
        ),
        (
            CheckKind::Grpc(GrpcCheck::default()),
            b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x06\0\0\0\0\0abcdefgh\0\0\x01\x01\x04\0\0\0\x01\x88\
              \0\0\x03\0\0\0\0\0\x01\0\0\0\0\0\x04\0\0\0\0\0\x01\0\x02\x08\x01\
              \0\0\x0f\x01\x05\0\0\0\x01\x40\x0bgrpc-status\x010",
        ),
        (CheckKind::Script(ScriptCheck { tls: None, steps }), b"b\r\naa\r\naabab\nbbc"),
        (
            CheckKind::Postgres(postgres.clone()),
            b"R\0\0\0\x5a\0\0\0\x0br=awe4lb0123456789abcdefN2w6n6Ogentivbz+caVrpAl7,s=so6GXra9uTcDa20J6gC32A==,i=64\
              R\0\0\0\x08\0\0\0\x0c",
        ),
        (
            CheckKind::Postgres(postgres),
            b"R\0\0\0\x08\0\0\0\0S\0\0\0\x08a\0b\0Z\0\0\0\x05IT\0\0\0\x04D\0\0\0\x0b\0\x01\0\0\0\x01t",
        ),
        (
            CheckKind::Mysql(MysqlCheck { user, password: password(), role }),
            b"\x4a\0\0\0\n8.0.36\0\x08\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0\
              caching_sha2_password\0\x02\0\0\x02\x01\x03\x07\0\0\x03\0\0\0\x02\0\0\0\
              \x01\0\0\x01\x01\x02\0\0\x02\x03d\x05\0\0\x03\xfe\0\0\x02\0\x02\0\0\x04\x011",
        ),
        (
            CheckKind::Redis(RedisCheck { tls: None, user: None, password: password(), role }),
            b"+OK\r\n+PONG\r\n*3\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n",
        ),
        (CheckKind::Agent, b"up 75% maxconn:30 # well\n"),
    ]
}

fn datagrams() -> Vec<CheckKind> {
    let expect = Some(Pattern::Regex("^a+$".into()));
    vec![
        CheckKind::Udp(UdpCheck { send: Payload::Bytes(Vec::new()), expect }),
        CheckKind::Dns(DnsCheck::default()),
    ]
}

/// The verdict about a stream that was cut at these places, and how much of it was taken.
fn verdict(kind: &CheckKind, stream: &[u8], cuts: &[Index]) -> Verdict {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.push(stream.len());
    cuts.sort_unstable();
    let mut conversation = start(kind);
    let mut step = conversation.next(Event::Connected);
    let mut at = 0;
    for cut in cuts {
        if let Step::Done(verdict) = step {
            return verdict;
        }
        step = conversation.next(Event::Received(&stream[at..cut]));
        at = cut;
    }
    match conversation.next(Event::Closed) {
        Step::Done(verdict) => verdict,
        other => panic!("{other:?} on a closed connection"),
    }
}

#[test]
fn the_streams_here_come_to_good_ends() {
    for (kind, stream) in streams() {
        let verdict = verdict(&kind, stream, &[]);
        let is_forged = verdict.reason == "authentication that cannot be answered";
        assert!(verdict.is_healthy || is_forged, "{kind:?}: {verdict:?}");
    }
}

#[test]
fn endless_streams_end() {
    for (kind, stream) in streams() {
        for filler in [&b"\0"[..], b"x", b"a\n", b"\0\0\0\x04\0\0\0\0\0", b"N\0\0\0\x04", b"A: b\r\n"] {
            for start_of in [0, stream.len() / 2, stream.len() - 1] {
                let filling = filler.iter().copied().cycle();
                let bytes: Vec<u8> =
                    stream[..start_of].iter().copied().chain(filling).take(MAX_RECEIVED_BYTES).collect();
                let mut conversation = start(&kind);
                conversation.next(Event::Connected);
                let mut pieces = bytes.chunks(1400).map(|piece| conversation.next(Event::Received(piece)));
                assert!(pieces.any(|step| matches!(step, Step::Done(_))), "{kind:?} {filler:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn cuts_do_not_change_the_verdict(
        which in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..3),
        length in any::<Index>(),
        is_whole in any::<bool>(),
        more in prop::collection::vec(any::<u8>(), 0..40),
        cuts in prop::collection::vec(any::<Index>(), 0..8),
    ) {
        let streams = streams();
        let (kind, stream) = which.get(&streams);
        let mut stream = stream.to_vec();
        if !is_whole {
            stream.truncate(length.index(stream.len()));
            stream.extend_from_slice(&more);
        }
        for (at, byte) in changes {
            if !stream.is_empty() {
                *at.get_mut(&mut stream) = byte;
            }
        }
        let whole = verdict(kind, &stream, &[]);
        prop_assert_eq!(&verdict(kind, &stream, &cuts), &whole);
        prop_assert!(whole.reason.len() < 80 && whole.reason.is_ascii(), "{:?}", whole.reason);
    }

    #[test]
    fn no_datagram_does_harm(datagrams_ in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..9)) {
        for kind in datagrams() {
            let mut conversation = start(&kind);
            prop_assert!(matches!(conversation.next(Event::Connected), Step::Send(_)));
            let mut ended = None;
            for datagram in &datagrams_ {
                match conversation.next(Event::Received(datagram)) {
                    Step::Done(verdict) => prop_assert_eq!(ended.get_or_insert(verdict.clone()), &verdict),
                    step => prop_assert!(step == Step::Receive && ended.is_none()),
                }
            }
            prop_assert!(matches!(conversation.next(Event::Closed), Step::Done(_)));
        }
    }
}
