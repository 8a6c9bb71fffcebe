//! A hot half in this process, real sockets around it.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use awe4lb_data_plane::{
    control::hot::{CounterSample, DataPath, Mode, Problem},
    traffic::{Traffic, TrafficOptions},
};
use awe4lb_model::{
    document::{Format, compile, parse},
    placed::{NodeConfig, number_locally},
};

/// How long anything in these tests may take before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A configuration from YAML, numbered in its order.
pub fn config(yaml: &str) -> Arc<NodeConfig> {
    let compiled = compile(parse(yaml, Format::Yaml).expect("yaml")).expect("a valid configuration");
    Arc::new(number_locally(compiled.config, &compiled.keys))
}

/// Two workers that run nothing yet.
pub fn traffic() -> Arc<Traffic> {
    Traffic::start(TrafficOptions {
        threads: 2,
        bind_address: Some(Ipv4Addr::LOCALHOST.into()),
        access_log: None,
    })
    .expect("workers")
}

/// Two workers that run `yaml`.
pub fn running(yaml: &str) -> Arc<Traffic> {
    let traffic = traffic();
    apply(&traffic, yaml).expect("applied");
    traffic
}

/// Prepares and commits.
pub fn apply(traffic: &Traffic, yaml: &str) -> Result<(), Vec<Problem>> {
    let prepared = traffic.prepare(config(yaml), Mode::Strict)?;
    traffic.commit(prepared);
    Ok(())
}

/// A port that is free for TCP and UDP now. Each is given once in this process.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A backend that runs `serve` on a thread for each connection, until the process ends.
pub fn backend(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Sends back what it gets, and ends when the other side did.
pub fn echo() -> SocketAddr {
    backend(|mut stream| {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    })
}

/// Says its name and ends.
pub fn greeter(name: &'static str) -> SocketAddr {
    backend(move |mut stream| {
        let _ = stream.write_all(name.as_bytes());
    })
}

/// A client of `port` that gives up rather than hang.
pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Everything until the end.
pub fn read_to_end(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// What a greeter behind `port` says.
pub fn greeting(port: u16) -> String {
    String::from_utf8(read_to_end(&mut connect(port)).unwrap_or_default()).expect("text")
}

/// Waits until `check` gives something.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// The counters of a number.
pub fn counters(traffic: &Traffic, number: u64) -> CounterSample {
    traffic.counters().into_iter().find(|sample| sample.number == number).unwrap_or_default()
}

/// How often something ended so at a number.
pub fn ended(traffic: &Traffic, number: u64, reason: &str) -> u64 {
    let ends = counters(traffic, number).ends;
    ends.iter().find(|(end, _)| end.label() == reason).map_or(0, |(_, count)| *count)
}

/// One listener `l` (number 1, rule 2) on `port` to one pool `p` (number 3, backends from 4).
pub fn simple(port: u16, backends: &[SocketAddr], listener: &str, pool: &str) -> String {
    let list: Vec<String> =
        backends.iter().enumerate().map(|(i, a)| format!("{{ name: b{i}, address: \"{a}\" }}")).collect();
    format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], rules: [{{ name: r, pool: p }}]{listener} }}]\n\
         pools: [{{ name: p, backends: [{}]{pool} }}]\n",
        list.join(", ")
    )
}
