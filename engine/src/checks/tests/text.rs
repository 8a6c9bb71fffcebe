//! Scripts and agents.

use awe4lb_model::{CheckKind, Pattern, Payload, ScriptCheck, ScriptStep};

use super::*;

fn send(bytes: &[u8]) -> ScriptStep {
    ScriptStep::Send(Payload::Bytes(bytes.to_vec()))
}

fn expect(bytes: &[u8]) -> ScriptStep {
    ScriptStep::Expect(Pattern::Bytes(bytes.to_vec()))
}

fn expect_line(regex: &str) -> ScriptStep {
    ScriptStep::Expect(Pattern::Regex(regex.into()))
}

fn script(steps: Vec<ScriptStep>) -> CheckKind {
    CheckKind::Script(ScriptCheck { tls: None, steps })
}

#[test]
fn smtp() {
    let kind =
        script(vec![expect_line("^220 "), send(b"EHLO x\r\n"), expect_line("^250 "), send(b"QUIT\r\n")]);
    let greeting = b"220-mx.example ESMTP\r\n220 ready\r\n";
    let hello = b"250-mx.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n";
    assert_eq!(play(&kind, &[(b"", greeting), (b"EHLO x\r\n", hello)]), healthy("the script was done"));
    assert_eq!(play(&kind, &[(b"", b"554 no\r\n")]), unhealthy("closed at step 1"));
    assert_eq!(
        play(&kind, &[(b"", greeting), (b"EHLO x\r\n", b"250-mx\r\n")]),
        unhealthy("closed at step 3")
    );
    assert_eq!(start(&kind).goodbye(), b"QUIT\r\n");
}

#[test]
fn secrets_are_sent_among_the_text_around_them() {
    let secret = ScriptStep::Send(Payload::Secret(name("password")));
    let kind = script(vec![send(b"AUTH "), secret, send(b"\r\n"), expect(b"+OK")]);
    assert_eq!(play(&kind, &[(b"AUTH pencil\r\n", b"+OK\r\n")]), healthy("the script was done"));
}

#[test]
fn each_expectation_looks_behind_what_the_one_before_found() {
    let kind = script(vec![expect(b"aa"), expect(b"ab"), expect(b"b")]);
    assert_eq!(play(&kind, &[(b"", b"aab")]), unhealthy("closed at step 2"));
    assert_eq!(play(&kind, &[(b"", b"aaab")]), unhealthy("closed at step 3"));
    assert_eq!(play(&kind, &[(b"", b"xaaxabxb")]), healthy("the script was done"));
}

#[test]
fn an_expression_sees_whole_lines() {
    let kind = script(vec![expect_line("^a+$"), expect_line("b$")]);
    assert_eq!(play(&kind, &[(b"", b"aab\naa\r\nab\r\n")]), healthy("the script was done"));
    // The last one may have no end.
    assert_eq!(play(&kind, &[(b"", b"a\nb")]), healthy("the script was done"));
    assert_eq!(play(&kind, &[(b"", b"a\nbc")]), unhealthy("closed at step 2"));
    assert_eq!(play(&kind, &[(b"", b"a\n")]), unhealthy("closed at step 2"));
}

#[test]
fn nothing_at_all_is_found_in_anything_that_comes() {
    let kind = script(vec![expect(b""), expect(b"b")]);
    assert_eq!(play(&kind, &[(b"", b"ab")]), healthy("the script was done"));
    assert_eq!(play(&kind, &[(b"", b"b")]), unhealthy("closed at step 2"));
    assert_eq!(play(&kind, &[(b"", b"")]), unhealthy("closed at step 1"));
}

#[test]
fn the_end_is_waited_for() {
    let kind = script(vec![send(b"bye"), ScriptStep::End]);
    assert_eq!(play(&kind, &[(b"bye", b"see you")]), healthy("the script was done"));
    let kind = script(vec![expect_line("^bye$"), ScriptStep::End]);
    assert_eq!(play(&kind, &[(b"", b"bye")]), healthy("the script was done"));
    assert_eq!(play(&kind, &[(b"", b"")]), unhealthy("closed at step 1"));
}

#[test]
fn a_script_that_waits_for_nothing_is_done_when_it_is_connected() {
    let kind = script(vec![send(b"a"), send(b"b")]);
    let mut conversation = start(&kind);
    assert_eq!(conversation.next(Event::Connected), Step::Done(healthy("the script was done")));
    assert_eq!(conversation.goodbye(), b"ab");
}

#[test]
fn agents_say_one_line() {
    let agent = |line: &[u8]| play(&CheckKind::Agent, &[(b"", line)]);
    let verdict = agent(b"up 75%\r\ndown\r\n");
    let advice = verdict.advice.expect("advice");
    assert_eq!((verdict.is_healthy, advice.weight_percent), (true, Some(75)));
    assert_eq!(verdict.reason, "the agent says up");
    assert_eq!(
        agent(b"drain").advice.and_then(|advice| advice.admin),
        Some(AgentAdmin::Drain),
        "without an end"
    );
    assert_eq!(agent(b"stopped # for the night\n").reason, "the agent says stopped");
    assert_eq!(agent(b""), unhealthy("closed before it answered"));
    assert_eq!(agent(b"\n"), unhealthy("no word of the agent is known"));
    assert_eq!(agent(&[b'x'; 2000]), unhealthy("a line is too long"));
}
