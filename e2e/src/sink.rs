//! A small HTTP server that takes what is posted, and answers as the test says.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
};

use serde_json::Value;

/// A request, whole.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The first line and all headers, in lower case but for their values.
    pub head: String,
    /// JSON.
    pub body: Value,
}

impl Posted {
    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Takes requests until the test ends; `answer` gives the status of each. Where it is, and what came.
///
/// # Panics
/// When it cannot listen.
pub fn sink(mut answer: impl FnMut(&Posted) -> u16 + Send + 'static) -> (SocketAddr, mpsc::Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("{error}"));
    let address = listener.local_addr().unwrap_or_else(|error| panic!("{error}"));
    let (told, posted) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let Ok((mut stream, request)) = read(stream) else { continue };
            let status = answer(&request);
            let _ = told.send(request);
            let _ = write!(stream, "HTTP/1.1 {status} -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (address, posted)
}

fn read(stream: TcpStream) -> std::io::Result<(TcpStream, Posted)> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        let line = line.trim_end();
        let line = match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}\n", name.to_ascii_lowercase()),
            None => format!("{line}\n"),
        };
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap_or(0);
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Ok((reader.into_inner(), Posted { head, body }))
}
