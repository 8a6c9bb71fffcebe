//! DNS as Knot 3.2 answers, and whatever else comes in one datagram.

use awe4lb_model::{CheckKind, DnsCheck, DnsRecord, Pattern, Payload, UdpCheck};

use super::*;

const QUERY: &[u8] =
    b"\xcd\xef\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03WWW\x07Example\x04TEST\x00\x00\x01\x00\x01";
const ANSWER: &[u8] =
    b"\xcd\xef\x85\x00\x00\x01\x00\x01\x00\x00\x00\x00\x03www\x07example\x04test\x00\x00\x01\x00\x01\
    \xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\xc0\x00\x02\x01";
const NO_NAME: &[u8] = b"\xcd\xef\x85\x03\x00\x01\x00\x00\x00\x01\x00\x00\x03www\x07example\x04test\x00\x00\x01\x00\x01\
    \xc0\x10\x00\x06\x00\x01\x00\x00\x01,\x00!\x02ns\xc0\x10\x05admin\xc0\x10\x00\x00\x00\x01\x00\x00\x0e\x10\x00\x00\x03\
    \x84\x00\t:\x80\x00\x00\x01,";
const REFUSED: &[u8] =
    b"\xcd\xef\x81\x05\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x04test\x00\x00\x01\x00\x01";

fn dns(rcode: u8) -> CheckKind {
    CheckKind::Dns(DnsCheck { name: "WWW.Example.TEST.".into(), record: DnsRecord::A, rcode })
}

/// Each as one datagram, then nothing.
fn datagrams(kind: &CheckKind, asked: &[u8], datagrams: &[&[u8]]) -> Step {
    let mut conversation = start(kind);
    assert_eq!(conversation.next(Event::Connected), Step::Send(asked.to_vec()));
    let steps = datagrams.iter().map(|datagram| conversation.next(Event::Received(datagram)));
    steps.last().unwrap_or(Step::Receive)
}

#[test]
fn the_response_code_decides() {
    for (rcode, answer, expected) in [
        (0, ANSWER, healthy("DNS rcode 0")),
        (0, NO_NAME, unhealthy("DNS rcode 3")),
        (3, NO_NAME, healthy("DNS rcode 3")),
        (0, REFUSED, unhealthy("DNS rcode 5")),
        (5, b"\xcd\xef\x81\x05\x00\x00\x00\x00\x00\x00\x00\x00", healthy("DNS rcode 5")),
    ] {
        assert_eq!(datagrams(&dns(rcode), QUERY, &[answer]), Step::Done(expected));
    }
}

#[test]
fn answers_to_other_questions_are_passed_over() {
    let changed = |at: usize, byte: u8| {
        let mut answer = ANSWER.to_vec();
        answer[at] = byte;
        answer
    };
    for other in [
        changed(0, 0),     // another id
        changed(2, 0x05),  // a question
        changed(2, 0x8d),  // a status
        changed(5, 0),     // no question, and no error
        changed(5, 2),     // two questions
        changed(13, b'x'), // of another name
        changed(28, 2),    // for another type
        ANSWER[..11].to_vec(),
        ANSWER[..30].to_vec(),
        Vec::new(),
    ] {
        assert_eq!(datagrams(&dns(0), QUERY, &[&other]), Step::Receive, "{}", text(&other));
        assert_eq!(datagrams(&dns(0), QUERY, &[&other, ANSWER]), Step::Done(healthy("DNS rcode 0")));
    }
}

#[test]
fn other_answers_without_end_are_too_much() {
    let mut conversation = start(&dns(0));
    let ends = (0..MAX_RECEIVED_BYTES).position(|_| conversation.next(Event::Received(b"")) != Step::Receive);
    assert!(ends.is_some());
}

#[test]
fn questions_that_can_be_written() {
    let asked = |name: &str, record| {
        let kind = CheckKind::Dns(DnsCheck { name: name.into(), record, rcode: 0 });
        start(&kind).next(Event::Connected)
    };
    let root = b"\xcd\xef\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01".to_vec();
    assert_eq!(asked(".", DnsRecord::Ns), Step::Send(root.clone()));
    assert_eq!(asked("", DnsRecord::Ns), Step::Send(root));
    for (record, code) in
        [(DnsRecord::Soa, 6), (DnsRecord::Aaaa, 28), (DnsRecord::Srv, 33), (DnsRecord::Txt, 16)]
    {
        let Step::Send(query) = asked("example.test", record) else { panic!("a question") };
        assert_eq!(query[query.len() - 3], code);
    }
    let long = format!("{}.test", "a".repeat(64));
    let many = "a.".repeat(128);
    for name in ["a..b", ".a", "a..", "b\u{fc}cher.example", &long, &many] {
        assert_eq!(
            asked(name, DnsRecord::A),
            Step::Done(unhealthy("the name cannot be asked for")),
            "{name}"
        );
    }
}

#[test]
fn any_datagram_answers_unless_one_is_expected() {
    let udp = |expect| CheckKind::Udp(UdpCheck { send: Payload::Bytes(b"ping".to_vec()), expect });
    let answered = Step::Done(healthy("answered"));
    let another = Step::Done(unhealthy("another answer than expected"));
    assert_eq!(datagrams(&udp(None), b"ping", &[b""]), answered);
    let expect = || Some(Pattern::Bytes(b"pong".to_vec()));
    assert_eq!(datagrams(&udp(expect()), b"ping", &[b"a pong"]), answered);
    assert_eq!(datagrams(&udp(expect()), b"ping", &[b"po", b"ng"]), another, "each stands alone");
    assert_eq!(datagrams(&udp(Some(Pattern::Regex("^p.ng$".into()))), b"ping", &[b"pang"]), answered);
    assert_eq!(datagrams(&udp(Some(Pattern::Bytes(Vec::new()))), b"ping", &[b""]), answered);
    let mut conversation = start(&udp(None));
    conversation.next(Event::Connected);
    assert_eq!(conversation.next(Event::Closed), Step::Done(unhealthy("refused")));
    let secret = CheckKind::Udp(UdpCheck { send: Payload::Secret(name("password")), expect: None });
    assert_eq!(datagrams(&secret, PASSWORD, &[]), Step::Receive);
}
