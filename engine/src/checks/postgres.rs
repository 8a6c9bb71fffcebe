//! The start of a session with PostgreSQL, and one question (protocol version 3; PostgreSQL's documentation, "Message
//! Formats").

use std::ops::ControlFlow;

use awe4lb_model::{BackendRole, PostgresCheck};
use md5::{Digest, Md5};

use super::{
    Refusal, Secrets, Verdict, role,
    scram::{self, Scram},
    talk::{Progress, Protocol, healthy, or_unhealthy, unhealthy},
};

const VERSION: u32 = 3 << 16;
const QUERY: &[u8] = b"SELECT pg_is_in_recovery()\0";
const TERMINATE: &[u8] = b"X\0\0\0\x04";
/// Nothing that a session starts with is longer.
const MAX_MESSAGE_BYTES: usize = 32 * 1024;
const NOT_POSTGRES: &str = "not PostgreSQL";
const ODD_MESSAGE: &str = "a message at a wrong place";

pub(super) struct Postgres {
    startup: Vec<u8>,
    user: Box<str>,
    password: Option<Vec<u8>>,
    role: BackendRole,
    nonce: String,
    scram: Option<Scram>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was said to us.
    Started,
    Authenticating,
    /// Until the server is ready.
    LoggedIn,
    /// Until the one row comes.
    Asked,
}

impl Postgres {
    pub(super) fn new(check: &PostgresCheck, secrets: Secrets<'_>, rng: u64) -> Result<Self, Refusal> {
        let password = secrets.optional(check.password.as_ref())?;
        let is_sendable = |text: &[u8]| !text.contains(&0);
        let texts =
            [check.user.as_bytes(), check.database.as_bytes(), password.as_deref().unwrap_or_default()];
        if !texts.into_iter().all(is_sendable) {
            return Err("the login cannot be written".to_owned());
        }
        Ok(Self {
            startup: startup(&check.user, &check.database),
            user: check.user.clone(),
            password,
            role: check.role,
            nonce: format!("awe4lb{rng:016x}"),
            scram: None,
            state: State::Started,
        })
    }

    fn message(&mut self, kind: u8, body: &[u8], out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        match (kind, self.state) {
            (b'E', _) => ControlFlow::Break(self.error(body)),
            (b'R', State::Started | State::Authenticating) => self.authentication(body, out),
            // Notices, parameters, the key to cancel with, and which version the server would rather speak.
            (b'N' | b'v', _) | (b'S' | b'K', State::LoggedIn | State::Asked) => ControlFlow::Continue(()),
            (b'Z', State::LoggedIn) if self.role == BackendRole::Any => healthy("ready"),
            (b'Z', State::LoggedIn) => {
                self.state = State::Asked;
                write(out, b'Q', QUERY);
                ControlFlow::Continue(())
            }
            (b'T', State::Asked) => ControlFlow::Continue(()),
            (b'D', State::Asked) => match body {
                [0, 1, 0, 0, 0, 1, b'f'] => {
                    ControlFlow::Break(role::verdict(self.role, BackendRole::Primary))
                }
                [0, 1, 0, 0, 0, 1, b't'] => {
                    ControlFlow::Break(role::verdict(self.role, BackendRole::Replica))
                }
                _ => unhealthy("not an answer about the role"),
            },
            _ => unhealthy(ODD_MESSAGE),
        }
    }

    fn authentication(&mut self, body: &[u8], out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        let (code, rest) = or_unhealthy(body.split_at_checked(4), NOT_POSTGRES)?;
        self.state = State::Authenticating;
        if code == [0, 0, 0, 0] {
            // Whoever began to prove itself must have done so: else anybody could say yes.
            if self.scram.as_ref().is_some_and(|scram| !scram.is_proven()) {
                return unhealthy("the server did not prove that it knows the password");
            }
            self.state = State::LoggedIn;
            return ControlFlow::Continue(());
        }
        let Some(password) = &self.password else {
            return match self.role {
                BackendRole::Any => healthy("asks for a password"),
                BackendRole::Primary | BackendRole::Replica => {
                    unhealthy("the role is not told without a password")
                }
            };
        };
        match code {
            [0, 0, 0, 3] => write(out, b'p', &[password, &[0][..]].concat()),
            [0, 0, 0, 5] => write(out, b'p', &md5_answer(password, self.user.as_bytes(), rest)),
            [0, 0, 0, 10] if rest.split(|byte| *byte == 0).any(|name| name == scram::MECHANISM) => {
                let scram = Scram::new("", self.nonce.clone(), password.clone());
                let first = scram.first();
                let length = (first.len() as u32).to_be_bytes();
                write(out, b'p', &[scram::MECHANISM, &[0], &length, &first].concat());
                self.scram = Some(scram);
            }
            [0, 0, 0, 11] => {
                let answer = self.scram.as_mut().and_then(|scram| scram.answer(rest));
                write(out, b'p', &or_unhealthy(answer, "authentication that cannot be answered")?);
            }
            [0, 0, 0, 12] => {
                if !self.scram.as_mut().is_some_and(|scram| scram.verify(rest)) {
                    return unhealthy("the server did not prove that it knows the password");
                }
            }
            _ => return unhealthy("asks for authentication that is not known here"),
        }
        ControlFlow::Continue(())
    }

    /// Whoever has no password is refused by a server that works: as a user, or a database, that it does not know.
    fn error(&self, body: &[u8]) -> Verdict {
        let state = sqlstate(body).unwrap_or("unknown");
        let refuses_us = state.starts_with("28") || state == "3D000" || state == "42501";
        let is_healthy = refuses_us && self.password.is_none() && self.role == BackendRole::Any;
        Verdict { is_healthy, reason: format!("answers with SQLSTATE {state}"), advice: None }
    }
}

impl Protocol for Postgres {
    fn open(&mut self, out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        out.append(&mut self.startup);
        ControlFlow::Continue(())
    }

    fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let kind = input.first().copied().unwrap_or_default();
        if self.state == State::Started && !matches!(kind, b'R' | b'E' | b'N' | b'v') {
            return unhealthy(NOT_POSTGRES);
        }
        let [_, a, b, c, d, rest @ ..] = input else { return Progress::Continue(None) };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if !(4..=MAX_MESSAGE_BYTES).contains(&length) {
            return unhealthy(NOT_POSTGRES);
        }
        let Some(body) = rest.get(..length - 4) else { return Progress::Continue(None) };
        self.message(kind, body, out)?;
        Progress::Continue(Some(1 + length))
    }

    fn goodbye(&self) -> &[u8] {
        if matches!(self.state, State::LoggedIn | State::Asked) { TERMINATE } else { &[] }
    }
}

fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = VERSION.to_be_bytes().to_vec();
    for text in ["user", user, "database", database, "application_name", "awe4lb"] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut startup = (body.len() as u32 + 4).to_be_bytes().to_vec();
    startup.append(&mut body);
    startup
}

fn write(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
}

fn md5_answer(password: &[u8], user: &[u8], salt: &[u8]) -> Vec<u8> {
    let stored = md5_hex(&[password, user]);
    format!("md5{}\0", md5_hex(&[stored.as_bytes(), salt])).into_bytes()
}

fn md5_hex(parts: &[&[u8]]) -> String {
    Md5::digest(parts.concat()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The code among the fields of an error.
fn sqlstate(body: &[u8]) -> Option<&str> {
    let field = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"))?;
    let is_code = field.len() == 5 && field.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    std::str::from_utf8(field).ok().filter(|_| is_code)
}
