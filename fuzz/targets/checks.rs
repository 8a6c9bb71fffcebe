//! Health checks: whatever a backend says, in whatever pieces, no conversation panics, each comes to an end, and how the
//! stream was cut does not change its verdict. The first byte says which check, the second how to cut.
#![no_main]

use awe4lb_engine::checks::{Conversation, Event, MAX_RECEIVED_BYTES, Step, Verdict, conversation};
use awe4lb_model::{
    BackendRole, CheckKind, DnsCheck, GrpcCheck, HttpCheck, MysqlCheck, Name, Pattern, Payload,
    PostgresCheck, RedisCheck, ScriptCheck, ScriptStep, UdpCheck,
};
use libfuzzer_sys::fuzz_target;

/// Of a seed, so that what was recorded with it is answered in the same way.
const RNG: u64 = 0x0123_4567_89ab_cdef;

fuzz_target!(|bytes: &[u8]| {
    let [which, cut, stream @ ..] = bytes else { return };
    let kind = kind(*which);
    let whole = verdict(&kind, [stream].into_iter());
    let pieces = verdict(&kind, pieces(stream, *cut));
    if !kind.is_datagram() {
        assert_eq!(pieces, whole, "{kind:?}");
    }
    assert!(whole.reason.len() < 80 && whole.reason.is_ascii(), "{:?}", whole.reason);
    if whole.advice.is_some() {
        assert!(matches!(kind, CheckKind::Agent));
    }
});

/// Pieces of one to a few bytes at first, and of more later.
fn pieces(stream: &[u8], cut: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut size) = (stream, usize::from(cut % 16) + 1);
    std::iter::from_fn(move || {
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        size = size * (usize::from(cut / 16) + 4) / 4;
        (!piece.is_empty()).then_some(piece)
    })
}

fn verdict<'a>(kind: &CheckKind, pieces: impl Iterator<Item = &'a [u8]>) -> Verdict {
    let secret = |_: &str| Some(b"pencil".to_vec());
    let mut conversation = conversation(kind, &secret, RNG).expect("a check that says something");
    let mut received = 0;
    let mut step = conversation.next(Event::Connected);
    for piece in pieces {
        if let Step::Done(verdict) = step {
            return stays(&mut *conversation, verdict);
        }
        assert!(received < MAX_RECEIVED_BYTES);
        received += piece.len();
        step = conversation.next(Event::Received(piece));
    }
    match conversation.next(Event::Closed) {
        Step::Done(verdict) => stays(&mut *conversation, verdict),
        step => panic!("{step:?} on a closed connection"),
    }
}

fn stays(conversation: &mut dyn Conversation, verdict: Verdict) -> Verdict {
    for event in [Event::Received(b"up\n"), Event::Closed] {
        assert_eq!(conversation.next(event), Step::Done(verdict.clone()));
    }
    verdict
}

fn kind(which: u8) -> CheckKind {
    let role = [BackendRole::Any, BackendRole::Primary, BackendRole::Replica][usize::from(which / 16 % 3)];
    let password: Option<Name> = (which < 128).then(|| "password".parse().expect("a name"));
    let user = (which < 192).then(|| "nat".into());
    let text = Pattern::Bytes(b"ok".to_vec());
    let regex = Pattern::Regex("^(a|[0-9]+)b?$".into());
    let http = |body| CheckKind::Http(HttpCheck { body, max_body_bytes: 300, ..HttpCheck::default() });
    match which % 16 {
        0 => http(None),
        1 => http(Some(text)),
        2 => http(Some(regex)),
        3 | 4 => CheckKind::Grpc(GrpcCheck::default()),
        5 => CheckKind::Udp(UdpCheck { send: Payload::Bytes(b"ping".to_vec()), expect: Some(regex) }),
        6 => CheckKind::Dns(DnsCheck::default()),
        7 | 8 => {
            let say = || ScriptStep::Send(Payload::Bytes(b"x".to_vec()));
            let [text, regex] = [text, regex].map(ScriptStep::Expect);
            let steps = if which % 16 == 7 {
                vec![say(), regex, say(), text, say()]
            } else {
                vec![text, regex, ScriptStep::Expect(Pattern::Bytes(Vec::new())), say(), ScriptStep::End]
            };
            CheckKind::Script(ScriptCheck { tls: None, steps })
        }
        9..=11 => {
            let user = "scram".into();
            CheckKind::Postgres(PostgresCheck { user, password, role, ..PostgresCheck::default() })
        }
        12 | 13 => {
            // Only who logs in is told the role.
            let role = if user.is_some() { role } else { BackendRole::Any };
            CheckKind::Mysql(MysqlCheck { user, password, role })
        }
        14 => CheckKind::Redis(RedisCheck { tls: None, user, password, role }),
        _ => CheckKind::Agent,
    }
}
