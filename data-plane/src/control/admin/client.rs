//! The other end of the node's own sockets, for the subcommands. One request a connection, nothing more than that.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};

const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ANSWER: u64 = 64 << 20;

/// Asks the admin address.
pub fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let stream =
        TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| format!("no node at {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    request(stream, "GET", path)
}

/// Asks the local socket of the node with this state directory.
pub fn ask_local(state_dir: &Path, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let socket = state_dir.join("node.sock");
    let stream =
        UnixStream::connect(&socket).with_context(|| format!("no node runs at {}", socket.display()))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    request(stream, method, path)
}

/// HTTP/1.0: the answer ends with the connection.
fn request(mut stream: impl Read + Write, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
    write!(stream, "{method} {path} HTTP/1.0\r\nhost: node\r\ncontent-length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).context("the node does not answer")?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("the node's answer is cut off") };
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    Ok((status.context("the node's answer has no status")?, body.to_owned()))
}
