//! Services that live on UDP, as they are: IKE by strongSwan over two ports, telephony by sipp.

use std::path::{Path, PathBuf};

use awe4lb_e2e::{
    at, eventually,
    fleet::Fleet,
    free_port, have,
    network::{BACKEND, CLIENT, NODE, Network, can_be_made},
    process::{Program, run},
    program,
};
use serde_json::{Value, json};

/// strongSwan's daemon on a host of a network, with one connection called `vpn`.
struct Charon {
    _daemon: Program,
    vici: String,
    host: String,
}

impl Charon {
    /// `remote`: whom it may call; `None`: it waits to be called.
    fn start(network: &Network, host: usize, folder: &Path, remote: Option<&str>) -> Self {
        let folder = folder.join(format!("charon{host}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let vici = format!("unix://{}", folder.join("vici").display());
        // Short patience: what goes wrong is to be seen soon.
        let settings = format!(
            "charon-systemd {{\n  retransmit_tries = 2\n  retransmit_timeout = 0.5\n  retransmit_base = 1\n  \
             plugins {{\n    vici {{ socket = {vici} }}\n  }}\n  journal {{ default = -1 }}\n}}\n"
        );
        let file = |name: &str, text: String| -> PathBuf {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let settings = file("strongswan.conf", settings);
        let remote = remote.unwrap_or("%any");
        let (own, other) =
            if remote == "%any" { ("gateway", "road-warrior") } else { ("road-warrior", "gateway") };
        let connections = file(
            "swanctl.conf",
            format!(
                "connections {{\n  vpn {{\n    version = 2\n    remote_addrs = {remote}\n    childless = force\n    \
                 local {{\n auth = psk\n id = {own}\n }}\n    remote {{\n auth = psk\n id = {other}\n }}\n  }}\n}}\n\
                 secrets {{\n  ike-vpn {{\n secret = between-us\n }}\n}}\n"
            ),
        );
        let host = network.name(host).to_owned();
        let settings = format!("STRONGSWAN_CONF={}", settings.display());
        let arguments = ["netns", "exec", &host, "env", &settings, "charon-systemd"];
        let daemon = Program::start("charon", &folder, "ip", arguments);
        let charon = Self { _daemon: daemon, vici, host };
        let file = connections.display().to_string();
        eventually("charon knows its connection", || {
            charon.swanctl(&["--load-all", "--file", &file]).0.then_some(())
        });
        charon
    }

    /// Whether it worked, and what was said.
    fn swanctl(&self, arguments: &[&str]) -> (bool, String) {
        let command = ["netns", "exec", &self.host, "swanctl"];
        let all: Vec<&str> =
            command.into_iter().chain(arguments.iter().copied()).chain(["--uri", &self.vici]).collect();
        let (ok, said, why) = run("ip", &all);
        (ok, said + &why)
    }

    /// Calls the other side, or gives up after a few seconds.
    fn call(&self) -> (bool, String) {
        self.swanctl(&["--initiate", "--ike", "vpn", "--timeout", "10"])
    }

    fn has_a_tunnel(&self) -> bool {
        self.swanctl(&["--list-sas"]).1.contains("ESTABLISHED")
    }
}

#[test]
fn ike_begins_on_one_port_and_goes_on_on_another_with_the_same_gateway() {
    if !can_be_made() || !["charon-systemd", "swanctl"].iter().all(|tool| have(tool)) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let network = Network::new("ike", 2);
    let gateways = [0, 1].map(|number| Charon::start(&network, BACKEND + number, folder.path(), None));
    let caller = Charon::start(&network, CLIENT, folder.path(), Some("10.77.1.1"));
    // In turn: without the group the second port always leads to the other gateway.
    let document = |affinity: &str| {
        let listener = |name: &str, port: u16| {
            format!(
                "- {{ name: {name}, protocol: udp, bind: ['0.0.0.0:{port}']{affinity}, rules: [{{ pool: gateways }}] }}\n"
            )
        };
        format!(
            "listeners:\n{}{}pools:\n- {{ name: gateways, balance: roundRobin, backends: [{{ name: a, address: 10.77.2.2 }}, {{ name: b, address: 10.77.3.2 }}] }}\n",
            listener("ike", 500),
            listener("ike-nat", 4500),
        )
    };
    let file = folder.path().join("node.yaml");
    let node = program("awe4lb-data-plane").display().to_string();
    for (affinity, works) in [("", false), (", affinity: { group: ike }", true)] {
        std::fs::write(&file, document(affinity)).expect("written");
        let path = file.display().to_string();
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
            &path,
        ];
        let mut program = Program::start("node", folder.path(), "ip", arguments);
        program.ready();
        let (ok, said) = caller.call();
        assert_eq!(ok, works, "with {affinity:?}: {said}");
        let tunnels = gateways.iter().filter(|gateway| gateway.has_a_tunnel()).count();
        assert_eq!(tunnels, usize::from(works), "{said}");
    }
}

/// A phone exchange that answers every call.
fn exchange(folder: &Path, name: &str) -> (Program, u16) {
    let port = free_port();
    let text = port.to_string();
    let arguments = ["-sn", "uas", "-i", "127.0.0.1", "-p", &text, "-nostdin", "-trace_err"];
    let program = Program::start(name, folder, "sipp", arguments);
    (program, port)
}

#[test]
fn two_hundred_telephone_calls_reach_two_exchanges_and_every_one_is_whole() {
    if !have("sipp") {
        return;
    }
    let fleet = Fleet::start(1);
    let exchanges = ["exchange-a", "exchange-b"].map(|name| exchange(fleet.folder(), name));
    let port = free_port();
    let backends: Vec<Value> =
        exchanges.iter().map(|(_, port)| json!({"address": format!("127.0.0.1:{port}")})).collect();
    fleet.apply(&json!({
        "version": 1,
        "listeners": [{"name": "sip", "protocol": "udp", "bind": [format!("*:{port}")], "rules": [{"pool": "exchanges"}]}],
        "pools": [{"name": "exchanges", "balance": "roundRobin", "backends": backends}],
    }));
    let node = fleet.nodes[0].ip.to_string();
    let target = at(fleet.nodes[0].ip, port).to_string();
    // A socket for each call, so that each is a flow of its own.
    let (ok, said, why) = run(
        "sipp",
        &[
            "-sn",
            "uac",
            &target,
            "-i",
            "127.0.0.1",
            "-t",
            "un",
            "-m",
            "200",
            "-r",
            "100",
            "-l",
            "50",
            "-nostdin",
            "-max_socket",
            "1000",
            "-timeout",
            "30",
            "-timeout_error",
        ],
    );
    assert!(ok, "through {node}: {said}{why}");
    // A call is three datagrams of the caller: INVITE, ACK, BYE.
    eventually("the calls are counted", || {
        let stats = fleet.rest.get("/api/v1/stats");
        let backends = stats["backends"].as_array()?;
        let asked: Vec<u64> = backends.iter().filter_map(|one| one["datagramsIn"].as_u64()).collect();
        (asked.len() == 2 && asked.iter().sum::<u64>() >= 600 && asked.iter().all(|asked| *asked > 0))
            .then_some(())
    });
}
