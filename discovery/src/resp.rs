//! As much of the protocol of Redis (RESP2) as sentinels are asked in.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The longest answer.
const MAX_ANSWER: usize = 1024 * 1024;
/// How deep lists stand in lists.
const MAX_DEPTH: usize = 4;

/// Something that the other side said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Error(String),
    Nil,
    List(Vec<Value>),
}

impl Value {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Error(_) | Self::Nil | Self::List(_) => None,
        }
    }

    pub(crate) fn list(&self) -> &[Value] {
        match self {
            Self::List(items) => items,
            Self::Text(_) | Self::Error(_) | Self::Nil => &[],
        }
    }

    /// In a flat list of keys and values, as Redis tells of records.
    pub(crate) fn field(&self, key: &str) -> Option<&str> {
        let mut pairs = self.list().chunks_exact(2);
        pairs.find(|pair| pair[0].text() == Some(key)).and_then(|pair| pair[1].text())
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// What came and is not a whole value yet.
    unread: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, unread: Vec::new() }
    }

    /// Says something.
    pub(crate) async fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        self.stream.write_all(&bytes).await
    }

    /// The next value. Given up in between, nothing is lost.
    pub(crate) async fn receive(&mut self) -> io::Result<Value> {
        loop {
            if let Some((value, used)) = parse(&self.unread, MAX_DEPTH)? {
                self.unread.drain(..used);
                return Ok(value);
            }
            if self.unread.len() > MAX_ANSWER {
                return Err(malformed("an answer of more than a mebibyte"));
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Says something and takes the answer, all within `patience`.
    pub(crate) async fn ask(&mut self, words: &[&str], patience: Duration) -> io::Result<Value> {
        let asked = async {
            self.send(words).await?;
            self.receive().await
        };
        tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this is not Redis: {what}"))
}

/// The value that `bytes` begin with and how long it is; `None`: it is not all there.
fn parse(bytes: &[u8], depth: usize) -> io::Result<Option<(Value, usize)>> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() > MAX_ANSWER { Err(malformed("a line without an end")) } else { Ok(None) };
    };
    let Some((kind, line)) = bytes[..end].split_first() else { return Err(malformed("an empty line")) };
    let line = String::from_utf8_lossy(line).into_owned();
    let after = end + 2;
    let length = || line.parse::<i64>().map_err(|_| malformed("a length that is none"));
    match kind {
        b'+' | b':' => Ok(Some((Value::Text(line), after))),
        b'-' => Ok(Some((Value::Error(line), after))),
        b'$' => {
            let Ok(length) = usize::try_from(length()?) else { return Ok(Some((Value::Nil, after))) };
            if length > MAX_ANSWER {
                return Err(malformed("a text of more than a mebibyte"));
            }
            let Some(text) = bytes.get(after..after + length + 2) else { return Ok(None) };
            let text = String::from_utf8_lossy(&text[..length]).into_owned();
            Ok(Some((Value::Text(text), after + length + 2)))
        }
        b'*' => {
            let Ok(length) = usize::try_from(length()?) else { return Ok(Some((Value::Nil, after))) };
            if depth == 0 || length > MAX_ANSWER {
                return Err(malformed("lists without end"));
            }
            let (mut items, mut at) = (Vec::new(), after);
            for _ in 0..length {
                let Some((item, used)) = parse(&bytes[at..], depth - 1)? else { return Ok(None) };
                items.push(item);
                at += used;
            }
            Ok(Some((Value::List(items), at)))
        }
        _ => Err(malformed("an answer of no known kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Value {
        let (value, used) = parse(text.as_bytes(), MAX_DEPTH).unwrap().unwrap();
        assert_eq!(used, text.len());
        // Every part of it is not all of it.
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end], MAX_DEPTH).unwrap(), None, "{end}");
        }
        value
    }

    #[test]
    fn values() {
        assert_eq!(whole("+OK\r\n").text(), Some("OK"));
        assert_eq!(whole("-NOAUTH x\r\n"), Value::Error("NOAUTH x".into()));
        assert_eq!(whole("$-1\r\n"), Value::Nil);
        assert_eq!(whole("*-1\r\n"), Value::Nil);
        assert_eq!(whole("$4\r\na\r\nb\r\n").text(), Some("a\r\nb"));
        let record = whole("*2\r\n*4\r\n$2\r\nip\r\n$8\r\n10.0.0.1\r\n$4\r\nport\r\n$4\r\n6379\r\n*0\r\n");
        assert_eq!(record.list()[0].field("port"), Some("6379"));
        assert_eq!((record.list()[0].field("flags"), record.list().len()), (None, 2));
    }

    #[test]
    fn what_is_not_redis_is_an_error() {
        for bad in [
            "HTTP/1.1 200 OK\r\n",
            "$99999999\r\n",
            "*9999999999\r\n",
            "$x\r\n",
            "\r\n",
            "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n+a\r\n",
        ] {
            assert!(parse(bad.as_bytes(), MAX_DEPTH).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(text in "[*$+:\\-0-9\r\na]{0,60}") {
            let _ = parse(text.as_bytes(), MAX_DEPTH);
        }
    }
}
