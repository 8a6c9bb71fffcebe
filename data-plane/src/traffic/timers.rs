//! Deadlines of a worker's connections, at the grain of a tick: a hashed wheel (Varghese and Lauck, 1987).
//!
//! A connection arms one timer and checks its own clock-free state when it fires; activity re-arms nothing. The worker's
//! clock is the tick's: nobody reads the time for a byte.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::AsFd as _,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use slab::Slab;

use super::reactor::Reactor;

/// How exact deadlines are.
pub(super) const TICK: Duration = Duration::from_millis(100);
const BUCKETS: usize = 1024;

/// A worker's timers and clock.
pub(super) struct Timers {
    start: Instant,
    now: Cell<u64>,
    next_bucket: Cell<u64>,
    entries: RefCell<Slab<Entry>>,
    buckets: RefCell<Vec<Vec<(usize, u32)>>>,
    generation: Cell<u32>,
}

struct Entry {
    generation: u32,
    deadline: u64,
    waker: Option<Waker>,
}

/// One armed deadline; disarmed when dropped.
pub(super) struct Timer {
    place: usize,
    timers: Rc<Timers>,
}

impl Timers {
    pub(super) fn new(start: Instant) -> Rc<Self> {
        Rc::new(Self {
            start,
            now: Cell::new(millis(start.elapsed())),
            next_bucket: Cell::new(tick_of(millis(start.elapsed()))),
            entries: RefCell::new(Slab::new()),
            buckets: RefCell::new(vec![Vec::new(); BUCKETS]),
            generation: Cell::new(0),
        })
    }

    /// Milliseconds since the node started, as of the last tick.
    pub(super) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Fires at the first tick that is at least `after` from now.
    pub(super) fn arm(self: &Rc<Self>, after: Duration) -> Timer {
        let deadline = self.now() + millis(after) + millis(TICK);
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let place = self.entries.borrow_mut().insert(Entry { generation, deadline, waker: None });
        self.file(place, generation, deadline);
        Timer { place, timers: self.clone() }
    }

    /// Waits.
    pub(super) async fn sleep(self: &Rc<Self>, after: Duration) {
        let timer = self.arm(after);
        std::future::poll_fn(|cx| timer.poll_fired(cx)).await;
    }

    /// Moves the clock on and wakes whose time has come, at each tick of a timer that is one more of the worker's
    /// descriptors: while the worker is busy, nobody asks what time it is.
    pub(super) async fn run(
        self: Rc<Self>,
        reactor: Rc<Reactor>,
        mut each_tick: impl FnMut(u64),
    ) -> io::Result<()> {
        let ticks =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let tick = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
        let every_tick = Itimerspec { it_interval: tick, it_value: tick };
        timerfd_settime(&ticks, TimerfdTimerFlags::empty(), &every_tick)?;
        let token = reactor.register_input(ticks.as_fd())?;
        loop {
            std::future::poll_fn(|cx| reactor.poll(token, cx, |ready| ready.readable)).await;
            reactor.clear_readable(token);
            // Only reading starts the timer's next period.
            let mut expiries = [0; 8];
            let _ = rustix::io::read(&ticks, &mut expiries);
            self.now.set(millis(self.start.elapsed()));
            self.fire();
            each_tick(self.now());
        }
    }

    fn file(&self, place: usize, generation: u32, deadline: u64) {
        let bucket = (tick_of(deadline) as usize) % BUCKETS;
        if let Some(bucket) = self.buckets.borrow_mut().get_mut(bucket) {
            bucket.push((place, generation));
        }
    }

    fn fire(&self) {
        let until = tick_of(self.now());
        // After a long pause every bucket is looked at once, not more.
        let from = self.next_bucket.get().max(until.saturating_sub(BUCKETS as u64));
        for tick in from..=until {
            let bucket = std::mem::take(&mut self.buckets.borrow_mut()[tick as usize % BUCKETS]);
            for (place, generation) in bucket {
                let mut entries = self.entries.borrow_mut();
                let Some(entry) = entries.get_mut(place).filter(|entry| entry.generation == generation)
                else {
                    continue;
                };
                if entry.deadline > self.now() {
                    let deadline = entry.deadline;
                    drop(entries);
                    self.file(place, generation, deadline);
                } else if let Some(waker) = entry.waker.take() {
                    drop(entries);
                    waker.wake();
                }
            }
        }
        // The bucket of this tick is looked at again: what is armed for it comes later.
        self.next_bucket.set(until);
    }
}

impl Timer {
    /// Ready when its time has come.
    pub(super) fn poll_fired(&self, cx: &Context<'_>) -> Poll<()> {
        let mut entries = self.timers.entries.borrow_mut();
        let Some(entry) = entries.get_mut(self.place) else { return Poll::Ready(()) };
        if entry.deadline <= self.timers.now() {
            return Poll::Ready(());
        }
        match &mut entry.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.timers.entries.borrow_mut().try_remove(self.place);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

fn tick_of(millis_since_start: u64) -> u64 {
    millis_since_start / millis(TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_once_their_time_has_come_and_not_before() {
        let timers = Timers::new(Instant::now());
        let base = timers.now();
        let armed: Vec<Timer> =
            [50, 150, 1_000, 200_000].map(|ms| timers.arm(Duration::from_millis(ms))).into();
        let cx = Context::from_waker(Waker::noop());
        let fired = |at: u64| {
            timers.now.set(base + at);
            timers.fire();
            armed.iter().map(|timer| timer.poll_fired(&cx).is_ready()).collect::<Vec<_>>()
        };
        assert_eq!(fired(100), [false; 4]);
        assert_eq!(fired(200), [true, false, false, false]);
        assert_eq!(fired(300), [true, true, false, false]);
        assert_eq!(fired(1_200), [true, true, true, false]);
        assert_eq!(fired(199_900), [true, true, true, false]);
        assert_eq!(fired(200_200), [true; 4]);
    }

    #[test]
    fn a_long_pause_loses_no_timer() {
        let timers = Timers::new(Instant::now());
        let woken = std::sync::Arc::new(Flag(std::sync::atomic::AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        let timer = timers.arm(Duration::from_secs(5));
        assert!(timer.poll_fired(&Context::from_waker(&waker)).is_pending());
        timers.now.set(timers.now() + 10_000_000);
        timers.fire();
        assert!(woken.0.load(std::sync::atomic::Ordering::Relaxed));
    }

    struct Flag(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
