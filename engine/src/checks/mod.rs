//! Health checks as conversations: what to say to a backend, and what its answers mean. No sockets, no TLS, no clock.
//!
//! The driver connects, within TLS where [`CheckKind::tls`] says so, and does as each [`Step`] says until the verdict:
//!
//! 1. [`Event::Connected`] comes first, once.
//! 2. After [`Step::Send`] it writes all of it, and after that waits for the backend just as after [`Step::Receive`]:
//!    the next event is [`Event::Received`], or [`Event::Closed`] where the backend closed (or resets, or refuses).
//! 3. After [`Step::Done`] it tries once to write [`Conversation::goodbye`], waits for nothing, and closes. Whoever
//!    goes on hears the same verdict again.
//!
//! A stream may come in any pieces: they do not change the verdict. Of datagrams each is one [`Event::Received`], and may
//! be empty. How long all of this may take is the driver's to limit; how much is read is limited here.

mod advice;
mod agent;
mod dns;
mod grpc;
mod hpack;
mod http;
mod http_body;
mod matcher;
mod mysql;
mod mysql_auth;
mod postgres;
mod redis;
mod role;
mod scram;
mod script;
mod talk;
#[cfg(test)]
mod tests;
mod udp;

pub use advice::{Advice, AgentAdmin, AgentHealth};
pub use talk::{MAX_BUFFERED_BYTES, MAX_RECEIVED_BYTES};

use awe4lb_model::{CheckKind, Name, Payload};
use talk::{Protocol, Talk};

/// One check of one backend, from connecting to the verdict.
pub trait Conversation: Send {
    /// Takes what happened; what to do now.
    fn next(&mut self, event: Event<'_>) -> Step;

    /// After the verdict: what a polite client says before it closes. Often nothing.
    fn goodbye(&self) -> &[u8] {
        &[]
    }
}

/// What happened on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// It is open, TLS included.
    Connected,
    /// These bytes came: the next piece of the stream, or one datagram.
    Received(&'a [u8]),
    /// Nothing more will come.
    Closed,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write all of this, then wait for the next event.
    Send(Vec<u8>),
    /// Wait for the next event.
    Receive,
    /// It is over.
    Done(Verdict),
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the backend is as it was asked to be.
    pub is_healthy: bool,
    /// Why, in a few words: the same words for the same cause, and nothing that the backend wrote but codes.
    pub reason: String,
    /// What an agent said besides.
    pub advice: Option<Advice>,
}

impl Verdict {
    fn healthy(reason: impl Into<String>) -> Self {
        Self { is_healthy: true, reason: reason.into(), advice: None }
    }

    fn unhealthy(reason: impl Into<String>) -> Self {
        Self { is_healthy: false, reason: reason.into(), advice: None }
    }
}

/// The conversation of a check. `None` for those that say nothing: TCP, TLS and exec.
///
/// `secrets` gives the values of secrets by name, `rng` is one random number of this check alone. What cannot be asked
/// (a secret that is not here, an expression that does not compile) is a conversation that ends with that verdict.
pub fn conversation(
    kind: &CheckKind,
    secrets: &dyn Fn(&str) -> Option<Vec<u8>>,
    rng: u64,
) -> Option<Box<dyn Conversation>> {
    let secrets = Secrets(secrets);
    let conversation = match kind {
        CheckKind::Tcp | CheckKind::Tls(_) | CheckKind::Exec(_) => return None,
        CheckKind::Http(check) => http::Http::new(check).map(talk),
        CheckKind::Grpc(check) => grpc::Grpc::new(check).map(talk),
        CheckKind::Udp(check) => udp::Udp::new(check, secrets).map(boxed),
        CheckKind::Dns(check) => dns::Dns::new(check, rng).map(boxed),
        CheckKind::Script(check) => script::Script::new(check, secrets).map(talk),
        CheckKind::Postgres(check) => postgres::Postgres::new(check, secrets, rng).map(talk),
        CheckKind::Mysql(check) => mysql::Mysql::new(check, secrets).map(talk),
        CheckKind::Redis(check) => redis::Redis::new(check, secrets).map(talk),
        CheckKind::Agent => Ok(talk(agent::Agent)),
    };
    Some(conversation.unwrap_or_else(|reason| boxed(Settled(Verdict::unhealthy(reason)))))
}

/// Why a check cannot be asked at all.
type Refusal = String;

fn talk(protocol: impl Protocol + 'static) -> Box<dyn Conversation> {
    boxed(Talk::new(protocol))
}

fn boxed(conversation: impl Conversation + 'static) -> Box<dyn Conversation> {
    Box::new(conversation)
}

/// Where the values of secrets come from.
#[derive(Clone, Copy)]
struct Secrets<'a>(&'a dyn Fn(&str) -> Option<Vec<u8>>);

impl Secrets<'_> {
    fn value(&self, name: &Name) -> Result<Vec<u8>, Refusal> {
        (self.0)(name.as_str()).ok_or_else(|| format!("the secret {name} is not here"))
    }

    fn optional(&self, name: Option<&Name>) -> Result<Option<Vec<u8>>, Refusal> {
        name.map(|name| self.value(name)).transpose()
    }

    fn payload(&self, payload: &Payload) -> Result<Vec<u8>, Refusal> {
        match payload {
            Payload::Bytes(bytes) => Ok(bytes.clone()),
            Payload::Secret(name) => self.value(name),
        }
    }
}

/// A verdict that was known before anything was asked.
struct Settled(Verdict);

impl Conversation for Settled {
    fn next(&mut self, _: Event<'_>) -> Step {
        Step::Done(self.0.clone())
    }
}
