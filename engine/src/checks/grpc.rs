//! `grpc.health.v1.Health/Check`: one request over HTTP/2 (RFC 9113) and the status in its answer.

use std::ops::ControlFlow;

use awe4lb_model::GrpcCheck;

use super::{
    Refusal, Verdict, hpack,
    http::host,
    talk::{Progress, Protocol, healthy, or_unhealthy, unhealthy},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const METHOD: &[u8] = b"/grpc.health.v1.Health/Check";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS.
const END_STREAM: u8 = 1;
/// Of SETTINGS and PING.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

const FRAME_HEADER: usize = 9;
const PING_BYTES: usize = 8;
/// We allow no longer ones.
const MAX_FRAME_BYTES: usize = 16 * 1024;
/// A health check's answer has two bytes.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;
const MAX_FIELDS_BYTES: usize = 16 * 1024;
const MAX_NAME_BYTES: usize = 1024;

/// Without a push, and without a table of fields to keep.
const OUR_SETTINGS: &[u8] = &[0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];
/// The last stream was none of the server's, and there was no error.
const OUR_GOAWAY: &[u8] = &[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const NOT_HTTP2: &str = "not HTTP/2";

pub(super) struct Grpc {
    request: Vec<u8>,
    has_settings: bool,
    /// A block of fields that goes on in another frame, and whether the stream ends with it.
    fields: Option<(Vec<u8>, bool)>,
    /// What came of the message, its prefix included.
    message: Vec<u8>,
    /// What it says: it counts when the stream ends, and no status behind it says that it does not.
    serving: Option<u64>,
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl Grpc {
    pub(super) fn new(check: &GrpcCheck) -> Result<Self, Refusal> {
        let authority = host(check.authority.as_deref(), check.tls.as_ref());
        let is_sendable = check.service.len() <= MAX_NAME_BYTES
            && authority.len() <= MAX_NAME_BYTES
            && authority.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_sendable {
            return Err("the request cannot be written".to_owned());
        }
        let request = request(&check.service, authority, check.tls.is_some());
        Ok(Self { request, has_settings: false, fields: None, message: Vec::new(), serving: None })
    }

    fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        if self.fields.is_some() != (frame.kind == CONTINUATION) {
            return unhealthy("a frame at a wrong place");
        }
        match frame.kind {
            DATA if frame.stream == 1 => {
                let data = or_unhealthy(unpadded(frame), NOT_HTTP2)?;
                self.data(data)?;
                self.ends(frame.flags & END_STREAM != 0)
            }
            HEADERS if frame.stream == 1 => {
                let block = or_unhealthy(
                    unpadded(frame).and_then(|block| without_priority(frame, block)),
                    NOT_HTTP2,
                )?;
                self.fields = Some((Vec::new(), frame.flags & END_STREAM != 0));
                self.block(block, frame.flags)
            }
            CONTINUATION if frame.stream == 1 => self.block(frame.payload, frame.flags),
            SETTINGS if frame.flags & ACK == 0 => {
                self.has_settings = true;
                write_frame(out, SETTINGS, ACK, 0, &[]);
                ControlFlow::Continue(())
            }
            PING if frame.payload.len() != PING_BYTES => unhealthy(NOT_HTTP2),
            PING if frame.flags & ACK == 0 => {
                write_frame(out, PING, ACK, 0, frame.payload);
                ControlFlow::Continue(())
            }
            RST_STREAM => unhealthy(format!("the stream was reset with code {}", code(frame.payload, 0))),
            GOAWAY => unhealthy(format!("the server goes away with code {}", code(frame.payload, 4))),
            DATA | HEADERS | CONTINUATION | PUSH_PROMISE => unhealthy("an answer that was not asked for"),
            _ => ControlFlow::Continue(()),
        }
    }

    fn block(&mut self, block: &[u8], flags: u8) -> ControlFlow<Verdict> {
        let Some((fields, _)) = &mut self.fields else { return ControlFlow::Continue(()) };
        fields.extend_from_slice(block);
        if fields.len() > MAX_FIELDS_BYTES {
            return unhealthy("the head is too long");
        }
        if flags & END_HEADERS == 0 {
            return ControlFlow::Continue(());
        }
        let (fields, ends) = self.fields.take().unwrap_or_default();
        let fields = or_unhealthy(hpack::read(&fields), "fields that cannot be read")?;
        match fields {
            hpack::Fields { status: Some(status), .. } if status != 200 => {
                unhealthy(format!("HTTP status {status}"))
            }
            hpack::Fields { grpc_status: Some(status), .. } if status != 0 => {
                unhealthy(format!("grpc-status {status}"))
            }
            _ => self.ends(ends),
        }
    }

    /// A prefix of whether it is compressed and how long it is, and a `HealthCheckResponse`.
    fn data(&mut self, data: &[u8]) -> ControlFlow<Verdict> {
        self.message.extend_from_slice(data);
        if self.serving.is_some() && !data.is_empty() {
            return unhealthy("more than one answer");
        }
        let [compressed, a, b, c, d, message @ ..] = &self.message[..] else {
            return ControlFlow::Continue(());
        };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if *compressed != 0 || length > MAX_MESSAGE_BYTES {
            return unhealthy("not an answer about health");
        }
        let Some(message) = message.get(..length) else { return ControlFlow::Continue(()) };
        self.serving = Some(or_unhealthy(serving_status(message), "not an answer about health")?);
        ControlFlow::Continue(())
    }

    fn ends(&self, ends: bool) -> ControlFlow<Verdict> {
        match self.serving {
            _ if !ends => ControlFlow::Continue(()),
            Some(0) => unhealthy("UNKNOWN"),
            Some(1) => healthy("SERVING"),
            Some(2) => unhealthy("NOT_SERVING"),
            Some(3) => unhealthy("SERVICE_UNKNOWN"),
            Some(_) => unhealthy("not an answer about health"),
            None => unhealthy("no answer in the response"),
        }
    }
}

impl Protocol for Grpc {
    fn open(&mut self, out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        out.append(&mut self.request);
        ControlFlow::Continue(())
    }

    fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let [a, b, c, kind, flags, s1, s2, s3, s4, payload @ ..] = input else {
            return Progress::Continue(None);
        };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        // Whatever speaks HTTP/2 begins with its settings.
        if !self.has_settings && (*kind != SETTINGS || flags & ACK != 0) {
            return unhealthy(NOT_HTTP2);
        }
        if length > MAX_FRAME_BYTES {
            return unhealthy("a frame is too long");
        }
        let Some(payload) = payload.get(..length) else { return Progress::Continue(None) };
        let stream = u32::from_be_bytes([*s1, *s2, *s3, *s4]) & 0x7fff_ffff;
        self.frame(&Frame { kind: *kind, flags: *flags, stream, payload }, out)?;
        Progress::Continue(Some(FRAME_HEADER + length))
    }

    fn goodbye(&self) -> &[u8] {
        if self.has_settings { OUR_GOAWAY } else { &[] }
    }
}

fn request(service: &str, authority: &str, is_tls: bool) -> Vec<u8> {
    let mut fields = Vec::new();
    hpack::write_indexed(&mut fields, hpack::METHOD_POST);
    hpack::write_indexed(&mut fields, if is_tls { hpack::SCHEME_HTTPS } else { hpack::SCHEME_HTTP });
    hpack::write_named(&mut fields, hpack::PATH, METHOD);
    hpack::write_named(&mut fields, hpack::AUTHORITY, authority.as_bytes());
    hpack::write_named(&mut fields, hpack::CONTENT_TYPE, b"application/grpc");
    hpack::write_field(&mut fields, b"te", b"trailers");
    hpack::write_field(&mut fields, b"user-agent", b"awe4lb");

    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2); // HealthCheckRequest.service
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut data = vec![0];
    data.extend_from_slice(&(message.len() as u32).to_be_bytes());
    data.append(&mut message);

    let mut request = PREFACE.to_vec();
    write_frame(&mut request, SETTINGS, 0, 0, OUR_SETTINGS);
    write_frame(&mut request, HEADERS, END_HEADERS, 1, &fields);
    write_frame(&mut request, DATA, END_STREAM, 1, &data);
    request
}

fn write_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn unpadded<'a>(frame: &Frame<'a>) -> Option<&'a [u8]> {
    if frame.flags & PADDED == 0 {
        return Some(frame.payload);
    }
    let (padding, rest) = frame.payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

fn without_priority<'a>(frame: &Frame<'_>, block: &'a [u8]) -> Option<&'a [u8]> {
    if frame.flags & PRIORITY == 0 { Some(block) } else { block.get(5..) }
}

/// An error code in the payload of a frame.
fn code(payload: &[u8], at: usize) -> u32 {
    let code = payload.get(at..at + 4).and_then(|code| code.try_into().ok());
    code.map_or(0, u32::from_be_bytes)
}

/// `HealthCheckResponse.status`; 0 when it is not there, `None` when this is no message.
fn serving_status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
