//! One request of HTTP/1.1 (RFC 9112), and as much of the answer as is needed: the status, or a body that holds
//! something.

use std::ops::{ControlFlow, RangeInclusive};

use awe4lb_model::{HttpCheck, TlsCheck};

use super::{
    Refusal, Verdict,
    http_body::{Body, Framing},
    matcher::Matcher,
    talk::{Progress, Protocol, healthy, line, unhealthy},
};

const MAX_LINE_BYTES: usize = 16 * 1024;
/// Of the answer's head, with the heads of interim answers before it.
const MAX_HEAD_BYTES: usize = 32 * 1024;
const VERSION: &[u8] = b"HTTP/1.";

pub(super) struct Http {
    request: Vec<u8>,
    expected: Vec<RangeInclusive<u16>>,
    /// What the body must hold, and how much of it is looked at.
    pattern: Option<(Matcher, usize)>,
    is_head: bool,
    head_bytes: usize,
    reading: Reading,
}

enum Reading {
    StatusLine,
    /// Of an answer with this status.
    Headers {
        status: u16,
        framing: Framing,
    },
    Body(Body),
}

impl Http {
    pub(super) fn new(check: &HttpCheck) -> Result<Self, Refusal> {
        let pattern = check.body.as_ref().map(Matcher::new).transpose()?;
        let most = check.max_body_bytes.min(HttpCheck::MAX_BODY_BYTES);
        Ok(Self {
            request: request(check)?,
            expected: check.expected.clone(),
            pattern: pattern.map(|pattern| (pattern, most)),
            is_head: check.method.eq_ignore_ascii_case("HEAD"),
            head_bytes: 0,
            reading: Reading::StatusLine,
        })
    }

    fn status_line(&mut self, line: &[u8]) -> ControlFlow<Verdict> {
        let Some(status) = status(line) else { return unhealthy("not HTTP") };
        // Interim answers, but 101: that one is final.
        let is_interim = (100..200).contains(&status) && status != 101;
        if !is_interim {
            let said = format!("HTTP status {status}");
            if !self.expected.iter().any(|range| range.contains(&status)) {
                return unhealthy(said);
            }
            if self.pattern.is_none() {
                return healthy(said);
            }
        }
        self.reading = Reading::Headers { status, framing: Framing::UntilClose };
        ControlFlow::Continue(())
    }

    /// The empty line behind the headers.
    fn head_ends(&mut self, status: u16, framing: Framing) -> ControlFlow<Verdict> {
        if (100..200).contains(&status) && status != 101 {
            self.reading = Reading::StatusLine;
            return ControlFlow::Continue(());
        }
        let has_body = !self.is_head && !matches!(status, 101 | 204 | 304);
        let framing = if has_body { framing } else { Framing::Length(0) };
        // The status line has ended the conversation where there is no pattern.
        let Some((pattern, most)) = self.pattern.take() else {
            return healthy(format!("HTTP status {status}"));
        };
        let body = Body::new(pattern, most, framing);
        body.start()?;
        self.reading = Reading::Body(body);
        ControlFlow::Continue(())
    }
}

impl Protocol for Http {
    fn open(&mut self, out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        out.append(&mut self.request);
        ControlFlow::Continue(())
    }

    fn read(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Progress {
        if let Reading::Body(body) = &mut self.reading {
            return body.read(input);
        }
        let start = &input[..input.len().min(VERSION.len())];
        if matches!(self.reading, Reading::StatusLine) && !VERSION.starts_with(start) {
            return unhealthy("not HTTP");
        }
        let Some((line, length)) = line(input, MAX_LINE_BYTES)? else { return Progress::Continue(None) };
        self.head_bytes += length;
        if self.head_bytes > MAX_HEAD_BYTES {
            return unhealthy("the head is too long");
        }
        match &mut self.reading {
            Reading::Headers { status, framing } if line.is_empty() => {
                let (status, framing) = (*status, *framing);
                self.head_ends(status, framing)?;
            }
            Reading::Headers { framing, .. } => *framing = framing.with_header(line)?,
            Reading::StatusLine | Reading::Body(_) => self.status_line(line)?,
        }
        Progress::Continue(Some(length))
    }

    fn close(&mut self, _rest: &[u8]) -> Verdict {
        match &self.reading {
            Reading::Body(body) => body.close(),
            Reading::StatusLine | Reading::Headers { .. } => Verdict::unhealthy("closed before it answered"),
        }
    }
}

fn status(line: &[u8]) -> Option<u16> {
    let [minor, b' ', code @ ..] = line.strip_prefix(VERSION)? else { return None };
    let (code, behind) = code.split_at_checked(3)?;
    let is_well_formed =
        minor.is_ascii_digit() && code.iter().all(u8::is_ascii_digit) && matches!(behind, [] | [b' ', ..]);
    let status = std::str::from_utf8(code).ok()?.parse().ok()?;
    (is_well_formed && status >= 100).then_some(status)
}

/// The request as it is sent. Refused where a text would begin a line of its own.
fn request(check: &HttpCheck) -> Result<Vec<u8>, Refusal> {
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_value = |text: &str| text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control());
    let host = host(check.host.as_deref(), check.tls.as_ref());
    let is_sendable = is_token(&check.method)
        && is_token(&check.path)
        && is_value(host)
        && check.headers.iter().all(|(name, value)| is_token(name) && !name.contains(':') && is_value(value));
    if !is_sendable {
        return Err("the request cannot be written".to_owned());
    }
    let mut request = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", check.method, check.path);
    let is_given = |name: &str| check.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    for (name, value) in [("User-Agent", "awe4lb"), ("Accept", "*/*"), ("Connection", "close")] {
        if !is_given(name) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for (name, value) in &check.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    Ok(request.into_bytes())
}

/// Whom a request is for: as it was given, as TLS asks for it, or nobody in particular.
pub(super) fn host<'a>(given: Option<&'a str>, tls: Option<&'a TlsCheck>) -> &'a str {
    given.or_else(|| tls?.sni.as_deref()).unwrap_or("localhost")
}
