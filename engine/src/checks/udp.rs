//! One datagram, and one that answers it.

use awe4lb_model::UdpCheck;

use super::{Conversation, Event, Refusal, Secrets, Step, Verdict, matcher::Matcher};

pub(super) struct Udp {
    send: Vec<u8>,
    expect: Option<Matcher>,
    ended: Option<Verdict>,
}

impl Udp {
    pub(super) fn new(check: &UdpCheck, secrets: Secrets<'_>) -> Result<Self, Refusal> {
        let send = secrets.payload(&check.send)?;
        let expect = check.expect.as_ref().map(Matcher::new).transpose()?;
        Ok(Self { send, expect, ended: None })
    }

    fn judge(&self, datagram: &[u8]) -> Verdict {
        match &self.expect {
            // An empty datagram holds nothing, not even an empty text: it is still an answer.
            Some(expected) if !expected.is_in(datagram) => Verdict::unhealthy("another answer than expected"),
            _ => Verdict::healthy("answered"),
        }
    }
}

impl Conversation for Udp {
    fn next(&mut self, event: Event<'_>) -> Step {
        if self.ended.is_none() {
            match event {
                Event::Connected => return Step::Send(self.send.clone()),
                Event::Received(datagram) => self.ended = Some(self.judge(datagram)),
                Event::Closed => self.ended = Some(Verdict::unhealthy("refused")),
            }
        }
        self.ended.clone().map_or(Step::Receive, Step::Done)
    }
}
