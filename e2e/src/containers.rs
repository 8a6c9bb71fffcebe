//! Managers of containers, for real: Podman behind Docker's API, Docker Swarm, and LXD. Only root can start them. The one image there is
//! has BusyBox's web server, which says the name of its container.

use std::path::{Path, PathBuf};

use crate::{
    eventually, have,
    process::{Program, run},
};

const BUSYBOX: &str = "/bin/busybox";
/// The network of Podman's containers.
pub const NETWORK: &str = "awe4lb-test";

/// Whether containers can be started here.
#[must_use]
pub fn can_be_started(tools: &[&str]) -> bool {
    rustix::process::geteuid().is_root()
        && Path::new(BUSYBOX).is_file()
        && tools.iter().all(|tool| have(tool))
}

#[track_caller]
fn must(program: &str, arguments: &[&str]) -> String {
    let (ok, out, why) = run(program, arguments);
    assert!(ok, "{program} {arguments:?}: {out}{why}");
    out
}

/// Podman with a store of its own, and its API on a unix socket.
pub struct Podman {
    folder: PathBuf,
    service: Option<Program>,
}

impl Podman {
    /// Without containers.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let folder = folder.join("podman");
        let image = folder.join("image/bin");
        std::fs::create_dir_all(&image).expect("a folder");
        std::fs::copy(BUSYBOX, image.join("busybox")).expect("BusyBox");
        let tar = folder.join("image.tar").display().to_string();
        must("tar", &["-C", &folder.join("image").display().to_string(), "-cf", &tar, "."]);
        let mut podman = Self { folder, service: None };
        podman.call(&["import", &tar, "localhost/web:1"]);
        // A network of its own, with either of the two ways to make one: the usual one may be left over from the other.
        let subnet = format!("10.188.{}.0/24", std::process::id() % 250);
        podman.call(&["network", "create", "--disable-dns", "--subnet", &subnet, NETWORK]);
        podman.serve(true);
        podman
    }

    /// Where the API is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("api/podman.sock")
    }

    /// Starts or ends the API; containers go on.
    pub fn serve(&mut self, on: bool) {
        self.service = None;
        let socket = self.socket();
        let _ = std::fs::remove_file(&socket);
        if !on {
            return;
        }
        std::fs::create_dir_all(socket.parent().expect("a folder")).expect("a folder");
        let mut arguments = self.flags();
        arguments.extend(["system", "service", "--time", "0"].map(str::to_owned));
        arguments.push(format!("unix://{}", socket.display()));
        self.service = Some(Program::start("podman", &self.folder, "podman", arguments));
        eventually("the API of Podman", || std::os::unix::net::UnixStream::connect(&socket).ok());
    }

    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let (root, run, networks) = (path("root"), path("run"), path("networks"));
        let flags = [
            "--network-config-dir",
            &networks,
            "--root",
            &root,
            "--runroot",
            &run,
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "file",
            "--runtime",
            "runc",
        ];
        flags.map(str::to_owned).to_vec()
    }

    #[track_caller]
    fn call(&self, arguments: &[&str]) -> String {
        let mut all = self.flags();
        all.extend(arguments.iter().map(|&word| word.to_owned()));
        must("podman", &all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A container with a web server on port 8080 that says its name.
    #[track_caller]
    pub fn run(&self, name: &str, flags: &[&str]) {
        let web = format!(
            "mkdir -p /www; echo {name} > /www/index.html; exec /bin/busybox httpd -f -p 8080 -h /www"
        );
        let mut arguments = vec![
            "run",
            "-d",
            "--name",
            name,
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=4096:4096",
            "--network",
            NETWORK,
        ];
        arguments.extend(flags);
        arguments.extend(["localhost/web:1", BUSYBOX, "sh", "-c"]);
        let script = format!("/bin/busybox --install -s /bin; {web}");
        arguments.push(&script);
        self.call(&arguments);
    }

    /// Ends a container and forgets it.
    #[track_caller]
    pub fn remove(&self, name: &str) {
        self.call(&["rm", "-f", "-t", "0", name]);
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.service = None;
        for last in [&["rm", "-f", "-a", "-t", "0"][..], &["network", "rm", "-f", NETWORK]] {
            let all: Vec<String> =
                self.flags().into_iter().chain(last.iter().map(|&word| word.to_owned())).collect();
            run("podman", &all.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

/// A swarm of one Docker engine, which is its manager, in a network namespace of its own: what counts is what the API says.
pub struct Swarm {
    folder: PathBuf,
    namespace: String,
    engine: Program,
}

impl Swarm {
    /// With a network called `shop`, 10.214.0.0/24, and no services.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let folder = folder.join("swarm");
        let image = folder.join("image/bin");
        std::fs::create_dir_all(&image).expect("a folder");
        std::fs::copy(BUSYBOX, image.join("busybox")).expect("BusyBox");
        let tar = folder.join("image.tar").display().to_string();
        must("tar", &["-C", &folder.join("image").display().to_string(), "-cf", &tar, "."]);
        std::fs::create_dir_all(folder.join("api")).expect("a folder");
        let path = |name: &str| folder.join(name).display().to_string();
        let socket = format!("unix://{}", path("api/docker.sock"));
        let (data, exec, pid) = (path("data"), path("exec"), path("pid"));
        let namespace = format!("awe4lb-swarm-{}", std::process::id());
        must("ip", &["netns", "add", &namespace]);
        must("ip", &["-n", &namespace, "link", "set", "lo", "up"]);
        let net = format!("--net=/run/netns/{namespace}");
        let arguments = [
            &net,
            "dockerd",
            "--data-root",
            &data,
            "--exec-root",
            &exec,
            "--pidfile",
            &pid,
            "-H",
            &socket,
            "--storage-driver",
            "vfs",
            "--bridge",
            "none",
            "--iptables=false",
            "--ip6tables=false",
        ];
        let engine = Program::start("dockerd", &folder, "nsenter", arguments);
        let swarm = Self { folder, namespace, engine };
        eventually("the engine", || swarm.try_call(&["version"]).0.then_some(()));
        swarm.call(&["import", &tar, "localhost/web:1"]);
        let listen = format!("127.0.0.1:{}", crate::free_port());
        swarm.call(&["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", &listen]);
        swarm.call(&["network", "create", "-d", "overlay", "--subnet", "10.214.0.0/24", "shop"]);
        swarm
    }

    /// Where the API is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("api/docker.sock")
    }

    fn try_call(&self, arguments: &[&str]) -> (bool, String, String) {
        let socket = format!("unix://{}", self.socket().display());
        let mut all = vec!["-H", &socket];
        all.extend(arguments);
        run("docker", &all)
    }

    /// Calls `docker`.
    #[track_caller]
    pub fn call(&self, arguments: &[&str]) -> String {
        let (ok, out, why) = self.try_call(arguments);
        assert!(ok, "docker {arguments:?}: {out}{why}");
        out
    }

    /// A service of one task with a web server on port 8080.
    #[track_caller]
    pub fn service(&self, name: &str, flags: &[&str]) {
        let mut arguments = vec![
            "service",
            "create",
            "--detach",
            "--no-resolve-image",
            "--name",
            name,
            "--ulimit",
            "nofile=1024:1024",
        ];
        arguments.extend(flags);
        arguments.extend(["localhost/web:1", BUSYBOX, "httpd", "-f", "-p", "8080"]);
        self.call(&arguments);
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.try_call(&["swarm", "leave", "--force"]);
        self.engine.terminate();
        eventually("the engine ends", || self.engine.has_ended().then_some(()));
        // Namespaces of networks stay mounted.
        for mount in std::fs::read_dir(self.folder.join("exec/netns")).into_iter().flatten().flatten() {
            run("umount", &[&mount.path().display().to_string()]);
        }
        run("ip", &["netns", "del", &self.namespace]);
    }
}

/// LXD with a store and a bridge of its own.
pub struct Lxd {
    folder: PathBuf,
    bridge: String,
    _daemon: Program,
}

impl Lxd {
    /// Without instances. They have addresses in 10.79.0.0/24.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let folder = folder.join("lxd");
        let root = folder.join("image/rootfs");
        for part in ["bin", "sbin", "etc", "proc", "sys", "dev", "www", "tmp", "root"] {
            std::fs::create_dir_all(root.join(part)).expect("a folder");
        }
        std::fs::copy(BUSYBOX, root.join("bin/busybox")).expect("BusyBox");
        std::os::unix::fs::symlink("busybox", root.join("bin/sh")).expect("a link");
        // Its address is its name's last part.
        let init = "#!/bin/sh\nb=/bin/busybox\n$b ip link set eth0 up\nname=$($b hostname)\n\
            $b ip addr add 10.79.0.${name##*-}/24 dev eth0\necho $name > /www/index.html\nexec $b httpd -f -p 8080 -h /www\n";
        std::fs::write(root.join("sbin/init"), init).expect("written");
        must("chmod", &["0755", &root.join("sbin/init").display().to_string()]);
        let facts = "architecture: x86_64\ncreation_date: 1700000000\nproperties: { description: web, os: web, release: \"1\" }\n";
        std::fs::write(folder.join("image/metadata.yaml"), facts).expect("written");
        let tar = folder.join("image.tar.gz").display().to_string();
        let image = folder.join("image").display().to_string();
        must("tar", &["-C", &image, "-czf", &tar, "metadata.yaml", "rootfs"]);
        let state = folder.join("state");
        std::fs::create_dir_all(&state).expect("a folder");
        let variable = format!("LXD_DIR={}", state.display());
        let daemon = Program::start("lxd", &folder, "env", [variable.as_str(), "lxd", "--group", "root"]);
        let lxd = Self { folder, bridge: format!("lxd{}", std::process::id() % 100_000), _daemon: daemon };
        must("env", &[&variable, "lxd", "waitready", "--timeout", "30"]);
        lxd.call(&["storage", "create", "default", "dir"]);
        lxd.call(&["profile", "device", "add", "default", "root", "disk", "path=/", "pool=default"]);
        let bridge = lxd.bridge.clone();
        lxd.call(&[
            "network",
            "create",
            &bridge,
            "ipv4.address=10.79.0.1/24",
            "ipv4.nat=false",
            "ipv4.dhcp=false",
            "ipv6.address=none",
            "dns.mode=none",
        ]);
        lxd.call(&["image", "import", &tar, "--alias", "web"]);
        lxd
    }

    /// Where the API is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("state/unix.socket")
    }

    /// Calls `lxc`.
    #[track_caller]
    pub fn call(&self, arguments: &[&str]) -> String {
        let variable = format!("LXD_DIR={}", self.folder.join("state").display());
        let mut all = vec![variable.as_str(), "lxc"];
        all.extend(arguments);
        must("env", &all)
    }

    /// An instance `NAME-N` with the address 10.79.0.N and a web server on port 8080 that says its name.
    #[track_caller]
    pub fn launch(&self, name: &str, keys: &[&str]) {
        let mut arguments = vec!["launch", "web", name, "-n", &self.bridge, "-c", "security.privileged=true"];
        for key in keys {
            arguments.extend(["-c", key]);
        }
        self.call(&arguments);
    }
}

impl Drop for Lxd {
    fn drop(&mut self) {
        let variable = format!("LXD_DIR={}", self.folder.join("state").display());
        let (_, names, _) = run("env", &[&variable, "lxc", "list", "-c", "n", "-f", "csv"]);
        for name in names.lines() {
            run("env", &[&variable, "lxc", "delete", "-f", name]);
        }
        run("env", &[&variable, "lxd", "shutdown", "--timeout", "20"]);
        run("ip", &["link", "del", &self.bridge]);
    }
}
