//! HTTP/1.1, as nginx 1.22 answers and as others may.

use awe4lb_model::{CheckKind, HttpCheck, Pattern, TlsCheck};

use super::*;

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: awe4lb\r\nAccept: */*\r\nConnection: close\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 24 Nov 2026 03:58:58 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 9\r\nConnection: close\r\n\r\nit is ok\n";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 24 Nov 2026 03:58:58 GMT\r\n\
    Content-Type: text/html\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nd\r\nit is ok now\n\r\n0\r\n\r\n";
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Temporarily Unavailable\r\nServer: nginx/1.22.1\r\n\
    Date: Tue, 24 Nov 2026 03:58:58 GMT\r\nContent-Type: text/html\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

const AS_EXPECTED: &str = "the body is as expected";
const ANOTHER: &str = "another body than expected";

fn answered(check: HttpCheck, answer: &[u8]) -> Verdict {
    play(&CheckKind::Http(check), &[(REQUEST, answer)])
}

fn with_text(text: &str) -> HttpCheck {
    HttpCheck { body: Some(Pattern::Bytes(text.into())), ..HttpCheck::default() }
}

fn with_regex(regex: &str) -> HttpCheck {
    HttpCheck { body: Some(Pattern::Regex(regex.into())), ..HttpCheck::default() }
}

#[test]
fn the_status_decides() {
    assert_eq!(answered(HttpCheck::default(), OK), healthy("HTTP status 200"));
    assert_eq!(answered(HttpCheck::default(), UNAVAILABLE), unhealthy("HTTP status 503"));
    let only = HttpCheck { expected: vec![204..=204, 500..=599], ..HttpCheck::default() };
    assert_eq!(answered(only.clone(), UNAVAILABLE), healthy("HTTP status 503"));
    assert_eq!(answered(only, OK), unhealthy("HTTP status 200"));
    assert_eq!(answered(HttpCheck::default(), b"HTTP/1.0 399\n"), healthy("HTTP status 399"));
}

#[test]
fn the_request_is_as_configured() {
    let check = HttpCheck {
        method: "HEAD".into(),
        path: "/health?deep=1".into(),
        headers: vec![("X-Check".into(), "yes".into()), ("user-agent".into(), "mine".into())],
        tls: Some(TlsCheck { sni: Some("app.internal".into()), ..TlsCheck::default() }),
        ..HttpCheck::default()
    };
    let request =
        b"HEAD /health?deep=1 HTTP/1.1\r\nHost: app.internal\r\nAccept: */*\r\nConnection: close\r\n\
        X-Check: yes\r\nuser-agent: mine\r\n\r\n";
    assert_eq!(play(&CheckKind::Http(check.clone()), &[(request, OK)]), healthy("HTTP status 200"));
    let named = HttpCheck { host: Some("app.example:8080".into()), ..check };
    let Step::Send(request) = start(&CheckKind::Http(named)).next(Event::Connected) else {
        panic!("a request")
    };
    assert!(text(&request).contains(r"\r\nHost: app.example:8080\r\n"));
}

#[test]
fn no_text_begins_a_line_of_its_own() {
    let header = |name: &str, value: &str| vec![(name.into(), value.into())];
    for check in [
        HttpCheck { method: "GET / HTTP/1.1\r\nX:".into(), ..HttpCheck::default() },
        HttpCheck { method: "".into(), ..HttpCheck::default() },
        HttpCheck { path: "/a b".into(), ..HttpCheck::default() },
        HttpCheck { host: Some("a\r\nX: y".into()), ..HttpCheck::default() },
        HttpCheck { headers: header("X", "a\nY: b"), ..HttpCheck::default() },
        HttpCheck { headers: header("X: a\r\nY", "b"), ..HttpCheck::default() },
        HttpCheck { headers: header("", "b"), ..HttpCheck::default() },
    ] {
        let step = start(&CheckKind::Http(check)).next(Event::Connected);
        assert_eq!(step, Step::Done(unhealthy("the request cannot be written")));
    }
}

#[test]
fn bodies_of_every_framing() {
    let until_close = b"HTTP/1.1 200 OK\r\n\r\nit is ok";
    let many_chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n\
        2;name=value\r\nit\r\n6\r\n is ok\r\n000\r\nTrailer: x\r\n\r\n";
    for answer in [OK, CHUNKED, &until_close[..], many_chunks] {
        assert_eq!(answered(with_text("is ok"), answer), healthy(AS_EXPECTED));
        assert_eq!(answered(with_text("not ok"), answer), unhealthy(ANOTHER));
        assert_eq!(answered(with_regex("^it.*ok"), answer), healthy(AS_EXPECTED));
        assert_eq!(answered(with_regex("^ok"), answer), unhealthy(ANOTHER));
    }
    let nothing = b"HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(answered(with_regex("^$"), nothing), healthy(AS_EXPECTED));
    assert_eq!(answered(with_text("ok"), nothing), unhealthy(ANOTHER));
    assert_eq!(answered(with_text("ok"), UNAVAILABLE), unhealthy("HTTP status 503"), "the status goes first");
}

#[test]
fn a_head_has_no_body() {
    let check = HttpCheck { method: "HEAD".into(), ..with_text("ok") };
    let mut conversation = start(&CheckKind::Http(check));
    conversation.next(Event::Connected);
    assert_eq!(conversation.next(Event::Received(OK)), Step::Done(unhealthy(ANOTHER)));
}

#[test]
fn bodies_that_end_too_early_or_lie() {
    let cut = "closed within the body";
    for (answer, reason) in [
        (&OK[..OK.len() - 1], cut),
        (&CHUNKED[..CHUNKED.len() - 5], cut),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nxxx", "two lengths of one body"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nxxx", "a length that is none"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "a chunk without a size"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n",
            "a chunk is longer than its size",
        ),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "a header without a name"),
    ] {
        assert_eq!(answered(with_regex("nothing"), answer), unhealthy(reason), "{}", text(answer));
    }
}

#[test]
fn as_much_of_the_body_is_looked_at_as_configured() {
    let check = |most| HttpCheck { max_body_bytes: most, ..with_text("ok") };
    assert_eq!(answered(check(8), OK), healthy(AS_EXPECTED));
    assert_eq!(answered(check(7), OK), unhealthy(ANOTHER));
    assert_eq!(answered(check(0), OK), unhealthy(ANOTHER));
    let head = b"HTTP/1.1 200 OK\r\n\r\n";
    let long = [&head[..], &vec![b'x'; HttpCheck::MAX_BODY_BYTES - 1], b"ok"].concat();
    assert_eq!(answered(check(usize::MAX), &long), unhealthy(ANOTHER), "never more than the most");
}

#[test]
fn interim_answers_are_passed_over() {
    let answer =
        [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", OK].concat();
    assert_eq!(answered(HttpCheck::default(), &answer), healthy("HTTP status 200"));
    assert_eq!(answered(with_text("ok"), &answer), healthy(AS_EXPECTED));
    assert_eq!(answered(HttpCheck::default(), b"HTTP/1.1 101 Switching\r\n"), unhealthy("HTTP status 101"));
}

#[test]
fn what_is_no_answer() {
    for (answer, reason) in [
        (&b""[..], "closed before it answered"),
        (b"HTTP/1.1 20", "closed before it answered"),
        (b"+PONG\r\n", "not HTTP"),
        (b"HTTP/2 200\r\n", "not HTTP"),
        (b"HTTP/1.1 2000\r\n", "not HTTP"),
        (b"HTTP/1.1 099\r\n", "not HTTP"),
        (b"HTTP/1.1  200\r\n", "not HTTP"),
        (b"HTTP/1.x 200\r\n", "not HTTP"),
    ] {
        assert_eq!(answered(HttpCheck::default(), answer), unhealthy(reason), "{}", text(answer));
    }
    let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(2000);
    assert_eq!(answered(HttpCheck::default(), &endless), unhealthy("the head is too long"));
    let line = [&b"HTTP/1.1 200 "[..], &vec![b'x'; 20_000]].concat();
    assert_eq!(answered(HttpCheck::default(), &line), unhealthy("a line is too long"));
}
