//! The health service as grpcio 1.85 and grpc-js 1.14 answer, and nginx 1.22, which has none.

use awe4lb_model::{CheckKind, GrpcCheck, TlsCheck};

use super::*;

const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\
    \x00\x00^\x01\x04\x00\x00\x00\x01\x83\x86\x04\x1c/grpc.health.v1.Health/Check\x01\tlocalhost\x0f\x10\x10application/grpc\
    \x00\x02te\x08trailers\x00\nuser-agent\x06awe4lb";
const ABOUT_ALL: &[u8] = b"\x00\x00\x05\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00";
const ABOUT_APP: &[u8] = b"\x00\x00\n\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x05\n\x03app";

const SETTINGS: &[u8] =
    b"\x00\x00\x18\x04\x00\x00\x00\x00\x00\x00\x04\x00@\x00\x00\x00\x05\x00@\x00\x00\x00\x06\x00\x00@\x00\
    \xfe\x03\x00\x00\x00\x01\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00?\x00\x01";
const SETTINGS_ACK: &[u8] = b"\x00\x00\x00\x04\x01\x00\x00\x00\x00";
const UPDATE: &[u8] = b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x05";
const PING: &[u8] = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00u\x8b\x1e\xcc\xc6$W\xb4";
const PING_ACK: &[u8] = b"\x00\x00\x08\x06\x01\x00\x00\x00\x00u\x8b\x1e\xcc\xc6$W\xb4";
const HEADERS: &[u8] = b"\x00\x00O\x01\x04\x00\x00\x00\x01 \x88@\x0ccontent-type\x10application/grpc\
    @\x14grpc-accept-encoding\x17identity, deflate, gzip";
const SERVING: &[u8] = b"\x00\x00\x07\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x02\x08\x01";
const NOT_SERVING: &[u8] = b"\x00\x00\x07\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x02\x08\x02";
const EMPTY: &[u8] = b"\x00\x00\x05\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00";
const STATUS_0: &[u8] = b"\x00\x00\x1e\x01\x05\x00\x00\x00\x01@\x0bgrpc-status\x010\x00\x0cgrpc-message\x00";
const STATUS_5: &[u8] = b"\x00\x00\x1e\x01\x05\x00\x00\x00\x01@\x0bgrpc-status\x015\x00\x0cgrpc-message\x00";
const RESET: &[u8] = b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08";
const GOAWAY: &[u8] = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0b";

/// Settings and a ping as grpcio sends them, and then this.
fn grpcio(frames: &[&[u8]]) -> Verdict {
    let request = [START, ABOUT_ALL].concat();
    let pinged = [SETTINGS_ACK, UPDATE, PING].concat();
    let turns: [Turn<'_>; 3] = [(&request, SETTINGS), (SETTINGS_ACK, &pinged), (PING_ACK, &frames.concat())];
    play(&CheckKind::Grpc(GrpcCheck::default()), &turns)
}

#[test]
fn grpcio_says_how_it_is() {
    assert_eq!(grpcio(&[HEADERS, SERVING, STATUS_0]), healthy("SERVING"));
    assert_eq!(grpcio(&[HEADERS, NOT_SERVING, STATUS_0]), unhealthy("NOT_SERVING"));
    assert_eq!(grpcio(&[HEADERS, EMPTY, STATUS_0]), unhealthy("UNKNOWN"));
    assert_eq!(grpcio(&[HEADERS, EMPTY, STATUS_5]), unhealthy("grpc-status 5"), "no such service");
    assert_eq!(
        grpcio(&[HEADERS, SERVING, STATUS_5]),
        unhealthy("grpc-status 5"),
        "the status has the last word"
    );
    let no_method =
        b"\x00\x00Q\x01\x05\x00\x00\x00\x01 \x88@\x0ccontent-type\x10application/grpc@\x0bgrpc-status\x0212\
        \x00\x0cgrpc-message\x11Method not found!";
    assert_eq!(grpcio(&[no_method]), unhealthy("grpc-status 12"));
}

#[test]
fn grpc_js_compresses_its_fields() {
    let headers = b"\x00\x00c\x01\x04\x00\x00\x00\x01 \x88\x0f\x10\x90\x1du\xd0b\r&=LMed\xffu\xd8t\x9f\
        \x00\x8e\x9a\xca\xc8\xb0\xc8B\xd6\x95\x8bQ\x0f!\xaa\x9b\x904\x85\xa9&O\xaf\xa9\x0b-\x03I~\xa6\xf6j\xff\
        \x00\x8a\x9a\xca\xc8\xb1j!\xe45S\x7f\x864\x85\xa9&O\xaf\
        \x0f\x12\x97\xdfi~\x94\x13Ji?u\x04\x018\xa0\x19\xb8\xdb\xf7\x19iLZ7\xff";
    let trailers = b"\x00\x00\x1a\x01\x05\x00\x00\x00\x01\x00\x88\x9a\xca\xc8\xb2\x124\xda\x8f\x010\
        \x00\x89\x9a\xca\xc8\xb5%B\x071\x7f\x02OK";
    let not_found = b"\x00\x00T\x01\x05\x00\x00\x00\x01 \x88\x00\x88\x9a\xca\xc8\xb2\x124\xda\x8f\x015\
        \x00\x89\x9a\xca\xc8\xb5%B\x071\x7f\x8d\xb6\xae\xb5\x1f\xc5J\x88\x08-\x9d\xccB\xff\
        \x0f\x10\x90\x1du\xd0b\r&=LMed\xffu\xd8t\x9f\
        \x0f\x12\x97\xdfi~\x94\x13Ji?u\x04\x018\xa0\x19\xb8\xdb\xf7\x19iLZ7\xff";
    let play = |answer: &[u8]| {
        let check = GrpcCheck { service: "app".into(), ..GrpcCheck::default() };
        let request = [START, ABOUT_APP].concat();
        let answer = [SETTINGS_ACK, answer].concat();
        let turns: [Turn<'_>; 2] =
            [(&request, b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), (SETTINGS_ACK, &answer)];
        play(&CheckKind::Grpc(check), &turns)
    };
    assert_eq!(play(&[headers, SERVING, trailers].concat()), healthy("SERVING"));
    assert_eq!(play(not_found), unhealthy("grpc-status 5"));
}

#[test]
fn nginx_has_no_such_page() {
    let answer = b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00\x00\x05\x00\xff\xff\xff\
        \x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\
        \x00\x004\x01\x04\x00\x00\x00\x01 \x8dv\x89\xaacU\xe5\x80\xae!.\x1fa\x97\xdfi~\x94\x13Ji?u\x04\x018\xa0\x19\xb8\xdb\
        \xd7\x1byLZ7\xff_\x87I|\xa5\x89\xd3M\x1f\\\x03153";
    let kind = CheckKind::Grpc(GrpcCheck::default());
    let request = [START, ABOUT_ALL].concat();
    assert_eq!(play(&kind, &[(&request, answer)]), unhealthy("HTTP status 404"));
    let http1 = b"HTTP/1.1 400 Bad Request\r\nServer: nginx/1.22.1\r\n\r\n";
    assert_eq!(play(&kind, &[(&request, http1)]), unhealthy("not HTTP/2"));
    let redis = b"-ERR unknown command 'PRI', with args beginning with: '*' 'HTTP/2.0' \r\n";
    assert_eq!(play(&kind, &[(&request, redis)]), unhealthy("not HTTP/2"));
    assert_eq!(play(&kind, &[(&request, b"")]), unhealthy("closed before it answered"));
}

#[test]
fn streams_and_servers_that_give_up() {
    assert_eq!(grpcio(&[HEADERS, RESET]), unhealthy("the stream was reset with code 8"));
    assert_eq!(grpcio(&[GOAWAY]), unhealthy("the server goes away with code 11"));
    assert_eq!(grpcio(&[HEADERS, SERVING]), unhealthy("closed before it answered"));
    let ends = b"\x00\x00\x00\x00\x01\x00\x00\x00\x01";
    assert_eq!(grpcio(&[HEADERS, ends]), unhealthy("no answer in the response"));
}

#[test]
fn messages_in_any_frames() {
    let padded = b"\x00\x00\x04\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00";
    let rest = b"\x00\x00\x05\x00\x01\x00\x00\x00\x01\x00\x00\x02\x08\x01";
    assert_eq!(grpcio(&[HEADERS, padded, rest]), healthy("SERVING"));
    let lying = b"\x00\x00\x02\x00\x08\x00\x00\x00\x01\x05\x00";
    assert_eq!(grpcio(&[HEADERS, lying]), unhealthy("not HTTP/2"), "more padding than payload");
    let compressed = b"\x00\x00\x07\x00\x00\x00\x00\x00\x01\x01\x00\x00\x00\x02\x08\x01";
    assert_eq!(grpcio(&[HEADERS, compressed]), unhealthy("not an answer about health"));
    let long = b"\x00\x00\x05\x00\x00\x00\x00\x00\x01\x00\x00\x01\x00\x00";
    assert_eq!(grpcio(&[HEADERS, long]), unhealthy("not an answer about health"));
    assert_eq!(grpcio(&[HEADERS, SERVING, SERVING]), unhealthy("more than one answer"));
}

#[test]
fn fields_in_any_frames() {
    // The priority that some send before the fields, and fields that go on.
    let first = b"\x00\x00\x06\x01\x20\x00\x00\x00\x01\x80\x00\x00\x00\x0f\x88";
    let second = b"\x00\x00\x08\x09\x00\x00\x00\x00\x01\x00\x0bgrpc-s";
    let third = b"\x00\x00\x07\x09\x04\x00\x00\x00\x01tatus\x017";
    assert_eq!(grpcio(&[first, second, third]), unhealthy("grpc-status 7"));
    assert_eq!(grpcio(&[first, SERVING]), unhealthy("a frame at a wrong place"));
    assert_eq!(grpcio(&[third]), unhealthy("a frame at a wrong place"));
    let broken = b"\x00\x00\x03\x01\x04\x00\x00\x00\x01\x00\x0bg";
    assert_eq!(grpcio(&[broken]), unhealthy("fields that cannot be read"));
    let on = [&b"\x00\x40\x00\x09\x00\x00\x00\x00\x01"[..], &[0; 16 * 1024]].concat();
    assert_eq!(grpcio(&[first, &on]), unhealthy("the head is too long"));
    let too_long = b"\x00\x40\x01\x00\x00\x00\x00\x00\x01";
    assert_eq!(grpcio(&[too_long]), unhealthy("a frame is too long"));
    let push = b"\x00\x00\x04\x05\x04\x00\x00\x00\x01\x00\x00\x00\x02";
    assert_eq!(grpcio(&[push]), unhealthy("an answer that was not asked for"));
}

#[test]
fn what_is_asked_within_tls() {
    let tls = Some(TlsCheck { sni: Some("app.internal".into()), ..TlsCheck::default() });
    let check = GrpcCheck { tls, service: "s".repeat(300).into(), authority: None };
    let Step::Send(request) = start(&CheckKind::Grpc(check)).next(Event::Connected) else {
        panic!("a request")
    };
    let request = text(&request);
    assert!(request.contains(r"\x83\x87\x04") && request.contains(r"\x01\x0capp.internal"), "{request}");
    assert!(request.contains(r"\x00\x00\x00\x01/\n\xac\x02sss"), "{request}");
    let check = GrpcCheck { authority: Some("a b".into()), ..GrpcCheck::default() };
    let step = start(&CheckKind::Grpc(check)).next(Event::Connected);
    assert_eq!(step, Step::Done(unhealthy("the request cannot be written")));
}

#[test]
fn it_says_goodbye_to_who_understood() {
    let mut conversation = start(&CheckKind::Grpc(GrpcCheck::default()));
    conversation.next(Event::Connected);
    assert_eq!(conversation.goodbye(), b"");
    conversation.next(Event::Received(SETTINGS));
    assert_eq!(
        conversation.goodbye(),
        b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    );
}
