//! What only some flows have: limits, a header for the backend, a bound on answers, a group that they belong to, copies.

use awe4lb_engine::affinity::Membership;
use awe4lb_model::EndReason;

use super::{super::gate::AdmittedFlow, mirror::Mirror};

/// Beside a flow; most have none.
#[derive(Default)]
pub(super) struct Extras {
    pub(super) admitted: Option<Box<AdmittedFlow>>,
    pub(super) introduction: Option<Introduction>,
    pub(super) replies: Option<Replies>,
    pub(super) membership: Option<Membership>,
    pub(super) mirror: Option<Box<Mirror>>,
}

/// Tells the backend who the client is.
pub(super) struct Introduction {
    pub(super) header: Vec<u8>,
    /// With every datagram, or only with the first.
    pub(super) every: bool,
    pub(super) was_sent: bool,
}

impl Introduction {
    /// What goes before the next datagram.
    pub(super) fn head(&mut self) -> &[u8] {
        if self.was_sent && !self.every {
            return &[];
        }
        self.was_sent = true;
        &self.header
    }
}

/// How much a client may get that has not shown yet that its address is its own (an amplification guard, as QUIC has one in
/// RFC 9000 section 8.1).
pub(super) struct Replies {
    ratio: u32,
    came: u64,
    went: u64,
    is_verified: bool,
}

impl Replies {
    pub(super) fn new(ratio: u32) -> Self {
        Self { ratio, came: 0, went: 0, is_verified: false }
    }

    /// The client sent; `answered`: after it had an answer, which only reaches the one whose address it is.
    pub(super) fn came(&mut self, bytes: u32, answered: bool) {
        self.came += u64::from(bytes);
        self.is_verified |= answered;
    }

    fn allows(&mut self, bytes: u32) -> bool {
        let went = self.went + u64::from(bytes);
        if !self.is_verified && went > self.came * u64::from(self.ratio) {
            return false;
        }
        self.went = went;
        true
    }
}

impl Extras {
    /// `None`: nothing is special about the flow.
    pub(super) fn boxed(self) -> Option<Box<Self>> {
        let is_any = self.admitted.is_some()
            || self.introduction.is_some()
            || self.replies.is_some()
            || self.membership.is_some()
            || self.mirror.is_some();
        is_any.then(|| Box::new(self))
    }

    /// Whether datagrams of the client may pass.
    pub(super) fn takes(
        &mut self,
        datagrams: u32,
        bytes: u32,
        answered: bool,
        now: u64,
    ) -> Result<(), EndReason> {
        if let Some(admitted) = &self.admitted
            && !admitted.allows(datagrams, bytes, now)
        {
            return Err(EndReason::DatagramRate);
        }
        if let Some(replies) = &mut self.replies {
            replies.came(bytes, answered);
        }
        Ok(())
    }

    /// What goes before the next datagram to the backend.
    pub(super) fn head(&mut self) -> &[u8] {
        self.introduction.as_mut().map(Introduction::head).unwrap_or_default()
    }

    /// A datagram that the backend was sent.
    pub(super) fn was_sent(&mut self, payload: &[u8]) {
        if let Some(mirror) = &mut self.mirror {
            mirror.copy(payload);
        }
    }

    /// Whether datagrams of the backend may pass.
    pub(super) fn gives(&mut self, datagrams: u32, bytes: u32, now: u64) -> Result<(), EndReason> {
        if let Some(admitted) = &self.admitted
            && !admitted.allows(datagrams, bytes, now)
        {
            return Err(EndReason::DatagramRate);
        }
        let is_allowed = self.replies.as_mut().is_none_or(|replies| replies.allows(bytes));
        if is_allowed { Ok(()) } else { Err(EndReason::DatagramReplyRatio) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_proven_its_address_gets_no_more_than_the_ratio() {
        let mut replies = Replies::new(3);
        replies.came(100, false);
        assert!(replies.allows(200) && replies.allows(100));
        assert!(!replies.allows(1));
        replies.came(10, false);
        assert!(replies.allows(30) && !replies.allows(1));
        replies.came(1, true);
        assert!(replies.allows(1_000_000), "it answered to an answer");
    }
}
