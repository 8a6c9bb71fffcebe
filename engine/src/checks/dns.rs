//! One question to a name server, over UDP (RFC 1035 section 4).

use awe4lb_model::{DnsCheck, DnsRecord};

use super::{Conversation, Event, MAX_RECEIVED_BYTES, Refusal, Step, Verdict};

const HEADER_BYTES: usize = 12;
const MAX_NAME_BYTES: usize = 255;
const MAX_LABEL_BYTES: usize = 63;
const INTERNET: [u8; 2] = [0, 1];

/// Of the third byte of a header: a response, what is asked, and that the server may ask others.
const RESPONSE: u8 = 0x80;
const OPERATION: u8 = 0x78;
const RECURSE: u8 = 1;

pub(super) struct Dns {
    query: Vec<u8>,
    rcode: u8,
    received: usize,
    ended: Option<Verdict>,
}

impl Dns {
    /// The query's id is the random number's.
    pub(super) fn new(check: &DnsCheck, rng: u64) -> Result<Self, Refusal> {
        let [.., high, low] = rng.to_be_bytes();
        let mut query = vec![high, low, RECURSE, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let name = wire_name(&check.name).ok_or_else(|| "the name cannot be asked for".to_owned())?;
        query.extend_from_slice(&name);
        query.extend_from_slice(&code(check.record).to_be_bytes());
        query.extend_from_slice(&INTERNET);
        Ok(Self { query, rcode: check.rcode, received: 0, ended: None })
    }

    /// `None` when this answers another question: late, or made up by somebody who does not see ours.
    fn judge(&self, datagram: &[u8]) -> Option<Verdict> {
        let (header, sections) = datagram.split_first_chunk::<HEADER_BYTES>()?;
        if header[..2] != self.query[..2] || header[2] & (RESPONSE | OPERATION) != RESPONSE {
            return None;
        }
        let rcode = header[3] & 0xf;
        // A server that refuses may leave the question out.
        let questions = u16::from_be_bytes([header[4], header[5]]);
        let asked = &self.query[HEADER_BYTES..];
        let is_ours = match questions {
            0 => rcode != 0,
            1 => sections.get(..asked.len()).is_some_and(|question| question.eq_ignore_ascii_case(asked)),
            _ => false,
        };
        let reason = format!("DNS rcode {rcode}");
        is_ours.then_some(Verdict { is_healthy: rcode == self.rcode, reason, advice: None })
    }
}

impl Conversation for Dns {
    fn next(&mut self, event: Event<'_>) -> Step {
        if self.ended.is_none() {
            match event {
                Event::Connected => return Step::Send(self.query.clone()),
                Event::Received(datagram) => {
                    self.ended = self.judge(datagram);
                    // Empty ones count, too.
                    self.received = self.received.saturating_add(datagram.len().max(HEADER_BYTES));
                    if self.received >= MAX_RECEIVED_BYTES && self.ended.is_none() {
                        self.ended = Some(Verdict::unhealthy("the backend says too much"));
                    }
                }
                Event::Closed => self.ended = Some(Verdict::unhealthy("refused")),
            }
        }
        self.ended.clone().map_or(Step::Receive, Step::Done)
    }
}

/// Labels with their lengths before them. One dot at the end is the root's, and may be left out.
fn wire_name(name: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::new();
    let labels = name.strip_suffix('.').unwrap_or(name);
    if !labels.is_empty() {
        for label in labels.split('.') {
            let is_label = (1..=MAX_LABEL_BYTES).contains(&label.len()) && label.is_ascii();
            wire.push(u8::try_from(label.len()).ok().filter(|_| is_label)?);
            wire.extend_from_slice(label.as_bytes());
        }
    }
    wire.push(0);
    (wire.len() <= MAX_NAME_BYTES).then_some(wire)
}

fn code(record: DnsRecord) -> u16 {
    match record {
        DnsRecord::A => 1,
        DnsRecord::Ns => 2,
        DnsRecord::Cname => 5,
        DnsRecord::Soa => 6,
        DnsRecord::Ptr => 12,
        DnsRecord::Mx => 15,
        DnsRecord::Txt => 16,
        DnsRecord::Aaaa => 28,
        DnsRecord::Srv => 33,
    }
}
