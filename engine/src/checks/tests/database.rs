//! PostgreSQL 15.18, MariaDB 10.11 and Redis 7.0 as they were recorded; MySQL 8 as its documentation says.

use awe4lb_model::{BackendRole, CheckKind, MysqlCheck, PostgresCheck, RedisCheck};

use super::*;

const STARTUP: &[u8] = b"\x00\x00\x00>\x00\x03\x00\x00user\x00scram\x00database\x00postgres\x00application_name\x00awe4lb\x00\x00";
const SASL: &[u8] = b"R\x00\x00\x00\x17\x00\x00\x00\nSCRAM-SHA-256\x00\x00";
const SASL_FIRST: &[u8] = b"p\x00\x00\x004SCRAM-SHA-256\x00\x00\x00\x00\x1en,,n=,r=awe4lb0123456789abcdef";
const SASL_SERVER_FIRST: &[u8] =
    b"R\x00\x00\x00Z\x00\x00\x00\x0br=awe4lb0123456789abcdefN2w6n6Ogentivbz+caVrpAl7,\
    s=so6GXra9uTcDa20J6gC32A==,i=4096";
const SASL_ANSWER: &[u8] = b"p\x00\x00\x00jc=biws,r=awe4lb0123456789abcdefN2w6n6Ogentivbz+caVrpAl7,\
    p=Bi/4mrj1sRzl+MG2itkvz2Nf/aH3O0sddY8AQ4jpFaY=";
const SASL_FINAL: &[u8] = b"R\x00\x00\x006\x00\x00\x00\x0cv=K2TAIseWHZRRPXfU/D1alcRJUa4kkcIbUxh7bovdVgI=";
const SESSION: &[u8] = b"R\x00\x00\x00\x08\x00\x00\x00\x00S\x00\x00\x00\x1capplication_name\x00awe4lb\x00\
    S\x00\x00\x00\x19client_encoding\x00UTF8\x00S\x00\x00\x00\x17DateStyle\x00ISO, MDY\x00\
    S\x00\x00\x00\x17in_hot_standby\x00off\x00S\x00\x00\x00\x15TimeZone\x00Etc/UTC\x00\
    K\x00\x00\x00\x0c\x00\x00WKO'_pZ\x00\x00\x00\x05I";
const QUERY: &[u8] = b"Q\x00\x00\x00\x1fSELECT pg_is_in_recovery()\x00";
const PRIMARY: &[u8] = b"T\x00\x00\x00*\x00\x01pg_is_in_recovery\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x01\
    \xff\xff\xff\xff\x00\x00D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x01fC\x00\x00\x00\rSELECT 1\x00Z\x00\x00\x00\x05I";
const NO_SUCH_DATABASE: &[u8] =
    b"R\x00\x00\x00\x08\x00\x00\x00\x00E\x00\x00\x00YSFATAL\x00VFATAL\x00C3D000\x00\
    Mdatabase \"none\" does not exist\x00Fpostinit.c\x00L948\x00RInitPostgres\x00\x00";
const WRONG_PASSWORD: &[u8] = b"E\x00\x00\x00eSFATAL\x00VFATAL\x00C28P01\x00\
    Mpassword authentication failed for user \"scram\"\x00Fauth.c\x00L334\x00Rauth_failed\x00\x00";
const STARTING: &[u8] =
    b"E\x00\x00\x00TSFATAL\x00VFATAL\x00C57P03\x00Mthe database system is starting up\x00\
    Fpostmaster.c\x00L2376\x00R\x00\x00";

fn postgres(with_password: bool, role: BackendRole) -> CheckKind {
    let password = with_password.then(|| name("password"));
    CheckKind::Postgres(PostgresCheck { user: "scram".into(), password, role, ..PostgresCheck::default() })
}

/// PostgreSQL's answer to a login by SCRAM, with what follows the server's first message.
fn scram(role: BackendRole, last: &[u8], turns: &[Turn<'_>]) -> Verdict {
    let login: [Turn<'_>; 3] = [(STARTUP, SASL), (SASL_FIRST, SASL_SERVER_FIRST), (SASL_ANSWER, last)];
    play(&postgres(true, role), &[&login, turns].concat())
}

#[test]
fn postgres_by_scram() {
    let last = [SASL_FINAL, SESSION].concat();
    assert_eq!(scram(BackendRole::Any, &last, &[]), healthy("ready"));
    assert_eq!(scram(BackendRole::Primary, &last, &[(QUERY, PRIMARY)]), healthy("a primary"));
    assert_eq!(
        scram(BackendRole::Replica, &last, &[(QUERY, PRIMARY)]),
        unhealthy("a primary, not a replica")
    );
    let mut replica = PRIMARY.to_vec();
    let value = PRIMARY.iter().position(|byte| *byte == b'C').expect("the end of the row") - 1;
    replica[value] = b't';
    assert_eq!(scram(BackendRole::Replica, &last, &[(QUERY, &replica)]), healthy("a replica"));
    assert_eq!(
        scram(BackendRole::Primary, &last, &[(QUERY, &replica)]),
        unhealthy("a replica, not a primary")
    );
    replica[value] = b'?';
    assert_eq!(
        scram(BackendRole::Primary, &last, &[(QUERY, &replica)]),
        unhealthy("not an answer about the role")
    );
    assert_eq!(scram(BackendRole::Any, WRONG_PASSWORD, &[]), unhealthy("answers with SQLSTATE 28P01"));
}

#[test]
fn a_postgres_that_does_not_know_the_password_is_not_believed() {
    let unproven = unhealthy("the server did not prove that it knows the password");
    assert_eq!(scram(BackendRole::Any, SESSION, &[]), unproven, "says yes without a proof");
    let mut wrong = SASL_FINAL.to_vec();
    wrong[12] ^= 1;
    assert_eq!(scram(BackendRole::Any, &wrong, &[]), unproven);
    let many = b"R\x00\x00\x00E\x00\x00\x00\x0br=awe4lb0123456789abcdefX,s=so6GXra9uTcDa20J6gC32A==,i=100001";
    let turns: [Turn<'_>; 2] = [(STARTUP, SASL), (SASL_FIRST, many)];
    let verdict = play(&postgres(true, BackendRole::Any), &turns);
    assert_eq!(verdict, unhealthy("authentication that cannot be answered"), "work without end");
}

#[test]
fn postgres_by_md5_in_clear_and_by_trust() {
    let kind = CheckKind::Postgres(PostgresCheck {
        user: "pwmd5".into(),
        password: password(),
        ..PostgresCheck::default()
    });
    let md5: &[u8] = b"R\x00\x00\x00\x0c\x00\x00\x00\x05\x9c\xa4\x02d";
    let hashed: &[u8] = b"p\x00\x00\x00(md59d4b9096a6f7c350dafa04043df4e911\x00";
    let startup = [&b"\x00\x00\x00>\x00\x03\x00\x00user\x00pwmd5"[..], &STARTUP[18..]].concat();
    assert_eq!(play(&kind, &[(&startup, md5), (hashed, SESSION)]), healthy("ready"));
    let kind = postgres(true, BackendRole::Any);
    let clear: [Turn<'_>; 2] =
        [(STARTUP, b"R\x00\x00\x00\x08\x00\x00\x00\x03"), (b"p\x00\x00\x00\x0bpencil\x00", SESSION)];
    assert_eq!(play(&kind, &clear), healthy("ready"));
    assert_eq!(play(&kind, &[(STARTUP, SESSION)]), healthy("ready"));
    let gssapi = b"R\x00\x00\x00\x08\x00\x00\x00\x07";
    let unknown = unhealthy("asks for authentication that is not known here");
    assert_eq!(play(&kind, &[(STARTUP, gssapi)]), unknown);
    assert_eq!(play(&kind, &[(STARTUP, b"R\x00\x00\x00\x16\x00\x00\x00\nSCRAM-SHA-1\x00\x00\x00")]), unknown);
}

#[test]
fn without_a_password_a_postgres_that_refuses_us_works() {
    let any = postgres(false, BackendRole::Any);
    assert_eq!(play(&any, &[(STARTUP, SASL)]), healthy("asks for a password"));
    assert_eq!(play(&any, &[(STARTUP, WRONG_PASSWORD)]), healthy("answers with SQLSTATE 28P01"));
    assert_eq!(play(&any, &[(STARTUP, NO_SUCH_DATABASE)]), healthy("answers with SQLSTATE 3D000"));
    assert_eq!(play(&any, &[(STARTUP, STARTING)]), unhealthy("answers with SQLSTATE 57P03"));
    assert_eq!(
        play(&any, &[(STARTUP, b"E\x00\x00\x00\x0cC53x00\x00\x00")]),
        unhealthy("answers with SQLSTATE unknown")
    );
    let with = postgres(true, BackendRole::Any);
    assert_eq!(play(&with, &[(STARTUP, NO_SUCH_DATABASE)]), unhealthy("answers with SQLSTATE 3D000"));
    let primary = postgres(false, BackendRole::Primary);
    assert_eq!(play(&primary, &[(STARTUP, SASL)]), unhealthy("the role is not told without a password"));
    assert_eq!(play(&primary, &[(STARTUP, WRONG_PASSWORD)]), unhealthy("answers with SQLSTATE 28P01"));
    assert_eq!(play(&primary, &[(STARTUP, SESSION), (QUERY, PRIMARY)]), healthy("a primary"), "by trust");
}

#[test]
fn what_is_no_postgres() {
    for (answer, reason) in [
        (&b""[..], "closed before it answered"),
        (b"R\x00\x00", "closed before it answered"),
        (b"-ERR unknown command\r\n", "not PostgreSQL"),
        (b"HTTP/1.1 400 Bad Request\r\n", "not PostgreSQL"),
        (b"R\x00\x00\x00\x03", "not PostgreSQL"),
        (b"RTP/1.0 200\r\n", "not PostgreSQL"),
        (b"R\x00\x00\x00\x06\x00\x00", "not PostgreSQL"),
        (b"R\x00\x00\x00\x08\x00\x00\x00\x00D\x00\x00\x00\x04", "a message at a wrong place"),
    ] {
        let verdict = play(&postgres(true, BackendRole::Any), &[(STARTUP, answer)]);
        assert_eq!(verdict, unhealthy(reason), "{}", text(answer));
    }
}

const GREETING: &[u8] = b"d\x00\x00\x00\n5.5.5-10.11.19-MariaDB-0+deb12u1\x00\x06\x00\x00\x00b<F*>8>n\x00\xfe\xf7\x08\x02\x00\xff\x81\
    \x15\x00\x00\x00\x00\x00\x00\x1d\x00\x00\x003Py1&h^{rHQ<\x00mysql_native_password\x00";
const LOGIN: &[u8] = b"O\x00\x00\x01\x01\x82\x08\x00\x00\x80\x00\x00!\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x00\x00\x00\x00nat\x00\x14u\x05\x89\x86V`\xe1fxQ\x05\xb3%S\xbc#H\x02\xe0Vmysql_native_password\x00";
const LOGGED_IN: &[u8] = b"\x07\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00";
const READ_ONLY: &[u8] = b"\x1a\x00\x00\x00\x03SELECT @@global.read_only";
const WRITABLE: &[u8] = b"\x01\x00\x00\x01\x01(\x00\x00\x02\x03def\x00\x00\x00\x12@@global.read_only\x00\x0c?\x00\x01\x00\x00\x00\x08\x80\
    \x00\x00\x00\x00\x05\x00\x00\x03\xfe\x00\x00\x02\x00\x02\x00\x00\x04\x010\x05\x00\x00\x05\xfe\x00\x00\x02\x00";
const DENIED: &[u8] =
    b"G\x00\x00\x02\xff\x15\x04#28000Access denied for user 'nat'@'localhost' (using password: YES)";

fn mysql(user: Option<&str>, role: BackendRole) -> CheckKind {
    CheckKind::Mysql(MysqlCheck { user: user.map(Into::into), password: password(), role })
}

#[test]
fn mariadb_by_its_greeting_alone() {
    let kind = mysql(None, BackendRole::Any);
    assert_eq!(play(&kind, &[(b"", GREETING)]), healthy("a greeting"));
    let too_many = b"\x17\x00\x00\x00\xff\x10\x04Too many connections";
    assert_eq!(play(&kind, &[(b"", too_many)]), unhealthy("answers with error 1040"));
    for (answer, reason) in [
        (&b""[..], "closed before it answered"),
        (&GREETING[..50], "closed before it answered"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "not MySQL"),
        (b"\x02\x00\x00\x00\x0a5", "not MySQL"),
        (b"\x02\x00\x00\x00\x095", "not MySQL"),
        (b"\x00\x00\x00\x00", "not MySQL"),
    ] {
        assert_eq!(play(&kind, &[(b"", answer)]), unhealthy(reason), "{}", text(answer));
    }
}

#[test]
fn mariadb_by_a_native_password() {
    let login: [Turn<'_>; 2] = [(b"", GREETING), (LOGIN, LOGGED_IN)];
    let kind = |role| mysql(Some("nat"), role);
    assert_eq!(play(&kind(BackendRole::Any), &login), healthy("ready"));
    assert_eq!(
        play(&kind(BackendRole::Any), &[login[0], (LOGIN, DENIED)]),
        unhealthy("answers with error 1045")
    );
    let asked = |role, answer: &[u8]| play(&kind(role), &[login[0], login[1], (READ_ONLY, answer)]);
    assert_eq!(asked(BackendRole::Primary, WRITABLE), healthy("a primary"));
    assert_eq!(asked(BackendRole::Replica, WRITABLE), unhealthy("a primary, not a replica"));
    let mut read_only = WRITABLE.to_vec();
    let value = read_only.iter().rposition(|byte| *byte == b'0').expect("the value");
    read_only[value] = b'1';
    assert_eq!(asked(BackendRole::Replica, &read_only), healthy("a replica"));
    assert_eq!(asked(BackendRole::Primary, &read_only), unhealthy("a replica, not a primary"));
    let odd = unhealthy("a packet at a wrong place");
    assert_eq!(asked(BackendRole::Primary, LOGGED_IN), odd);
    assert_eq!(asked(BackendRole::Primary, DENIED), unhealthy("answers with error 1045"));
}

#[test]
fn a_user_of_another_plugin_is_asked_for_it() {
    let ed25519 = b"\x11\x00\x00\x02\xfeclient_ed25519\x00x";
    let login: Turn<'_> = (b"", GREETING);
    let kind = mysql(Some("nat"), BackendRole::Any);
    let unknown = unhealthy("asks for authentication that is not known here");
    assert_eq!(play(&kind, &[login, (LOGIN, ed25519)]), unknown);
    assert_eq!(play(&kind, &[login, (LOGIN, b"\x01\x00\x00\x02\xfe")]), unknown, "of before 4.1");
    assert_eq!(play(&kind, &[login, (LOGIN, b"\x16\x00\x00\x02\xfemysql_clear_password\x00")]), unknown);
    // The answer was computed by Python's hashlib, as were the others here.
    let switch = b"\x2c\x00\x00\x02\xfecaching_sha2_password\x00abcdefghijklmnopqrst\x00";
    let answer = [&b"\x20\x00\x00\x03"[..], &SHA2_ANSWER].concat();
    let fast: &[u8] = b"\x02\x00\x00\x04\x01\x03\x07\x00\x00\x05\x00\x00\x00\x02\x00\x00\x00";
    let turns: [Turn<'_>; 3] = [login, (LOGIN, switch), (&answer, fast)];
    assert_eq!(play(&kind, &turns), healthy("ready"));
}

/// Of `pencil` and `abcdefghijklmnopqrst`.
const SHA2_ANSWER: [u8; 32] = [
    0xa4, 0x76, 0x82, 0x37, 0xb0, 0x40, 0xee, 0xf7, 0x29, 0x5d, 0x9c, 0x34, 0x84, 0x5a, 0xfb, 0x4d, 0x4a,
    0xdb, 0xf9, 0x57, 0x1c, 0x70, 0x5e, 0x77, 0xf6, 0x16, 0xca, 0xa2, 0x9f, 0xa4, 0xed, 0xc8,
];
/// As MySQL 8 greets: its plugin is another than MariaDB's.
const GREETING_8: &[u8] = b"J\x00\x00\x00\n8.0.36\x00\x08\x00\x00\x00abcdefgh\x00\xff\xff\xff\x02\x00\xff\xdf\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    ijklmnopqrst\x00caching_sha2_password\x00";

#[test]
fn mysql_8_by_its_cache() {
    let login = |role, answer: &[u8]| {
        let kind = mysql(Some("nat"), role);
        let login = [
            &b"[\x00\x00\x01\x01\x82\x08\x00\x00\x80\x00\x00!"[..],
            &[0; 23],
            b"nat\x00\x20",
            &SHA2_ANSWER,
            b"caching_sha2_password\x00",
        ];
        play(&kind, &[(b"", GREETING_8), (&login.concat(), answer)])
    };
    let fast = b"\x02\x00\x00\x02\x01\x03\x07\x00\x00\x03\x00\x00\x00\x02\x00\x00\x00";
    assert_eq!(login(BackendRole::Any, fast), healthy("ready"));
    let full = b"\x02\x00\x00\x02\x01\x04";
    assert_eq!(login(BackendRole::Any, full), healthy("asks for full authentication"));
    assert_eq!(login(BackendRole::Primary, full), unhealthy("asks for full authentication"));
}

fn redis(user: Option<&str>, with_password: bool, role: BackendRole) -> CheckKind {
    let password = with_password.then(|| name("password"));
    CheckKind::Redis(RedisCheck { tls: None, user: user.map(Into::into), password, role })
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";
const ROLE: &[u8] = b"*1\r\n$4\r\nROLE\r\n";

#[test]
fn redis_pings() {
    let kind = redis(None, false, BackendRole::Any);
    assert_eq!(play(&kind, &[(PING, PONG)]), healthy("PONG"));
    for (answer, reason) in [
        (&b"-NOAUTH Authentication required.\r\n"[..], "answers with NOAUTH"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "answers with LOADING"),
        (b"-<script>\r\n", "answers with an error"),
        (b"+OK\r\n", "not Redis"),
        (b"HTTP/1.1 400 Bad Request", "not Redis"),
        (b"", "closed before it answered"),
        (b"+PONG", "closed before it answered"),
    ] {
        assert_eq!(play(&kind, &[(PING, answer)]), unhealthy(reason), "{}", text(answer));
    }
}

#[test]
fn redis_logs_in_first() {
    let auth: &[u8] = b"*2\r\n$4\r\nAUTH\r\n$6\r\npencil\r\n";
    let kind = redis(None, true, BackendRole::Any);
    assert_eq!(play(&kind, &[(auth, b"+OK\r\n"), (PING, PONG)]), healthy("PONG"));
    let wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    assert_eq!(play(&kind, &[(auth, wrong)]), unhealthy("answers with WRONGPASS"));
    let user: &[u8] = b"*3\r\n$4\r\nAUTH\r\n$5\r\ncheck\r\n$6\r\npencil\r\n";
    let kind = redis(Some("check"), true, BackendRole::Any);
    assert_eq!(play(&kind, &[(user, b"+OK\r\n"), (PING, PONG)]), healthy("PONG"));
    let nopass: &[u8] = b"*3\r\n$4\r\nAUTH\r\n$5\r\ncheck\r\n$0\r\n\r\n";
    let kind = redis(Some("check"), false, BackendRole::Any);
    assert_eq!(play(&kind, &[(nopass, b"+OK\r\n"), (PING, PONG)]), healthy("PONG"));
}

#[test]
fn redis_says_its_role() {
    let primary = b"*3\r\n$6\r\nmaster\r\n:0\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$5\r\n17003\r\n$1\r\n0\r\n";
    let replica = b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:17001\r\n$9\r\nconnected\r\n:0\r\n";
    let asked = |role, answer: &[u8]| play(&redis(None, false, role), &[(PING, PONG), (ROLE, answer)]);
    assert_eq!(asked(BackendRole::Primary, primary), healthy("a primary"));
    assert_eq!(asked(BackendRole::Replica, primary), unhealthy("a primary, not a replica"));
    assert_eq!(asked(BackendRole::Replica, replica), healthy("a replica"));
    assert_eq!(asked(BackendRole::Primary, replica), unhealthy("a replica, not a primary"));
    let sentinel = b"*2\r\n$8\r\nsentinel\r\n*0\r\n";
    assert_eq!(asked(BackendRole::Primary, sentinel), unhealthy("neither a primary nor a replica"));
    assert_eq!(asked(BackendRole::Primary, b"-NOPERM no\r\n"), unhealthy("answers with NOPERM"));
    assert_eq!(asked(BackendRole::Primary, b"*1\r\n$99\r\n"), unhealthy("not an answer about the role"));
    assert_eq!(asked(BackendRole::Primary, b"*1\r\n$6\r\nmast\r\n"), unhealthy("not Redis"));
}

#[test]
fn who_logged_in_says_goodbye() {
    let after = |kind: &CheckKind, answers: &[&[u8]]| {
        let mut conversation = start(kind);
        conversation.next(Event::Connected);
        for answer in answers {
            conversation.next(Event::Received(answer));
        }
        conversation.goodbye().to_vec()
    };
    let postgres = postgres(true, BackendRole::Any);
    assert_eq!(after(&postgres, &[SESSION]), b"X\x00\x00\x00\x04");
    assert_eq!(after(&postgres, &[SASL]), b"", "a server that waits for a password would be surprised");
    let mysql = mysql(Some("nat"), BackendRole::Any);
    assert_eq!(after(&mysql, &[GREETING, LOGGED_IN]), b"\x01\x00\x00\x00\x01");
    assert_eq!(after(&mysql, &[GREETING]), b"");
}
