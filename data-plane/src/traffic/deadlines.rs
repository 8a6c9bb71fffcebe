//! When a connection has been silent, or alive, for too long.

use std::{rc::Rc, task::Context, time::Duration};

use awe4lb_model::{EndReason, TcpTimeouts};

use super::timers::{Timer, Timers};

/// The deadlines of one connection: one timer for all of them, looked at only when it fires.
pub(super) struct Deadlines {
    timers: Rc<Timers>,
    timer: Option<Timer>,
    idle: Option<u64>,
    half_close: u64,
    ends_at: u64,
    last_activity: u64,
    half_closed: bool,
}

impl Deadlines {
    pub(super) fn new(timers: &Rc<Timers>, timeouts: &TcpTimeouts) -> Self {
        let now = timers.now();
        let mut deadlines = Self {
            timers: timers.clone(),
            timer: None,
            idle: timeouts.idle.map(millis),
            half_close: millis(timeouts.half_close),
            ends_at: timeouts.lifetime.map_or(u64::MAX, |lifetime| now.saturating_add(millis(lifetime))),
            last_activity: now,
            half_closed: false,
        };
        deadlines.arm();
        deadlines
    }

    /// Whether a time is up. `half_closed`: one direction has ended, so that silence is allowed for less long.
    pub(super) fn check(&mut self, progress: bool, half_closed: bool, cx: &Context<'_>) -> Option<EndReason> {
        if progress {
            self.last_activity = self.timers.now();
        }
        if half_closed && !self.half_closed {
            self.half_closed = true;
            self.last_activity = self.timers.now();
            self.arm();
        }
        while self.timer.as_ref().is_some_and(|timer| timer.poll_fired(cx).is_ready()) {
            let now = self.timers.now();
            if now >= self.ends_at {
                return Some(EndReason::Lifetime);
            }
            let silent = now.saturating_sub(self.last_activity);
            if self.half_closed && silent >= self.half_close {
                return Some(EndReason::HalfCloseTimeout);
            }
            if self.idle.is_some_and(|idle| silent >= idle) {
                return Some(EndReason::IdleTimeout);
            }
            self.arm();
        }
        None
    }

    fn arm(&mut self) {
        let now = self.timers.now();
        let idle = self.idle.map_or(u64::MAX, |idle| self.last_activity.saturating_add(idle));
        let half =
            if self.half_closed { self.last_activity.saturating_add(self.half_close) } else { u64::MAX };
        let next = idle.min(half).min(self.ends_at);
        self.timer =
            (next != u64::MAX).then(|| self.timers.arm(Duration::from_millis(next.saturating_sub(now))));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
