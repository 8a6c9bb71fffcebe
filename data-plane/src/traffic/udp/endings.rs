//! What is over: flows whose time is up, whose backend refuses or leaves, or that are to end for another reason.

use std::{os::fd::AsFd as _, task::Context};

use awe4lb_engine::flows::FlowId;
use awe4lb_model::EndReason;

use super::{
    super::timers::TICK,
    flow::Flow,
    server::{SWEEP, Server},
};

impl Server<'_> {
    pub(super) fn end(&mut self, id: FlowId, reason: EndReason) {
        if let Some(ended) = self.table.end(id, reason) {
            self.forget(ended.value, reason);
        }
    }

    /// Of a flow that is out of the table.
    pub(super) fn forget(&mut self, flow: Flow, reason: EndReason) {
        self.own_sockets -= u32::from(flow.upstream.is_own());
        // One that had all its answers misses none.
        if reason != EndReason::FlowComplete {
            flow.upstream.overflow().ask(flow.upstream.fd(), &self.listener.counters);
        }
        flow.end(reason);
    }

    /// The backend's host says that nobody listens: it counts against the backend, and the client gets another one with
    /// its next datagram.
    pub(super) fn refused(&mut self, id: FlowId) {
        if let Some(flow) = self.table.value(id) {
            flow.pool.state.dial_failed(flow.permit.member());
            let reason = if flow.answered { EndReason::BackendReset } else { EndReason::DialFailed };
            self.end(id, reason);
        }
    }

    /// Ends flows whose time is up, now and then while there are any.
    pub(super) fn sweep(&mut self, now: u64, cx: &Context<'_>) {
        while let Some(timer) = &self.sweep {
            if timer.poll_fired(cx).is_pending() {
                return;
            }
            self.sweep = None;
            // A datagram may have come up to a tick after the clock that its flow was stamped with.
            let until = now.saturating_sub(u64::try_from(TICK.as_millis()).unwrap_or(0));
            while let Some(ended) = self.table.expired(until) {
                self.forget(ended.value, ended.reason);
            }
            self.overflow.ask(self.socket.as_fd(), &self.listener.counters);
            self.look_around();
            self.forget_pending(until);
            self.arm();
        }
        self.arm();
        if let Some(timer) = &self.sweep {
            // Armed just now: it cannot have fired, and it must know whom to wake.
            let _ = timer.poll_fired(cx);
        }
    }

    fn arm(&mut self) {
        if !self.table.is_empty() || self.has_pending() {
            let shortest = self.settings.idle_timeout.min(self.settings.unanswered_timeout);
            self.sweep = Some(self.worker.timers().arm((shortest / 4).min(SWEEP)));
        }
    }

    /// Ends flows that somebody wants to end, or whose client is no longer let in.
    fn look_around(&mut self) {
        let state = self.worker.access_state();
        if state == self.seen {
            return;
        }
        self.seen = state;
        for id in self.table.ids() {
            let Some(client) = self.table.key(id).map(|key| key.client.ip()) else { continue };
            let Some(flow) = self.table.value(id) else { continue };
            let asked = flow.tally.entry.as_ref().and_then(|entry| entry.closing.get());
            let denied = || {
                let number = self.listener.run.number;
                self.worker.denies_existing(number, client).then_some(EndReason::AccessRevoked)
            };
            if let Some(reason) = asked.or_else(denied) {
                self.end(id, reason);
            }
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let reason =
            if self.worker.is_accepting() { EndReason::ListenerRemoved } else { EndReason::Shutdown };
        for id in self.table.ids() {
            self.end(id, reason);
        }
        self.overflow.ask(self.socket.as_fd(), &self.listener.counters);
    }
}
