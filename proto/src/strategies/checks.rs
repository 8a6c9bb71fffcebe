//! Arbitrary health checks.

use std::net::IpAddr;

use awe4lb_model::{
    BackendRole, CheckKind, DnsCheck, DnsRecord, ExecCheck, GrpcCheck, HealthCheck, HttpCheck, InitialHealth,
    MysqlCheck, Pattern, Payload, PostgresCheck, RedisCheck, ScriptCheck, ScriptStep, TlsCheck, UdpCheck,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{millis, name};

fn text() -> impl Strategy<Value = Box<str>> {
    "[ -~]{1,20}".prop_map(Into::into)
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![vec(any::<u8>(), 1..9).prop_map(Payload::Bytes), name().prop_map(Payload::Secret)]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let regex = "[a-z]{1,5}".prop_map(|text| Pattern::Regex(format!("^{text}+[0-9]*").into()));
    prop_oneof![vec(any::<u8>(), 1..9).prop_map(Pattern::Bytes), regex]
}

fn tls() -> impl Strategy<Value = Option<TlsCheck>> {
    let tls = (option::of(text()), any::<bool>(), vec(name(), 0..3), millis());
    option::of(tls.prop_map(|(sni, verify, ca, warn_before_expiry)| TlsCheck {
        sni,
        verify,
        ca,
        warn_before_expiry,
    }))
}

fn role() -> impl Strategy<Value = BackendRole> {
    select(vec![BackendRole::Any, BackendRole::Primary, BackendRole::Replica])
}

fn http() -> impl Strategy<Value = HttpCheck> {
    let statuses = (100u16..600, 0u16..50).prop_map(|(first, more)| first..=first + more);
    let texts = (text(), text(), option::of(text()), vec((text(), text()), 0..3));
    (tls(), texts, vec(statuses, 1..3), option::of(pattern()), 1usize..=HttpCheck::MAX_BODY_BYTES).prop_map(
        |(tls, (method, path, host, headers), expected, body, max_body_bytes)| HttpCheck {
            tls,
            method,
            path,
            host,
            headers,
            expected,
            body,
            max_body_bytes,
        },
    )
}

fn kind() -> impl Strategy<Value = CheckKind> {
    let step = prop_oneof![
        payload().prop_map(ScriptStep::Send),
        pattern().prop_map(ScriptStep::Expect),
        Just(ScriptStep::End),
    ];
    let record = select(vec![DnsRecord::A, DnsRecord::Ns, DnsRecord::Mx, DnsRecord::Aaaa, DnsRecord::Srv]);
    let session = || (option::of(text()), option::of(name()), role());
    prop_oneof![
        Just(CheckKind::Tcp),
        Just(CheckKind::Agent),
        tls().prop_map(|tls| CheckKind::Tls(tls.unwrap_or_default())),
        http().prop_map(CheckKind::Http),
        (tls(), text(), option::of(text()))
            .prop_map(|(tls, service, authority)| CheckKind::Grpc(GrpcCheck { tls, service, authority })),
        (payload(), option::of(pattern()))
            .prop_map(|(send, expect)| CheckKind::Udp(UdpCheck { send, expect })),
        (text(), record, 0u8..16).prop_map(|(name, record, rcode)| CheckKind::Dns(DnsCheck {
            name,
            record,
            rcode
        })),
        (tls(), vec(step, 1..5)).prop_map(|(tls, steps)| CheckKind::Script(ScriptCheck { tls, steps })),
        (text(), text(), session()).prop_map(|(user, database, (_, password, role))| {
            CheckKind::Postgres(PostgresCheck { user, database, password, role })
        }),
        session().prop_map(|(user, password, role)| CheckKind::Mysql(MysqlCheck { user, password, role })),
        (tls(), session()).prop_map(|(tls, (user, password, role))| CheckKind::Redis(RedisCheck {
            tls,
            user,
            password,
            role,
        })),
        (vec(text(), 1..4), 1usize..10_000)
            .prop_map(|(argv, max_output_bytes)| CheckKind::Exec(ExecCheck { argv, max_output_bytes })),
    ]
}

pub fn health_check() -> impl Strategy<Value = HealthCheck> {
    let initial = select(vec![InitialHealth::Check, InitialHealth::Up, InitialHealth::Down]);
    let times = (millis(), option::of(millis()), millis());
    let place = (option::of(1u16..), option::of(any::<IpAddr>()), option::of(any::<bool>()));
    (kind(), times, 1u32.., 1u32.., initial, place).prop_map(
        |(kind, (interval, fast_interval, timeout), rise, fall, initial, (port, address, proxy_protocol))| {
            HealthCheck {
                kind,
                interval,
                fast_interval,
                timeout,
                rise,
                fall,
                initial,
                port,
                address,
                proxy_protocol,
            }
        },
    )
}
