//! A client, a node and a backend on hosts of their own: network namespaces, joined by veth pairs.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};

use awe4lb_e2e::{
    eventually, have,
    process::{Program, run},
    program,
};

/// `client` – `node` – `backend`, by IPv4 and IPv6. Gone when dropped.
struct Network {
    hosts: [String; 3],
}

const CLIENT: usize = 0;
const NODE: usize = 1;
const BACKEND: usize = 2;

fn must(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (ok, out, why) = run(words[0], &words[1..]);
    assert!(ok, "{line}: {out}{why}");
}

impl Network {
    fn new(tag: &str) -> Self {
        let hosts =
            ["client", "node", "backend"].map(|host| format!("awe4lb-{tag}-{}-{host}", std::process::id()));
        let network = Self { hosts };
        let [client, node, backend] = &network.hosts;
        for host in &network.hosts {
            must(&format!("ip netns add {host}"));
            must(&format!("ip -n {host} link set lo up"));
        }
        for (number, (outer, name)) in [(client, "front"), (backend, "back")].into_iter().enumerate() {
            let net = number + 1;
            must(&format!("ip -n {node} link add {name} type veth peer name eth0 netns {outer}"));
            for (host, link, last) in [(node, name, 1), (outer, "eth0", 2)] {
                must(&format!("ip -n {host} addr add 10.77.{net}.{last}/24 dev {link}"));
                must(&format!("ip -n {host} addr add fd77:{net}::{last}/64 dev {link} nodad"));
                must(&format!("ip -n {host} link set {link} up"));
            }
            must(&format!("ip -n {outer} route add default via 10.77.{net}.1"));
            must(&format!("ip -n {outer} -6 route add default via fd77:{net}::1"));
        }
        network
    }

    /// As `docs/udp.md` says.
    fn hand_transparent_packets_to_their_sockets(&self, folder: &Path) {
        let node = &self.hosts[NODE];
        let rules = folder.join("transparent.nft");
        let recipe = include_str!("../../docs/udp.md");
        let block =
            recipe.split("```nft\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the recipe");
        std::fs::write(&rules, block).expect("written");
        must(&format!("ip netns exec {node} nft -f {}", rules.display()));
        let routes = recipe.split("```sh transparent\n").nth(1).and_then(|rest| rest.split("```").next());
        for line in routes.expect("the recipe").lines().filter(|line| line.starts_with("ip ")) {
            must(&format!("ip netns exec {node} {line}"));
        }
    }

    /// Runs `act` on a host: sockets that it makes are that host's.
    fn on<T: Send>(&self, host: usize, act: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.hosts[host])).expect("a namespace");
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                rustix::thread::move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&file),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )
                .expect("entered");
                act()
            });
            inside.join().expect("it does not panic")
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            let _ = run("ip", &["netns", "del", host]);
        }
    }
}

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
    if !rustix::process::geteuid().is_root() || !["ip", "nft"].iter().all(|tool| have(tool)) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let network = Network::new("seen");
    network.hand_transparent_packets_to_their_sockets(folder.path());
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
        ["netns", "exec", &network.hosts[NODE], &node, "--admin", "127.0.0.1:7999", "--snapshot-file", &file];
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
