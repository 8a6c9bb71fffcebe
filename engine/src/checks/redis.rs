//! PING, and what comes before (the protocol of Redis, RESP2).

use std::ops::ControlFlow;

use awe4lb_model::{BackendRole, RedisCheck};

use super::{
    Refusal, Secrets, Verdict, role,
    talk::{Progress, Protocol, healthy, line, unhealthy},
};

/// Errors have a text behind their code.
const MAX_LINE_BYTES: usize = 4 * 1024;
const MAX_CODE_BYTES: usize = 20;

pub(super) struct Redis {
    /// AUTH, if there is anything to say.
    login: Option<Vec<u8>>,
    role: BackendRole,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for the answer to AUTH.
    Auth,
    Ping,
    /// Waits for an array, the length of its first item, and the item.
    Role,
    RoleLength,
    RoleName(usize),
}

impl Redis {
    pub(super) fn new(check: &RedisCheck, secrets: Secrets<'_>) -> Result<Self, Refusal> {
        let password = secrets.optional(check.password.as_ref())?;
        let login = match (&check.user, password) {
            (None, None) => None,
            (None, Some(password)) => Some(command(&[b"AUTH", &password])),
            (Some(user), password) => {
                Some(command(&[b"AUTH", user.as_bytes(), password.as_deref().unwrap_or_default()]))
            }
        };
        let state = if login.is_some() { State::Auth } else { State::Ping };
        Ok(Self { login, role: check.role, state })
    }

    fn reply(&mut self, line: &[u8], out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        match (self.state, line) {
            (State::Auth | State::Ping | State::Role, [b'-', error @ ..]) => {
                unhealthy(format!("answers with {}", code(error)))
            }
            (State::Auth, b"+OK") => self.say(State::Ping, &[b"PING"], out),
            (State::Ping, b"+PONG") if self.role == BackendRole::Any => healthy("PONG"),
            (State::Ping, b"+PONG") => self.say(State::Role, &[b"ROLE"], out),
            (State::Role, [b'*', b'1'..=b'9', ..]) => {
                self.state = State::RoleLength;
                ControlFlow::Continue(())
            }
            (State::RoleLength, [b'$', length @ ..]) => {
                // `master`, `slave` or `sentinel`.
                let [length @ b'1'..=b'9'] = length else { return unhealthy("not an answer about the role") };
                self.state = State::RoleName(usize::from(length - b'0'));
                ControlFlow::Continue(())
            }
            (State::RoleName(length), name) if name.len() == length => {
                let found = match name {
                    b"master" => BackendRole::Primary,
                    b"slave" | b"replica" => BackendRole::Replica,
                    _ => BackendRole::Any,
                };
                ControlFlow::Break(role::verdict(self.role, found))
            }
            _ => unhealthy("not Redis"),
        }
    }

    fn say(&mut self, state: State, words: &[&[u8]], out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        self.state = state;
        out.extend_from_slice(&command(words));
        ControlFlow::Continue(())
    }
}

impl Protocol for Redis {
    fn open(&mut self, out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        out.extend_from_slice(&self.login.take().unwrap_or_else(|| command(&[b"PING"])));
        ControlFlow::Continue(())
    }

    fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        // Another protocol may never end a line.
        let is_item = matches!(self.state, State::RoleName(_));
        if !is_item && !input.first().is_some_and(|kind| b"+-:$*".contains(kind)) {
            return unhealthy("not Redis");
        }
        let Some((line, length)) = line(input, MAX_LINE_BYTES)? else { return Progress::Continue(None) };
        self.reply(line, out)?;
        Progress::Continue(Some(length))
    }
}

/// An array of texts.
fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    command
}

/// The first word of an error, if it looks like a code: `LOADING`, `NOAUTH`.
fn code(error: &[u8]) -> &str {
    let word = error.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_code = (1..=MAX_CODE_BYTES).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase);
    std::str::from_utf8(word).ok().filter(|_| is_code).unwrap_or("an error")
}
