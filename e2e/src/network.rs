//! Hosts of their own on one machine: network namespaces, joined by veth pairs. Only root can make them.

use std::path::Path;

use crate::{have, process::run};

/// The host that clients are on: 10.77.1.2 and fd77:1::2.
pub const CLIENT: usize = 0;
/// The host of the node: 10.77.1.1 towards the client, 10.77.2.1 towards the first backend, and so on.
pub const NODE: usize = 1;
/// The host of the first backend: 10.77.2.2 and fd77:2::2; the next one is 10.77.3.2.
pub const BACKEND: usize = 2;

/// `client` – `node` – backends, by IPv4 and IPv6. Gone when dropped.
pub struct Network {
    hosts: Vec<String>,
}

fn must(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (ok, out, why) = run(words[0], &words[1..]);
    assert!(ok, "{line}: {out}{why}");
}

/// Whether networks can be made here.
#[must_use]
pub fn can_be_made() -> bool {
    rustix::process::geteuid().is_root() && ["ip", "nft"].iter().all(|tool| have(tool))
}

impl Network {
    /// With so many backends. `tag` tells networks apart that are there at a time.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(tag: &str, backends: usize) -> Self {
        let mut names = vec!["client".to_owned(), "node".to_owned()];
        names.extend((0..backends).map(|number| format!("backend{number}")));
        let hosts = names.iter().map(|host| format!("awe4lb-{tag}-{}-{host}", std::process::id())).collect();
        let network = Self { hosts };
        for host in &network.hosts {
            must(&format!("ip netns add {host}"));
            must(&format!("ip -n {host} link set lo up"));
        }
        let node = &network.hosts[NODE];
        let outer = network.hosts.iter().enumerate().filter(|(host, _)| *host != NODE);
        for (net, (_, outer)) in (1..).zip(outer) {
            let name = format!("net{net}");
            must(&format!("ip -n {node} link add {name} type veth peer name eth0 netns {outer}"));
            for (host, link, last) in [(node, name.as_str(), 1), (outer, "eth0", 2)] {
                must(&format!("ip -n {host} addr add 10.77.{net}.{last}/24 dev {link}"));
                must(&format!("ip -n {host} addr add fd77:{net}::{last}/64 dev {link} nodad"));
                must(&format!("ip -n {host} link set {link} up"));
            }
            must(&format!("ip -n {outer} route add default via 10.77.{net}.1"));
            must(&format!("ip -n {outer} -6 route add default via fd77:{net}::1"));
        }
        network
    }

    /// The name of a host's namespace.
    #[must_use]
    pub fn name(&self, host: usize) -> &str {
        &self.hosts[host]
    }

    /// On the node, as `docs/udp.md` says.
    ///
    /// # Panics
    /// When the page has no recipe, or it does not work.
    pub fn hand_transparent_packets_to_their_sockets(&self, folder: &Path) {
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
    ///
    /// # Panics
    /// When `act` does.
    pub fn on<T: Send>(&self, host: usize, act: impl FnOnce() -> T + Send) -> T {
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
