//! Runs a worker's tasks and waits for its sockets in one place: between the kernel and them stands one epoll set, not
//! tokio's with ours inside. That is a system call less for each wake.

use std::{
    future::Future,
    io,
    os::fd::{AsFd, OwnedFd},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::task::LocalSet;

use super::reactor::Reactor;

/// Runs `main`, and whatever it spawns locally, until `main` ends.
pub(super) fn run<T>(reactor: &Rc<Reactor>, main: impl Future<Output = T>) -> io::Result<T> {
    run_with(&Alarm::new()?, reactor, main)
}

fn run_with<T>(alarm: &Arc<Alarm>, reactor: &Rc<Reactor>, main: impl Future<Output = T>) -> io::Result<T> {
    reactor.register_input(alarm.event.as_fd())?;
    let waker = Waker::from(alarm.clone());
    let mut cx = Context::from_waker(&waker);
    let tasks = LocalSet::new();
    let mut main = pin!(tasks.run_until(main));
    loop {
        alarm.woken.store(false, SeqCst);
        // At most 61 tasks; if more are ready, the waker has been called when this returns.
        if let Poll::Ready(ended) = main.as_mut().poll(&mut cx) {
            return Ok(ended);
        }
        alarm.asleep.store(true, SeqCst);
        let has_more = alarm.woken.load(SeqCst);
        let waited = reactor.wait(!has_more);
        // Before anybody is woken by these events: from this thread that takes no event.
        alarm.asleep.store(false, SeqCst);
        waited?;
        reactor.dispatch();
    }
}

/// Wakes the worker, from its own thread for nothing, from another by an event.
struct Alarm {
    event: OwnedFd,
    woken: AtomicBool,
    /// Set before the last look at `woken`: whoever sets `woken` later sees it, and writes.
    asleep: AtomicBool,
}

impl Alarm {
    fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            woken: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
        }))
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, SeqCst);
        if self.asleep.load(SeqCst) {
            // Registered edge-triggered: each write is an event, and nobody has to read it.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    #[test]
    fn another_thread_wakes_a_sleeping_worker() {
        let reactor = Reactor::new().unwrap();
        let (to_worker, mut from_test) = tokio::sync::mpsc::channel(1);
        let (to_test, mut from_worker) = tokio::sync::mpsc::channel(1);
        let other = thread::spawn(move || {
            for n in 0..10_000 {
                to_worker.blocking_send(n).unwrap();
                assert_eq!(from_worker.blocking_recv(), Some(n));
            }
        });
        run(&reactor, async move {
            while let Some(n) = from_test.recv().await {
                let to_test = to_test.clone();
                tokio::task::spawn_local(async move { to_test.send(n).await.unwrap() });
            }
        })
        .unwrap();
        other.join().unwrap();
    }

    /// Each event of a socket once cost a write to our own event, and another wait for it.
    #[test]
    fn sockets_wake_their_tasks_without_an_event_of_ours() {
        let (reactor, alarm) = (Reactor::new().unwrap(), Alarm::new().unwrap());
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let watched = reactor.clone();
        run_with(&alarm, &reactor, async move {
            let token = watched.register_input(far.as_fd()).unwrap();
            for _ in 0..10 {
                io::Write::write_all(&mut near, b"x").unwrap();
                std::future::poll_fn(|cx| watched.poll(token, cx, |ready| ready.readable)).await;
                watched.clear_readable(token);
            }
        })
        .unwrap();
        let mut written = [0; 8];
        assert_eq!(rustix::io::read(&alarm.event, &mut written), Err(rustix::io::Errno::AGAIN));
    }

    #[test]
    fn a_socket_and_many_tasks_get_their_turn() {
        let reactor = Reactor::new().unwrap();
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let watched = reactor.clone();
        let woken = run(&reactor, async move {
            let token = watched.register_input(far.as_fd()).unwrap();
            for _ in 0..500 {
                tokio::task::spawn_local(async {
                    for _ in 0..100 {
                        tokio::task::yield_now().await;
                    }
                });
            }
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                io::Write::write_all(&mut near, b"x").unwrap();
                near
            });
            std::future::poll_fn(|cx| watched.poll(token, cx, |ready| ready.readable)).await;
            true
        });
        assert!(woken.unwrap());
    }
}
