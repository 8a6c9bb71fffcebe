//! One flow: what it holds, how it ends.

use std::rc::Rc;

use awe4lb_engine::flows::{FlowId, FlowPermit};
use awe4lb_model::EndReason;

use super::{
    super::{
        connection::Ending,
        counters::Open,
        local::{LocalPool, Tally},
        pool::Permit,
        worker::OpenHere,
    },
    connection_ids::Learnt,
    extras::Extras,
    upstream::Upstream,
};

/// The longest datagram that is tried in a run: most networks carry no longer ones whole.
pub(super) const LONGEST_IN_RUN: u16 = 60_000;

/// A client's association with a backend.
pub(super) struct Flow {
    pub(super) upstream: Upstream,
    pub(super) pool: Rc<LocalPool>,
    pub(super) permit: Permit,
    pub(super) tally: Tally,
    pub(super) extras: Option<Box<Extras>>,
    /// Of QUIC: what its backend wants to be called.
    pub(super) learnt: Option<Box<Learnt>>,
    /// Milliseconds of the node's clock.
    pub(super) begun: u64,
    pub(super) answered: bool,
    /// The round in which it was last sent to, and its place among the flows of that round.
    pub(super) round: u32,
    pub(super) place_in_round: u32,
    /// Messages that its backend had at once, the last time.
    pub(super) last_burst: u32,
    /// The longest datagram that may go out in a run to the backend, and to the client.
    pub(super) longest_in: u16,
    pub(super) longest_out: u16,
    pub(super) ending: Ending,
    pub(super) _open: [Open; 4],
    pub(super) _open_here: OpenHere,
    pub(super) _place: FlowPermit,
}

impl Flow {
    /// The reason counts when it is dropped, which is at once.
    pub(super) fn end(self, reason: EndReason) {
        if let Some(mirror) = self.extras.as_ref().and_then(|extras| extras.mirror.as_ref()) {
            mirror.because(reason);
        }
        self.ending.because(reason);
    }

    /// Whether its backend is one that it has to leave.
    pub(super) fn is_to_leave(&self, now: u64) -> bool {
        self.permit.member().is_left_by_flow(self.begun, now)
    }

    /// So many datagrams of it were dropped.
    pub(super) fn dropped(&self, datagrams: u32, why: EndReason) {
        self.tally.listener.dropped(datagrams.into(), why);
        self.tally.backend.dropped(datagrams.into(), why);
    }
}

/// As listed when its backend has sent something.
pub(super) fn tag_of(id: FlowId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.index)
}

pub(super) fn id_of(tag: u64) -> FlowId {
    FlowId { index: tag as u32, generation: (tag >> 32) as u32 }
}
