//! Health checks.

use std::{ops::RangeInclusive, time::Duration};

use awe4lb_model::{
    BackendRole, CheckKind, DnsCheck, DnsRecord, ExecCheck, GrpcCheck, HealthCheck, HttpCheck, InitialHealth,
    MysqlCheck, Name, Pattern, Payload, PostgresCheck, RedisCheck, ScriptCheck, ScriptStep, TlsCheck,
    UdpCheck, pattern_regex,
};
use bytes::Bytes;

use super::{
    At, at_most, duration, ip, ip_bytes, millis, name, optional_duration, optional_millis, port, positive,
    rule::all,
};
use crate::{
    Problem, WireError,
    v1::{self, health_check::Kind},
};

pub(super) fn to_wire(check: &HealthCheck) -> v1::HealthCheck {
    v1::HealthCheck {
        interval_ms: millis(check.interval),
        timeout_ms: millis(check.timeout),
        rise: check.rise,
        fall: check.fall,
        port: check.port.unwrap_or(0).into(),
        fast_interval_ms: optional_millis(check.fast_interval),
        initial: match check.initial {
            InitialHealth::Check => v1::InitialHealth::Check,
            InitialHealth::Up => v1::InitialHealth::Up,
            InitialHealth::Down => v1::InitialHealth::Down,
        }
        .into(),
        address: check.address.map(ip_bytes).unwrap_or_default(),
        proxy_protocol: check.proxy_protocol,
        kind: Some(kind_to_wire(&check.kind)),
    }
}

pub(super) fn from_wire(wire: v1::HealthCheck, at: At<'_>) -> Result<HealthCheck, WireError> {
    let address = (!wire.address.is_empty()).then(|| ip(&wire.address, at.field("address"))).transpose()?;
    Ok(HealthCheck {
        kind: match wire.kind {
            Some(kind) => kind_from_wire(kind, at)?,
            None => return Err(at.field("kind").refuse(Problem::Missing)),
        },
        interval: duration(wire.interval_ms, at.field("interval_ms"))?,
        fast_interval: optional_duration(wire.fast_interval_ms),
        timeout: duration(wire.timeout_ms, at.field("timeout_ms"))?,
        rise: positive(wire.rise, at.field("rise"))?,
        fall: positive(wire.fall, at.field("fall"))?,
        initial: match v1::InitialHealth::try_from(wire.initial) {
            Ok(v1::InitialHealth::Check) => InitialHealth::Check,
            Ok(v1::InitialHealth::Up) => InitialHealth::Up,
            Ok(v1::InitialHealth::Down) => InitialHealth::Down,
            other => return Err(unknown(other.is_ok(), wire.initial, at.field("initial"))),
        },
        port: Some(port(wire.port, at.field("port"))?).filter(|port| *port != 0),
        address,
        proxy_protocol: wire.proxy_protocol,
    })
}

fn kind_to_wire(kind: &CheckKind) -> Kind {
    match kind {
        CheckKind::Tcp => Kind::Tcp(v1::TcpCheck {}),
        CheckKind::Tls(check) => Kind::Tls(tls_to_wire(check)),
        CheckKind::Http(check) => Kind::Http(http_to_wire(check)),
        CheckKind::Grpc(check) => Kind::Grpc(v1::GrpcCheck {
            tls: check.tls.as_ref().map(tls_to_wire),
            service: check.service.to_string(),
            authority: text(check.authority.as_deref()),
        }),
        CheckKind::Udp(check) => Kind::Udp(v1::UdpCheck {
            send: Some(payload_to_wire(&check.send)),
            expect: check.expect.as_ref().map(pattern_to_wire),
        }),
        CheckKind::Dns(check) => Kind::Dns(v1::DnsCheck {
            name: check.name.to_string(),
            record: record_number(check.record),
            rcode: check.rcode.into(),
        }),
        CheckKind::Script(check) => Kind::Script(v1::ScriptCheck {
            tls: check.tls.as_ref().map(tls_to_wire),
            steps: check.steps.iter().map(step_to_wire).collect(),
        }),
        CheckKind::Postgres(check) => Kind::Postgres(v1::PostgresCheck {
            user: check.user.to_string(),
            database: check.database.to_string(),
            password: secret_to_wire(check.password.as_ref()),
            role: role_to_wire(check.role),
        }),
        CheckKind::Mysql(check) => Kind::Mysql(v1::MysqlCheck {
            user: text(check.user.as_deref()),
            password: secret_to_wire(check.password.as_ref()),
            role: role_to_wire(check.role),
        }),
        CheckKind::Redis(check) => Kind::Redis(v1::RedisCheck {
            tls: check.tls.as_ref().map(tls_to_wire),
            user: text(check.user.as_deref()),
            password: secret_to_wire(check.password.as_ref()),
            role: role_to_wire(check.role),
        }),
        CheckKind::Agent => Kind::Agent(v1::AgentCheck {}),
        CheckKind::Exec(check) => Kind::Exec(v1::ExecCheck {
            argv: check.argv.iter().map(ToString::to_string).collect(),
            max_output_bytes: u32::try_from(check.max_output_bytes).unwrap_or(u32::MAX),
        }),
    }
}

fn kind_from_wire(kind: Kind, at: At<'_>) -> Result<CheckKind, WireError> {
    Ok(match kind {
        Kind::Tcp(v1::TcpCheck {}) => CheckKind::Tcp,
        Kind::Tls(wire) => CheckKind::Tls(tls_from_wire(wire, at.field("tls"))?),
        Kind::Http(wire) => CheckKind::Http(http_from_wire(wire, at.field("http"))?),
        Kind::Grpc(wire) => CheckKind::Grpc(GrpcCheck {
            tls: optional_tls(wire.tls, at.field("grpc"))?,
            service: wire.service.into(),
            authority: optional_text(wire.authority),
        }),
        Kind::Udp(wire) => {
            let at = at.field("udp");
            CheckKind::Udp(UdpCheck {
                send: payload_from_wire(wire.send, at.field("send"))?,
                expect: wire
                    .expect
                    .map(|expect| pattern_from_wire(Some(expect), at.field("expect")))
                    .transpose()?,
            })
        }
        Kind::Dns(wire) => {
            let at = at.field("dns");
            CheckKind::Dns(DnsCheck {
                name: wire.name.into(),
                record: record(wire.record, at.field("record"))?,
                rcode: at_most(wire.rcode, 15, at.field("rcode"))? as u8,
            })
        }
        Kind::Script(wire) => {
            let at = at.field("script");
            CheckKind::Script(ScriptCheck {
                tls: optional_tls(wire.tls, at)?,
                steps: all(wire.steps, at.field("steps"), step_from_wire)?,
            })
        }
        Kind::Postgres(wire) => {
            let at = at.field("postgres");
            CheckKind::Postgres(PostgresCheck {
                user: wire.user.into(),
                database: wire.database.into(),
                password: optional_secret(&wire.password, at)?,
                role: role(wire.role, at.field("role"))?,
            })
        }
        Kind::Mysql(wire) => {
            let at = at.field("mysql");
            CheckKind::Mysql(MysqlCheck {
                user: optional_text(wire.user),
                password: optional_secret(&wire.password, at)?,
                role: role(wire.role, at.field("role"))?,
            })
        }
        Kind::Redis(wire) => {
            let at = at.field("redis");
            CheckKind::Redis(RedisCheck {
                tls: optional_tls(wire.tls, at)?,
                user: optional_text(wire.user),
                password: optional_secret(&wire.password, at)?,
                role: role(wire.role, at.field("role"))?,
            })
        }
        Kind::Agent(v1::AgentCheck {}) => CheckKind::Agent,
        Kind::Exec(wire) => {
            if wire.argv.is_empty() {
                return Err(at.field("exec").field("argv").refuse(Problem::Missing));
            }
            CheckKind::Exec(ExecCheck {
                argv: wire.argv.into_iter().map(String::into_boxed_str).collect(),
                max_output_bytes: wire.max_output_bytes as usize,
            })
        }
    })
}

fn tls_to_wire(check: &TlsCheck) -> v1::TlsCheck {
    v1::TlsCheck {
        sni: text(check.sni.as_deref()),
        verify: check.verify,
        ca: check.ca.iter().map(ToString::to_string).collect(),
        warn_before_expiry_ms: millis(check.warn_before_expiry),
    }
}

fn tls_from_wire(wire: v1::TlsCheck, at: At<'_>) -> Result<TlsCheck, WireError> {
    Ok(TlsCheck {
        sni: optional_text(wire.sni),
        verify: wire.verify,
        ca: all(wire.ca, at.field("ca"), |text, at| name(&text, at))?,
        warn_before_expiry: Duration::from_millis(wire.warn_before_expiry_ms),
    })
}

fn optional_tls(wire: Option<v1::TlsCheck>, at: At<'_>) -> Result<Option<TlsCheck>, WireError> {
    wire.map(|wire| tls_from_wire(wire, at.field("tls"))).transpose()
}

fn http_to_wire(check: &HttpCheck) -> v1::HttpCheck {
    v1::HttpCheck {
        tls: check.tls.as_ref().map(tls_to_wire),
        method: check.method.to_string(),
        path: check.path.to_string(),
        host: text(check.host.as_deref()),
        headers: check
            .headers
            .iter()
            .map(|(name, value)| v1::Header { name: name.to_string(), value: value.to_string() })
            .collect(),
        expected: check
            .expected
            .iter()
            .map(|range| v1::StatusRange { first: (*range.start()).into(), last: (*range.end()).into() })
            .collect(),
        body: check.body.as_ref().map(pattern_to_wire),
        max_body_bytes: u32::try_from(check.max_body_bytes).unwrap_or(u32::MAX),
    }
}

fn http_from_wire(wire: v1::HttpCheck, at: At<'_>) -> Result<HttpCheck, WireError> {
    let most = HttpCheck::MAX_BODY_BYTES as u32;
    Ok(HttpCheck {
        tls: optional_tls(wire.tls, at)?,
        method: wire.method.into(),
        path: wire.path.into(),
        host: optional_text(wire.host),
        headers: wire.headers.into_iter().map(|header| (header.name.into(), header.value.into())).collect(),
        expected: all(wire.expected, at.field("expected"), statuses)?,
        body: wire.body.map(|body| pattern_from_wire(Some(body), at.field("body"))).transpose()?,
        max_body_bytes: at_most(wire.max_body_bytes, most, at.field("max_body_bytes"))? as usize,
    })
}

fn statuses(wire: v1::StatusRange, at: At<'_>) -> Result<RangeInclusive<u16>, WireError> {
    let first = at_most(wire.first, wire.last, at.field("first"))?;
    let last = at_most(wire.last, 999, at.field("last"))?;
    Ok(first as u16..=last as u16)
}

fn step_to_wire(step: &ScriptStep) -> v1::ScriptStep {
    let step = match step {
        ScriptStep::Send(payload) => v1::script_step::Step::Send(payload_to_wire(payload)),
        ScriptStep::Expect(pattern) => v1::script_step::Step::Expect(pattern_to_wire(pattern)),
        ScriptStep::End => v1::script_step::Step::End(v1::End {}),
    };
    v1::ScriptStep { step: Some(step) }
}

fn step_from_wire(wire: v1::ScriptStep, at: At<'_>) -> Result<ScriptStep, WireError> {
    Ok(match wire.step {
        Some(v1::script_step::Step::Send(payload)) => {
            ScriptStep::Send(payload_from_wire(Some(payload), at.field("send"))?)
        }
        Some(v1::script_step::Step::Expect(pattern)) => {
            ScriptStep::Expect(pattern_from_wire(Some(pattern), at.field("expect"))?)
        }
        Some(v1::script_step::Step::End(v1::End {})) => ScriptStep::End,
        None => return Err(at.refuse(Problem::Missing)),
    })
}

fn payload_to_wire(payload: &Payload) -> v1::Payload {
    let payload = match payload {
        Payload::Bytes(bytes) => v1::payload::Payload::Bytes(Bytes::copy_from_slice(bytes)),
        Payload::Secret(name) => v1::payload::Payload::Secret(name.to_string()),
    };
    v1::Payload { payload: Some(payload) }
}

fn payload_from_wire(wire: Option<v1::Payload>, at: At<'_>) -> Result<Payload, WireError> {
    match wire.and_then(|wire| wire.payload) {
        Some(v1::payload::Payload::Bytes(bytes)) => Ok(Payload::Bytes(bytes.into())),
        Some(v1::payload::Payload::Secret(text)) => Ok(Payload::Secret(name(&text, at)?)),
        None => Err(at.refuse(Problem::Missing)),
    }
}

fn pattern_to_wire(pattern: &Pattern) -> v1::Pattern {
    let pattern = match pattern {
        Pattern::Bytes(bytes) => v1::pattern::Pattern::Bytes(Bytes::copy_from_slice(bytes)),
        Pattern::Regex(text) => v1::pattern::Pattern::Regex(text.to_string()),
    };
    v1::Pattern { pattern: Some(pattern) }
}

fn pattern_from_wire(wire: Option<v1::Pattern>, at: At<'_>) -> Result<Pattern, WireError> {
    match wire.and_then(|wire| wire.pattern) {
        Some(v1::pattern::Pattern::Bytes(bytes)) => Ok(Pattern::Bytes(bytes.into())),
        Some(v1::pattern::Pattern::Regex(text)) => match pattern_regex(&text) {
            Ok(_) => Ok(Pattern::Regex(text.into())),
            Err(error) => Err(at.refuse(Problem::Malformed(error.to_string()))),
        },
        None => Err(at.refuse(Problem::Missing)),
    }
}

fn role_to_wire(role: BackendRole) -> i32 {
    match role {
        BackendRole::Any => v1::BackendRole::Any,
        BackendRole::Primary => v1::BackendRole::Primary,
        BackendRole::Replica => v1::BackendRole::Replica,
    }
    .into()
}

fn role(wire: i32, at: At<'_>) -> Result<BackendRole, WireError> {
    match v1::BackendRole::try_from(wire) {
        Ok(v1::BackendRole::Any) => Ok(BackendRole::Any),
        Ok(v1::BackendRole::Primary) => Ok(BackendRole::Primary),
        Ok(v1::BackendRole::Replica) => Ok(BackendRole::Replica),
        other => Err(unknown(other.is_ok(), wire, at)),
    }
}

/// The types by number: RFC 1035, RFC 3596, RFC 2782.
const RECORDS: [(DnsRecord, u32); 9] = [
    (DnsRecord::A, 1),
    (DnsRecord::Ns, 2),
    (DnsRecord::Cname, 5),
    (DnsRecord::Soa, 6),
    (DnsRecord::Ptr, 12),
    (DnsRecord::Mx, 15),
    (DnsRecord::Txt, 16),
    (DnsRecord::Aaaa, 28),
    (DnsRecord::Srv, 33),
];

fn record_number(record: DnsRecord) -> u32 {
    RECORDS.iter().find(|(known, _)| *known == record).map_or(0, |(_, number)| *number)
}

fn record(wire: u32, at: At<'_>) -> Result<DnsRecord, WireError> {
    let known = RECORDS.iter().find(|(_, number)| *number == wire).map(|(record, _)| *record);
    known.ok_or_else(|| unknown(wire == 0, i32::try_from(wire).unwrap_or(i32::MAX), at))
}

fn secret_to_wire(name: Option<&Name>) -> String {
    name.map(ToString::to_string).unwrap_or_default()
}

fn optional_secret(wire: &str, at: At<'_>) -> Result<Option<Name>, WireError> {
    (!wire.is_empty()).then(|| name(wire, at.field("password"))).transpose()
}

fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

fn optional_text(wire: String) -> Option<Box<str>> {
    (!wire.is_empty()).then(|| wire.into())
}

/// Of an enumeration: known but unspecified, or not known at all.
fn unknown(is_known: bool, wire: i32, at: At<'_>) -> WireError {
    at.refuse(if is_known { Problem::Missing } else { Problem::UnknownValue(wire) })
}
