//! What a client has to pass before anything is made for its connection, and what watches over it then: access rules and
//! limits. A listener that has neither has no gate.

use std::{cell::Cell, net::IpAddr, sync::Arc, task::Context};

use awe4lb_engine::{
    access::{AccessTable, Judgement},
    route::Tables,
};
use awe4lb_model::{EndReason, Listener};

use super::{
    counters::Counters,
    journal::Entry,
    limits::{Limiter, Permit, Policer, Shaper},
    local::LocalListener,
    worker::Worker,
};

/// Access rules and limits of a listener.
pub(super) struct Gate {
    pub(super) access: Option<AccessTable>,
    limiter: Option<Arc<Limiter>>,
}

/// A client that was let in.
pub(super) struct Admitted {
    _permit: Option<Permit>,
    shaper: Option<Shaper>,
}

/// A client's flow that was let in.
pub(super) struct AdmittedFlow {
    _permit: Option<Permit>,
    policer: Option<Policer>,
}

impl AdmittedFlow {
    /// Whether so much may pass now, in either direction.
    pub(super) fn allows(&self, datagrams: u32, bytes: u32, now_ms: u64) -> bool {
        self.policer.as_ref().is_none_or(|policer| policer.allows(datagrams.into(), bytes.into(), now_ms))
    }
}

impl Gate {
    /// `None`: there is nothing to ask. Counts go on from the gate before.
    pub(super) fn compile(listener: &Listener, tables: &Tables, before: Option<&Self>) -> Option<Box<Self>> {
        let access = listener.access.as_ref().map(|access| AccessTable::compile(access, tables));
        let limiter = Limiter::of(&listener.limits, before.and_then(|gate| gate.limiter.as_deref()));
        (access.is_some() || limiter.is_some()).then(|| Box::new(Self { access, limiter }))
    }

    /// At accept, before the connection is looked at. `client`: unknown yet when a PROXY header is to say it.
    pub(super) fn at_accept(
        &self,
        client: Option<IpAddr>,
        now_ms: u64,
        counters: &Counters,
    ) -> Result<(), EndReason> {
        if let Some(client) = client {
            self.judge(client, counters)?;
        }
        match &self.limiter {
            Some(limiter) => limiter.at_accept(now_ms),
            None => Ok(()),
        }
    }

    fn judge(&self, client: IpAddr, counters: &Counters) -> Result<(), EndReason> {
        let Some(access) = &self.access else { return Ok(()) };
        match access.judge(client) {
            Judgement::Allowed => Ok(()),
            Judgement::AllowedButForShadow => {
                counters.end(EndReason::AccessShadow);
                Ok(())
            }
            Judgement::Denied { .. } => Err(EndReason::AccessDenied),
        }
    }

    /// Once the client is known. `is_new`: a header said who it is, so that nobody has judged it.
    pub(super) fn enter(
        &self,
        client: IpAddr,
        is_new: bool,
        now_ms: u64,
        counters: &Counters,
    ) -> Result<Option<Box<Admitted>>, EndReason> {
        if is_new {
            self.judge(client, counters)?;
        }
        let Some(limiter) = &self.limiter else { return Ok(None) };
        let permit = limiter.admit(client, now_ms)?;
        let shaper = limiter.shaper(permit.as_ref());
        let has_any = permit.is_some() || shaper.is_some();
        Ok(has_any.then(|| Box::new(Admitted { _permit: permit, shaper })))
    }
}

impl Gate {
    /// As [`Self::enter`], for a flow of datagrams.
    pub(super) fn enter_flow(
        &self,
        client: IpAddr,
        now_ms: u64,
    ) -> Result<Option<Box<AdmittedFlow>>, EndReason> {
        let Some(limiter) = &self.limiter else { return Ok(None) };
        let permit = limiter.admit(client, now_ms)?;
        let policer = limiter.policer(permit.as_ref());
        let has_any = permit.is_some() || policer.is_some();
        Ok(has_any.then(|| Box::new(AdmittedFlow { _permit: permit, policer })))
    }
}

/// Watches over a connection while its bytes flow.
pub(super) struct Guard<'a> {
    worker: &'a Worker,
    listener: &'a LocalListener,
    entry: &'a Entry,
    admitted: Option<&'a Admitted>,
    /// The state of access rules that the client was last judged by.
    seen: Cell<u32>,
}

/// What may be moved now.
pub(super) enum Allowance {
    /// Any number of bytes.
    Unlimited,
    /// So many, which were taken; 0: wait, the task is woken.
    Bytes(usize),
}

impl Allowance {
    /// The most that one direction may read.
    pub(super) fn most(&self) -> usize {
        match self {
            Self::Unlimited => usize::MAX,
            Self::Bytes(bytes) => *bytes,
        }
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::Bytes(0))
    }
}

impl<'a> Guard<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        listener: &'a LocalListener,
        entry: &'a Entry,
        admitted: Option<&'a Admitted>,
        seen: u32,
    ) -> Self {
        Self { worker, listener, entry, admitted, seen: Cell::new(seen) }
    }

    /// Whether rules came into force that end this connection.
    pub(super) fn revoked(&self) -> Option<EndReason> {
        let now = self.worker.access_state();
        if self.seen.get() == now {
            return None;
        }
        self.seen.set(now);
        if let Some(reason) = self.entry.closing.get() {
            return Some(reason);
        }
        self.worker
            .denies_existing(self.listener.run.number, self.entry.client.get().ip())
            .then_some(EndReason::AccessRevoked)
    }

    /// Takes leave to move bytes.
    pub(super) fn allow(&self, cx: &Context<'_>) -> Allowance {
        match self.admitted.and_then(|admitted| admitted.shaper.as_ref()) {
            None => Allowance::Unlimited,
            Some(shaper) => Allowance::Bytes(shaper.take(self.worker.timers(), cx)),
        }
    }

    /// So many were moved with it.
    pub(super) fn settle(&self, allowance: &Allowance, moved: u64) {
        if let (Allowance::Bytes(taken), Some(shaper)) =
            (allowance, self.admitted.and_then(|admitted| admitted.shaper.as_ref()))
        {
            shaper.settle(*taken as u64, moved);
        }
    }
}
