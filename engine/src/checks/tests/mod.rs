//! Conversations with what real servers said, recorded; and with whatever else may come.

mod database;
mod datagrams;
mod grpc;
mod http;
mod properties;
mod text;

use awe4lb_model::{
    BackendRole, CheckKind, MysqlCheck, Name, Pattern, Payload, PostgresCheck, RedisCheck, ScriptCheck,
    ScriptStep,
};

use super::*;

const RNG: u64 = 0x0123_4567_89ab_cdef;
const PASSWORD: &[u8] = b"pencil";

/// What we say, and what the backend says to that. Where it speaks first, we begin with nothing.
type Turn<'a> = (&'a [u8], &'a [u8]);

/// The only secret that there is.
fn secret(name: &str) -> Option<Vec<u8>> {
    (name == "password").then(|| PASSWORD.to_vec())
}

fn name(name: &str) -> Name {
    name.parse().expect("a name")
}

fn password() -> Option<Name> {
    Some(name("password"))
}

fn start(kind: &CheckKind) -> Box<dyn Conversation> {
    conversation(kind, &secret, RNG).expect("a conversation")
}

/// Speaks as it was recorded, and closes where the recording ends. Each turn in one piece, and then byte by byte.
fn play(kind: &CheckKind, turns: &[Turn<'_>]) -> Verdict {
    let verdict = play_in_pieces(kind, turns, usize::MAX);
    assert_eq!(play_in_pieces(kind, turns, 1), verdict, "byte by byte");
    verdict
}

fn play_in_pieces(kind: &CheckKind, turns: &[Turn<'_>], size: usize) -> Verdict {
    let mut conversation = start(kind);
    let mut step = conversation.next(Event::Connected);
    let mut said = Vec::new();
    for (ours, theirs) in turns {
        for piece in std::iter::once(&[][..]).chain(theirs.chunks(size)) {
            if !piece.is_empty() {
                step = conversation.next(Event::Received(piece));
            }
            match &step {
                Step::Send(bytes) => said.extend_from_slice(bytes),
                Step::Receive => {}
                Step::Done(verdict) => return verdict.clone(),
            }
            if piece.is_empty() {
                assert_eq!(text(&said), text(ours));
                said.clear();
                step = Step::Receive;
            }
        }
        // What the last piece was answered with is the next turn's.
        step = if said.is_empty() { Step::Receive } else { Step::Send(std::mem::take(&mut said)) };
    }
    match conversation.next(Event::Closed) {
        Step::Done(verdict) => verdict,
        other => panic!("{other:?} on a closed connection"),
    }
}

/// Bytes that one can read in a failed assertion.
fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn healthy(reason: &str) -> Verdict {
    Verdict::healthy(reason)
}

fn unhealthy(reason: &str) -> Verdict {
    Verdict::unhealthy(reason)
}

#[test]
fn checks_that_say_nothing_have_no_conversation() {
    for kind in [
        CheckKind::Tcp,
        CheckKind::Tls(awe4lb_model::TlsCheck::default()),
        CheckKind::Exec(awe4lb_model::ExecCheck { argv: vec!["/bin/true".into()], max_output_bytes: 1 }),
    ] {
        assert!(conversation(&kind, &secret, RNG).is_none());
    }
}

#[test]
fn what_cannot_be_asked_is_unhealthy_at_once_and_says_why() {
    let missing = Some(name("missing"));
    let script = |step| CheckKind::Script(ScriptCheck { tls: None, steps: vec![step] });
    let postgres = PostgresCheck { password: missing.clone(), ..PostgresCheck::default() };
    let zero = PostgresCheck { user: "a\0b".into(), ..PostgresCheck::default() };
    let redis = RedisCheck { password: missing.clone(), ..RedisCheck::default() };
    let mysql = MysqlCheck { role: BackendRole::Primary, ..MysqlCheck::default() };
    for (kind, reason) in [
        (CheckKind::Postgres(postgres), "the secret missing is not here"),
        (CheckKind::Postgres(zero), "the login cannot be written"),
        (CheckKind::Redis(redis), "the secret missing is not here"),
        (CheckKind::Mysql(mysql), "the role is not told without a user"),
        (script(ScriptStep::Send(Payload::Secret(name("missing")))), "the secret missing is not here"),
        (script(ScriptStep::Expect(Pattern::Regex("(".into()))), "the expression does not compile"),
    ] {
        let mut conversation = start(&kind);
        for event in [Event::Connected, Event::Received(b"x"), Event::Closed] {
            assert_eq!(conversation.next(event), Step::Done(unhealthy(reason)), "{kind:?}");
        }
    }
}

#[test]
fn a_verdict_stays() {
    let mut conversation = start(&CheckKind::Agent);
    assert_eq!(conversation.next(Event::Connected), Step::Receive);
    let first = conversation.next(Event::Received(b"up\n"));
    assert!(matches!(&first, Step::Done(verdict) if verdict.is_healthy));
    for event in [Event::Received(b"down\n"), Event::Closed, Event::Connected] {
        assert_eq!(conversation.next(event), first);
    }
}
