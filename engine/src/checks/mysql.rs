//! The start of a session with MySQL or MariaDB, and one question (MySQL's documentation, "Client/Server Protocol").

use std::ops::ControlFlow;

use awe4lb_model::{BackendRole, MysqlCheck};

use super::{
    Refusal, Secrets, Verdict,
    mysql_auth::{NONCE_BYTES, Plugin},
    role,
    talk::{Progress, Protocol, healthy, or_unhealthy, unhealthy},
};

const QUERY: &[u8] = b"\x03SELECT @@global.read_only";
const QUIT: &[u8] = &[1, 0, 0, 0, 1];
/// Nothing that a session starts with is longer.
const MAX_PACKET_BYTES: usize = 32 * 1024;
const MAX_USER_BYTES: usize = 255;
const UTF8: u8 = 33;

const LONG_PASSWORD: u32 = 1;
const PROTOCOL_41: u32 = 1 << 9;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;

const NOT_MYSQL: &str = "not MySQL";

pub(super) struct Mysql {
    /// Without one the greeting decides.
    user: Option<Box<str>>,
    password: Vec<u8>,
    role: BackendRole,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Authenticating(Plugin),
    /// The next packet is one of these, of the answer to our question.
    ColumnCount,
    Column,
    ColumnsEnd,
    Row,
}

impl Mysql {
    pub(super) fn new(check: &MysqlCheck, secrets: Secrets<'_>) -> Result<Self, Refusal> {
        let password = secrets.optional(check.password.as_ref())?.unwrap_or_default();
        let is_sendable = |user: &str| user.len() <= MAX_USER_BYTES && !user.contains('\0');
        if !check.user.as_deref().is_none_or(is_sendable) {
            return Err("the login cannot be written".to_owned());
        }
        if check.user.is_none() && check.role != BackendRole::Any {
            return Err("the role is not told without a user".to_owned());
        }
        Ok(Self { user: check.user.clone(), password, role: check.role, state: State::Greeting })
    }

    fn packet(&mut self, sequence: u8, body: &[u8], out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        let sequence = sequence.wrapping_add(1);
        match (self.state, body) {
            (_, [0xff, low, high, ..]) => {
                unhealthy(format!("answers with error {}", u16::from_le_bytes([*low, *high])))
            }
            (State::Greeting, _) => self.greeting(sequence, body, out),
            (State::Authenticating(_), [0, ..]) => {
                self.state = State::ColumnCount;
                if self.role == BackendRole::Any {
                    return healthy("ready");
                }
                write(out, 0, QUERY);
                ControlFlow::Continue(())
            }
            (State::Authenticating(_), [0xfe, switch @ ..]) => self.switch(sequence, switch, out),
            (State::Authenticating(Plugin::CachingSha2), [1, 3]) => ControlFlow::Continue(()),
            // The server has forgotten the password, as after a restart, and wants it in clear or under RSA.
            (State::Authenticating(Plugin::CachingSha2), [1, 4]) => match self.role {
                BackendRole::Any => healthy("asks for full authentication"),
                BackendRole::Primary | BackendRole::Replica => unhealthy("asks for full authentication"),
            },
            (State::ColumnCount, [1]) => self.go_on(State::Column),
            (State::Column, _) => self.go_on(State::ColumnsEnd),
            (State::ColumnsEnd, [0xfe, ..]) => self.go_on(State::Row),
            (State::Row, [length, value @ ..]) if usize::from(*length) == value.len() => {
                let is_writable = value == b"0" || value.eq_ignore_ascii_case(b"OFF");
                let found = if is_writable { BackendRole::Primary } else { BackendRole::Replica };
                ControlFlow::Break(role::verdict(self.role, found))
            }
            _ => unhealthy("a packet at a wrong place"),
        }
    }

    fn go_on(&mut self, state: State) -> ControlFlow<Verdict> {
        self.state = state;
        ControlFlow::Continue(())
    }

    fn greeting(&mut self, sequence: u8, body: &[u8], out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        let greeting = or_unhealthy(Greeting::parse(body), NOT_MYSQL)?;
        let Some(user) = &self.user else { return healthy("a greeting") };
        if greeting.capabilities & (PROTOCOL_41 | SECURE_CONNECTION) != PROTOCOL_41 | SECURE_CONNECTION {
            return unhealthy("an older protocol than is known here");
        }
        // Of another plugin than ours the server tells us when this user needs it.
        let plugin = Plugin::of_name(greeting.plugin).unwrap_or(Plugin::Native);
        let capabilities =
            LONG_PASSWORD | PROTOCOL_41 | SECURE_CONNECTION | (greeting.capabilities & PLUGIN_AUTH);
        let mut login = capabilities.to_le_bytes().to_vec();
        login.extend_from_slice(&(MAX_PACKET_BYTES as u32).to_le_bytes());
        login.push(UTF8);
        login.extend_from_slice(&[0; 23]);
        login.extend_from_slice(user.as_bytes());
        login.push(0);
        let answer = plugin.answer(&self.password, &greeting.nonce);
        login.push(answer.len() as u8);
        login.extend_from_slice(&answer);
        if capabilities & PLUGIN_AUTH != 0 {
            login.extend_from_slice(plugin.name().as_bytes());
            login.push(0);
        }
        write(out, sequence, &login);
        self.go_on(State::Authenticating(plugin))
    }

    /// The server wants another plugin than the one that we began with.
    fn switch(&mut self, sequence: u8, body: &[u8], out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        let mut parts = body.splitn(2, |byte| *byte == 0);
        let plugin = parts.next().and_then(Plugin::of_name);
        let plugin = or_unhealthy(plugin, "asks for authentication that is not known here")?;
        let nonce = parts.next().and_then(|nonce| nonce.get(..NONCE_BYTES));
        let nonce = or_unhealthy(nonce, NOT_MYSQL)?;
        write(out, sequence, &plugin.answer(&self.password, nonce));
        self.go_on(State::Authenticating(plugin))
    }
}

impl Protocol for Mysql {
    fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let [a, b, c, sequence, rest @ ..] = input else { return Progress::Continue(None) };
        let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        if !(1..=MAX_PACKET_BYTES).contains(&length) {
            return unhealthy(NOT_MYSQL);
        }
        let Some(body) = rest.get(..length) else { return Progress::Continue(None) };
        self.packet(*sequence, body, out)?;
        Progress::Continue(Some(4 + length))
    }

    fn goodbye(&self) -> &[u8] {
        if matches!(self.state, State::Greeting | State::Authenticating(_)) { &[] } else { QUIT }
    }
}

fn write(out: &mut Vec<u8>, sequence: u8, body: &[u8]) {
    let [a, b, c, _] = (body.len() as u32).to_le_bytes();
    out.extend_from_slice(&[a, b, c, sequence]);
    out.extend_from_slice(body);
}

/// The server's first packet, version 10.
struct Greeting<'a> {
    capabilities: u32,
    nonce: Vec<u8>,
    /// Empty where the server has only one.
    plugin: &'a [u8],
}

impl<'a> Greeting<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let rest = body.strip_prefix(&[10])?;
        let version = rest.iter().position(|byte| *byte == 0)?;
        let (_thread, rest) = rest.get(version + 1..)?.split_at_checked(4)?;
        let (first, rest) = rest.split_at_checked(8)?;
        let [0, low, high, rest @ ..] = rest else { return None };
        let mut greeting = Self {
            capabilities: u32::from(u16::from_le_bytes([*low, *high])),
            nonce: first.to_vec(),
            plugin: &[],
        };
        // Servers of before 4.1 end here; they are not spoken to any further.
        let Some(([_charset, _, _, low, high, _length], rest)) = rest.split_first_chunk() else {
            return Some(greeting);
        };
        greeting.capabilities |= u32::from(u16::from_le_bytes([*low, *high])) << 16;
        let rest = rest.get(10..)?;
        // The second part of the nonce has a zero behind it.
        let second = rest.get(..NONCE_BYTES - 8)?;
        greeting.nonce.extend_from_slice(second);
        let plugin = rest.get(NONCE_BYTES - 8 + 1..).unwrap_or_default();
        greeting.plugin = plugin.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(greeting)
    }
}
