//! A client, a node and a backend on hosts of their own: network namespaces, joined by veth pairs.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use awe4lb_e2e::{
    eventually, have,
    network::{BACKEND, CLIENT, NODE, Network, can_be_made},
    process::{Program, run},
    program,
};

/// Says to each who it is.
fn who_are_you_by_udp(socket: UdpSocket) {
    std::thread::spawn(move || {
        let mut buffer = [0; 2_048];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(from.to_string().as_bytes(), from);
        }
    });
}

fn who_are_you_by_tcp(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream: TcpStream = stream;
            let name = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            let _ = stream.write_all(name.as_bytes());
        }
    });
}

#[test]
fn backends_see_the_clients_own_address_and_answers_return_through_the_node() {
    if !can_be_made() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let network = Network::new("seen", 1);
    let check = || {
        let node = program("awe4lb-data-plane").display().to_string();
        run("ip", &["netns", "exec", network.name(NODE), &node, "transparency"])
    };
    let (is_ready, said, _) = check();
    assert!(!is_ready && said.contains("IPv4") && said.contains("ip -6 rule add"), "{said}");
    network.hand_transparent_packets_to_their_sockets(folder.path());
    let (is_ready, said, why) = check();
    assert!(is_ready, "{said}{why}");
    for address in ["10.77.2.2:9000", "[fd77:2::2]:9000"] {
        let (udp, tcp) = network.on(BACKEND, || {
            (UdpSocket::bind(address).expect("a port"), TcpListener::bind(address).expect("a port"))
        });
        who_are_you_by_udp(udp);
        who_are_you_by_tcp(tcp);
    }
    let document = folder.path().join("node.yaml");
    let listener = |name: &str, protocol: &str, port: u16, v6: bool| {
        let bind = if v6 { format!("[::]:{port}") } else { format!("0.0.0.0:{port}") };
        let pool = if v6 { "six" } else { "four" };
        format!("- {{ name: {name}, protocol: {protocol}, bind: ['{bind}'], rules: [{{ pool: {pool} }}] }}\n")
    };
    let yaml = format!(
        "listeners:\n{}{}{}{}pools:\n- {{ name: four, preserveClientAddress: true, backends: [{{ address: '10.77.2.2:9000' }}] }}\n- {{ name: six, preserveClientAddress: true, backends: [{{ address: '[fd77:2::2]:9000' }}] }}\n",
        listener("udp-four", "udp", 7000, false),
        listener("udp-six", "udp", 7000, true),
        listener("tcp-four", "tcp", 7000, false),
        listener("tcp-six", "tcp", 7000, true),
    );
    std::fs::write(&document, yaml).expect("written");
    let node = program("awe4lb-data-plane").display().to_string();
    let file = document.display().to_string();
    let arguments =
        ["netns", "exec", network.name(NODE), &node, "--admin", "127.0.0.1:7999", "--snapshot-file", &file];
    let mut program = Program::start("node", folder.path(), "ip", arguments);
    program.ready();
    network.on(CLIENT, || {
        for node in ["10.77.1.1:7000", "[fd77:1::1]:7000"] {
            let node: SocketAddr = node.parse().expect("an address");
            let any = if node.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).expect("a port");
            socket.connect(node).expect("connected");
            socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            let own = socket.local_addr().expect("an address").to_string();
            for _ in 0..3 {
                let seen = eventually("an answer", || {
                    socket.send(b"who am I?").ok()?;
                    let mut buffer = [0; 128];
                    let length = socket.recv(&mut buffer).ok()?;
                    String::from_utf8(buffer[..length].to_vec()).ok()
                });
                assert_eq!(seen, own, "by UDP");
            }
            let mut stream = TcpStream::connect(node).expect("connected");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            let own = stream.local_addr().expect("an address").to_string();
            let mut seen = String::new();
            stream.read_to_string(&mut seen).expect("an answer");
            assert_eq!(seen, own, "by TCP");
        }
    });
}

/// How often something was counted, from the node's own metrics.
fn metric(network: &Network, line: &str) -> u64 {
    let (ok, text, why) =
        run("ip", &["netns", "exec", network.name(NODE), "curl", "-sS", "http://127.0.0.1:7999/metrics"]);
    assert!(ok, "{why}");
    let found = text.lines().find_map(|found| found.strip_prefix(line));
    found.and_then(|value| value.trim().parse::<f64>().ok()).map_or(0, |value| value as u64)
}

#[test]
fn as_many_flows_as_ports_allow_are_computed_and_reached() {
    if !can_be_made() || !have("curl") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let network = Network::new("room", 2);
    let ports = "net.ipv4.ip_local_port_range=40000 40049";
    let (ok, _, why) = run("ip", &["netns", "exec", network.name(NODE), "sysctl", "-qw", ports]);
    assert!(ok, "{why}");
    for (host, address) in [(BACKEND, "10.77.2.2:9000"), (BACKEND + 1, "10.77.3.2:9000")] {
        who_are_you_by_udp(network.on(host, || UdpSocket::bind(address).expect("a port")));
    }
    let document = folder.path().join("node.yaml");
    let yaml = "listeners:\n- { name: l, protocol: udp, bind: ['0.0.0.0:7000'], rules: [{ pool: p }] }\npools:\n- { name: p, balance: roundRobin, backends: [{ address: '10.77.2.2:9000' }, { address: '10.77.3.2:9000' }] }\n";
    std::fs::write(&document, yaml).expect("written");
    let node = program("awe4lb-data-plane").display().to_string();
    let file = document.display().to_string();
    let arguments = [
        "netns",
        "exec",
        network.name(NODE),
        &node,
        "--admin",
        "127.0.0.1:7999",
        "--threads",
        "1",
        "--snapshot-file",
        &file,
    ];
    let mut program = Program::start("node", folder.path(), "ip", arguments);
    program.ready();
    let limit = metric(&network, "awe4lb_pool_flows_limit{pool=\"p\"}");
    assert_eq!(
        limit,
        3 + 47 * 2,
        "three with sockets of their own, the others share the ports that are left"
    );
    let clients: Vec<UdpSocket> = network
        .on(CLIENT, || (0..limit + 30).map(|_| UdpSocket::bind("0.0.0.0:0").expect("a port")).collect());
    let answered = clients
        .iter()
        .filter(|client| {
            client.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            client.send_to(b"?", "10.77.1.1:7000").expect("sent");
            client.recv(&mut [0; 128]).is_ok()
        })
        .count() as u64;
    assert_eq!(answered, limit, "each of them is served, and nobody else");
    let refused =
        metric(&network, "awe4lb_listener_ended_total{listener=\"l\",reason=\"resource-exhausted\"}");
    assert_eq!(refused, 30, "who was not is counted");
}
