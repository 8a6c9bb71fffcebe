//! http-01: the answer to a question for a token (RFC 8555 section 8.3), on listeners that opt in.

use std::{rc::Rc, time::Duration};

use awe4lb_engine::challenge::{Request, read};
use awe4lb_model::EndReason;

use super::overhear::{Next, next};
use crate::traffic::{preamble::say, socket::Socket, timers::Timer, worker::Worker};

/// How long a client may take to end after the answer. Closed before, what it still sends would cost it the answer.
const LINGER: Duration = Duration::from_secs(2);
/// What it may still send.
const LINGER_BYTES: usize = 64 * 1024;

/// Reads until it is clear whether a client asks for a token, and answers if it does. `None`: it wants something else, or
/// takes longer than the deadline to say so; `first` is what it said.
pub(in crate::traffic) async fn answer(
    worker: &Rc<Worker>,
    client: &Socket,
    first: &mut Vec<u8>,
    deadline: &Timer,
) -> Option<EndReason> {
    let key_authorization = loop {
        let of = |token| worker.challenges().of_token(token, worker.timers().now());
        match read(first) {
            Request::Other => return None,
            Request::Whole(token) => break of(token)?,
            // A token that nobody knows need not be waited for.
            Request::Line(token) => drop(of(token)?),
            Request::NeedMore => {}
        }
        match next(worker, client, None, deadline).await {
            Next::Bytes(mut bytes) => first.append(&mut bytes),
            Next::Quiet | Next::End => return None,
            Next::Broken(_) => return Some(EndReason::ClientReset),
        }
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n\
         {key_authorization}",
        key_authorization.len()
    );
    if let Err(reason) = say(client, answer.as_bytes(), deadline).await {
        return Some(reason);
    }
    client.shutdown_write();
    let linger = worker.timers().arm(LINGER);
    let mut surplus = 0;
    while surplus < LINGER_BYTES
        && let Next::Bytes(bytes) = next(worker, client, None, &linger).await
    {
        surplus += bytes.len();
    }
    Some(EndReason::ChallengeAnswered)
}
