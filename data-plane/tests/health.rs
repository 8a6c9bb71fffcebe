//! Health checks of every kind that needs no server to be installed, over real sockets: what a backend says decides where
//! connections go.

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use awe4lb_data_plane::{
    control::{
        hot::{MemberView, Mode},
        live::Live,
        probes::{self, Allowed},
    },
    traffic::Traffic,
};
use awe4lb_engine::health::Health;
use support::{backend, config, connect, eventually, free_port, greeter, greeting, read_to_end, traffic};

/// A node's traffic and its checks, until the test ends.
struct Checked {
    traffic: Arc<Traffic>,
    live: Arc<Live>,
    runtime: tokio::runtime::Runtime,
}

impl Checked {
    fn run(yaml: &str) -> Self {
        Self::allowing(yaml, &[])
    }

    fn allowing(yaml: &str, programs: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (runtime, traffic) = (runtime.expect("a runtime"), traffic());
        let live = Arc::new(Live::new(traffic.clone()));
        let allowed = Allowed { programs: programs.iter().map(ToString::to_string).collect() };
        runtime.spawn(probes::run(live.clone(), allowed));
        let checked = Self { traffic, live, runtime };
        checked.apply(yaml);
        checked
    }

    fn apply(&self, yaml: &str) {
        self.runtime.block_on(async {
            let turn = self.live.turn().await;
            let ready = turn.prepare(config(yaml), Mode::Strict).await.expect("prepared");
            turn.commit(ready, None, Default::default());
        });
    }

    /// The backends of the first pool.
    fn members(&self) -> Vec<MemberView> {
        use awe4lb_data_plane::control::hot::DataPath as _;
        self.traffic.pools().first().expect("a pool").members()
    }

    fn until(&self, what: &str, holds: impl Fn(&[MemberView]) -> bool) {
        eventually(what, || holds(&self.members()).then_some(()));
    }

    fn until_health(&self, wanted: &[(Health, &str)]) {
        eventually(&format!("{wanted:?}"), || {
            let members = self.members();
            let are = members.iter().map(|member| (member.health, member.reason.as_str()));
            if are.clone().eq(wanted.iter().copied()) {
                return Some(());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
            None
        });
    }
}

/// A listener on `port` in front of these backends, checked so.
fn document(port: u16, backends: &[SocketAddr], check: &str) -> String {
    let list: Vec<String> =
        backends.iter().enumerate().map(|(i, a)| format!("{{ name: b{i}, address: '{a}' }}")).collect();
    format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{}], healthCheck: {{ interval: 50ms, timeout: 1s, rise: 1, fall: 1, {check} }} }}]\n",
        list.join(", ")
    )
}

/// Answers each request of HTTP with what is in the cell.
fn http(answer: &'static str) -> (SocketAddr, Arc<Mutex<String>>) {
    let cell = Arc::new(Mutex::new(answer.to_owned()));
    let answer = cell.clone();
    let address = backend(move |stream| {
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
            line.clear();
        }
        let _ = (&stream).write_all(answer.lock().expect("a lock").as_bytes());
    });
    (address, cell)
}

const UP: Health = Health::Up;
const DOWN: Health = Health::Down;

#[test]
fn http_looks_at_status_and_body_and_traffic_follows() {
    let port = free_port();
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";
    let (first, answer) = http(ok);
    let (second, _) = http("HTTP/1.1 503 no\r\ncontent-length: 4\r\n\r\ngood");
    let check = "type: http, path: /healthz, body: { regex: '^go+d$' }";
    let checked = Checked::run(&document(port, &[first, second], check));
    checked.until_health(&[(UP, ""), (DOWN, "HTTP status 503")]);
    for _ in 0..8 {
        let mut stream = connect(port);
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        assert!(read_to_end(&mut stream).expect("an answer").starts_with(b"HTTP/1.1 200"));
    }
    *answer.lock().expect("a lock") = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad".to_owned();
    checked.until("the body counts", |members| members[0].health == DOWN);
    *answer.lock().expect("a lock") = ok.to_owned();
    checked.until("back", |members| members[0].health == UP);
}

#[test]
fn a_script_speaks_in_turn() {
    let port = free_port();
    let mail = backend(|stream| {
        let _ = (&stream).write_all(b"220 mail ESMTP\r\n");
        let mut line = String::new();
        let _ = BufReader::new(&stream).read_line(&mut line);
        let _ =
            (&stream).write_all(if line == "EHLO check\r\n" { b"250 mail\r\n" } else { b"500 what?\r\n" });
    });
    let other = greeter("421 busy\r\n");
    let steps = "type: script, steps: [{ expect: { regex: '^220 ' } }, { send: \"EHLO check\\r\\n\" }, { expect: '250 ' }]";
    let checked = Checked::run(&document(port, &[mail, other], steps));
    checked.until("mail is up, the other is not", |members| {
        members[0].health == UP && members[1].health == DOWN && !members[1].reason.is_empty()
    });
}

#[test]
fn a_datagram_and_its_answer_and_a_port_where_nobody_listens() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let there = server.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            let answer: &[u8] = if buffer[..length] == [0xff, 0x01] { b"pong" } else { b"what" };
            let _ = server.send_to(answer, from);
        }
    });
    let gone =
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a port");
    let check = "type: udp, send: { hex: ff01 }, expect: pong";
    let checked = Checked::run(&document(free_port(), &[there, gone], check));
    checked.until_health(&[(UP, ""), (DOWN, "connection refused")]);
}

/// What an agent says is heard: weights, drain, limits; without a word about health it is up.
#[test]
fn an_agent_drains_and_weighs() {
    let word = Arc::new(Mutex::new("up 100%\n"));
    let says = word.clone();
    let agent = backend(move |mut stream| {
        let _ = stream.write_all(says.lock().expect("a lock").as_bytes());
    });
    let port = free_port();
    let (first, second) = (greeter("first"), greeter("second"));
    let yaml = format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ name: a, address: '{first}' }}, {{ name: b, address: '{second}', priority: 1 }}],\
           healthCheck: {{ type: agent, port: {}, interval: 50ms, rise: 1, fall: 1 }} }}]\n",
        agent.port()
    );
    let checked = Checked::run(&yaml);
    checked.until("up", |members| members.iter().all(|member| member.health == UP));
    assert_eq!(greeting(port), "first");
    *word.lock().expect("a lock") = "0%\n";
    eventually("a weight of nothing gets nothing", || greeting(port).is_empty().then_some(()));
    *word.lock().expect("a lock") = "50%\n";
    eventually("a part gets its part", || (greeting(port) == "first").then_some(()));
    *word.lock().expect("a lock") = "down\n";
    checked.until("down", |members| members[0].reason == "the agent says down");
    *word.lock().expect("a lock") = "up drain\n";
    checked.until("up again", |members| members[0].health == UP);
    assert_eq!(greeting(port), "", "both agents are one here: both drain");
    *word.lock().expect("a lock") = "ready\n";
    eventually("ready", || (greeting(port) == "first").then_some(()));
}

#[test]
fn before_the_first_result_it_is_as_initial_says() {
    let port = free_port();
    let (answers, silent) = (greeter("hello"), greeter("hello"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let check_port = backend(move |_| {
        count.fetch_add(1, SeqCst);
    });
    let yaml =
        document(port, &[answers, silent], &format!("type: tcp, initial: down, port: {}", check_port.port()))
            .replace("rise: 1", "rise: 4")
            .replace("interval: 50ms", "interval: 1h, fastInterval: 20ms");
    let checked = Checked::run(&yaml);
    // The first check comes within a second; that the others come at all is the fast interval's doing.
    checked.until("up after four successes", |members| members.iter().all(|member| member.health == UP));
    eventually("asked eight times", || (asked.load(SeqCst) >= 8).then_some(()));
    assert_eq!(greeting(port), "hello");
}

#[test]
fn a_check_introduces_itself_where_it_is_told_to() {
    let heard = Arc::new(Mutex::new(String::new()));
    let (other, is_called) = (heard.clone(), Arc::new(AtomicBool::new(false)));
    let called = is_called.clone();
    let address = backend(move |stream| {
        let mut line = String::new();
        let _ = BufReader::new(&stream).read_line(&mut line);
        *other.lock().expect("a lock") = line;
        called.store(true, SeqCst);
    });
    let yaml = document(
        free_port(),
        &[address],
        "type: script, proxyProtocol: true, steps: [{ send: 'x' }, { end: {} }]",
    );
    let _checked = Checked::run(&yaml);
    eventually("asked", || is_called.load(SeqCst).then_some(()));
    assert!(heard.lock().expect("a lock").starts_with('\r'), "a header of version 2 begins so");
}

#[test]
fn a_program_decides_where_the_node_allows_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("check");
    let script =
        "#!/bin/sh\necho \"$AWE4LB_POOL/$AWE4LB_BACKEND $# ${HOME-nothing}\"\n[ \"$AWE4LB_BACKEND\" = b0 ]\n";
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("executable");
    let path = program.to_str().expect("text");
    let backends = [greeter("a"), greeter("b")];
    let yaml = document(
        free_port(),
        &backends,
        &format!("type: exec, command: ['{path}', one, 'two words; $(three)']"),
    );
    let checked = Checked::allowing(&yaml, &[path]);
    checked.until_health(&[(UP, ""), (DOWN, "exit code 1: p/b1 2 nothing")]);

    let refused =
        Checked::run(&document(free_port(), &backends, &format!("type: exec, command: ['{path}']")));
    let reason = "this node does not allow the program (--allow-exec)";
    refused.until_health(&[(DOWN, reason), (DOWN, reason)]);
}

/// A program that hangs is killed with everything it started.
#[test]
fn a_program_that_hangs_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("check");
    let pid = folder.path().join("pid");
    let script = format!("#!/bin/sh\n/bin/sleep 600 &\necho $! > {}\nwait\n", pid.display());
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("executable");
    let path = program.to_str().expect("text");
    let yaml = document(free_port(), &[greeter("a")], &format!("type: exec, command: ['{path}']"))
        .replace("interval: 50ms", "interval: 1h");
    let checked = Checked::allowing(&yaml, &[path]);
    checked.until_health(&[(DOWN, "timeout")]);
    let child = std::fs::read_to_string(&pid).expect("it ran");
    let state = format!("/proc/{}/stat", child.trim());
    eventually("the grandchild is gone", || {
        // Nobody may be left to wait for it: a zombie is as good as gone.
        std::fs::read_to_string(&state).map_or(true, |stat| stat.contains(") Z ")).then_some(())
    });
}
