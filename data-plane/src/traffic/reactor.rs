//! Where readiness of the data path comes from: one edge-triggered epoll set a worker, which is what the worker waits on.
//!
//! A socket is registered once for everything and never deregistered (closing it does that), and a connection's end is not
//! asked for with SO_ERROR. That is worth several syscalls a connection; this file is the only one that knows.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use rustix::event::epoll::{self, EventData, EventFlags};
use slab::Slab;

/// Events taken at a time.
const BATCH: usize = 256;

/// One worker's set of sockets.
pub(super) struct Reactor {
    epoll: OwnedFd,
    events: RefCell<Vec<epoll::Event>>,
    slots: RefCell<Slab<Slot>>,
    generation: Cell<u32>,
    /// Events of connections, and of those that are to be accepted.
    connection_events: Cell<u64>,
}

struct Slot {
    /// Tells the events of this socket from those of an earlier one at the same place.
    generation: u32,
    ready: Ready,
    waker: Option<Waker>,
    /// Whether its events are of a connection, or of one that is to be accepted.
    is_of_connection: bool,
    /// Instead of a waker: where its events are listed, and as what.
    listed: Option<(Rc<ReadyList>, u64)>,
}

/// Sockets with events, for a task that reads many of them (UDP flows): one waker for all.
#[derive(Default)]
pub(super) struct ReadyList {
    tags: RefCell<VecDeque<u64>>,
    waker: RefCell<Option<Waker>>,
}

impl ReadyList {
    pub(super) fn pop(&self) -> Option<u64> {
        self.tags.borrow_mut().pop_front()
    }

    pub(super) fn push(&self, tag: u64) {
        self.tags.borrow_mut().push_back(tag);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tags.borrow().is_empty()
    }

    /// Who is woken by the next event of any of them.
    pub(super) fn wake_with(&self, cx: &Context<'_>) {
        match &mut *self.waker.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn take_waker(&self) -> Option<Waker> {
        self.waker.borrow_mut().take()
    }
}

/// What is known of a socket. Bits are set by events and cleared by the one who meets their end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ready {
    /// Reading may give something.
    pub(super) readable: bool,
    /// Writing may take something.
    pub(super) writable: bool,
    /// The peer has sent its last byte: what a short read leaves is the end.
    pub(super) read_closed: bool,
    /// An error waits in the socket.
    pub(super) error: bool,
}

/// A registered socket's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token(usize);

impl Reactor {
    pub(super) fn new() -> io::Result<Rc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Rc::new(Self {
            epoll,
            events: RefCell::new(Vec::with_capacity(BATCH)),
            slots: RefCell::new(Slab::new()),
            generation: Cell::new(0),
            connection_events: Cell::new(0),
        }))
    }

    /// Registers a socket. `ready` is what may be tried before the first event: a fresh connection can be written to.
    pub(super) fn register(&self, fd: BorrowedFd<'_>, ready: Ready) -> io::Result<Token> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        self.add(fd, ready, None, flags)
    }

    /// Registers a socket for input alone: UDP sends never wait, and each would be an event.
    pub(super) fn register_input(&self, fd: BorrowedFd<'_>) -> io::Result<Token> {
        self.add(fd, Ready::default(), None, EventFlags::IN | EventFlags::ET)
    }

    /// Registers a listening socket: as long as somebody waits in its queue, each [`Self::wait`] says so. One connection
    /// is accepted for each, and none of the calls finds the queue empty.
    pub(super) fn register_listener(&self, fd: BorrowedFd<'_>) -> io::Result<Token> {
        self.add(fd, Ready::default(), None, EventFlags::IN)
    }

    /// Stops and resumes the events of a listening socket.
    pub(super) fn listen(&self, fd: BorrowedFd<'_>, token: Token, wanted: bool) -> io::Result<()> {
        let Some(generation) = self.slots.borrow().get(token.0).map(|slot| slot.generation) else {
            return Ok(());
        };
        let flags = if wanted { EventFlags::IN } else { EventFlags::empty() };
        Ok(epoll::modify(&self.epoll, fd, data(generation, token.0), flags)?)
    }

    /// Registers a socket for input that is listed rather than waking someone of its own.
    pub(super) fn register_listed(
        &self,
        fd: BorrowedFd<'_>,
        list: &Rc<ReadyList>,
        tag: u64,
    ) -> io::Result<Token> {
        self.add(fd, Ready::default(), Some((list.clone(), tag)), EventFlags::IN | EventFlags::ET)
    }

    fn add(
        &self,
        fd: BorrowedFd<'_>,
        ready: Ready,
        listed: Option<(Rc<ReadyList>, u64)>,
        flags: EventFlags,
    ) -> io::Result<Token> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let is_of_connection = flags.contains(EventFlags::OUT) || !flags.contains(EventFlags::ET);
        let slot = Slot { generation, ready, waker: None, is_of_connection, listed };
        let place = self.slots.borrow_mut().insert(slot);
        if let Err(error) = epoll::add(&self.epoll, fd, data(generation, place), flags) {
            self.slots.borrow_mut().remove(place);
            return Err(error.into());
        }
        Ok(Token(place))
    }

    /// Frees the place. The socket must be closed right after.
    pub(super) fn forget(&self, token: Token) {
        self.slots.borrow_mut().try_remove(token.0);
    }

    pub(super) fn ready(&self, token: Token) -> Ready {
        self.slots.borrow().get(token.0).map(|slot| slot.ready).unwrap_or_default()
    }

    pub(super) fn clear_readable(&self, token: Token) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(token.0) {
            slot.ready.readable = false;
        }
    }

    pub(super) fn clear_writable(&self, token: Token) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(token.0) {
            slot.ready.writable = false;
        }
    }

    /// Who is woken by the socket's next event.
    pub(super) fn wake_with(&self, token: Token, cx: &Context<'_>) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(token.0) {
            match &mut slot.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
    }

    /// Wakes the tasks of up to `many` sockets from a place on, so that they look around. Gives the next place, until
    /// there is none.
    pub(super) fn wake_some(&self, from: usize, many: usize) -> Option<usize> {
        let mut wakers = Vec::new();
        let end = {
            let slots = self.slots.borrow();
            let end = from.saturating_add(many);
            wakers.extend((from..end).filter_map(|place| slots.get(place)?.waker.clone()));
            (end < slots.capacity()).then_some(end)
        };
        wakers.into_iter().for_each(Waker::wake);
        end
    }

    /// Ready when `holds` of the socket's state; otherwise the caller is woken by its next event.
    pub(super) fn poll(&self, token: Token, cx: &Context<'_>, holds: impl Fn(Ready) -> bool) -> Poll<()> {
        if holds(self.ready(token)) {
            return Poll::Ready(());
        }
        self.wake_with(token, cx);
        Poll::Pending
    }

    /// Takes events from the kernel. `may_block`: waits for the first. [`Self::dispatch`] passes them on.
    pub(super) fn wait(&self, may_block: bool) -> io::Result<()> {
        let mut events = self.events.borrow_mut();
        events.clear();
        let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = (!may_block).then_some(&zero);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Wakes whom the events of the last [`Self::wait`] concern.
    pub(super) fn dispatch(&self) {
        let mut connection_events = self.connection_events.get();
        for event in self.events.borrow_mut().drain(..) {
            let (data, flags) = (event.data.u64(), event.flags);
            let mut slots = self.slots.borrow_mut();
            let place = (data & u64::from(u32::MAX)) as usize;
            let Some(slot) = slots.get_mut(place).filter(|slot| u64::from(slot.generation) == data >> 32)
            else {
                continue;
            };
            let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            slot.ready.readable |= gone || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
            slot.ready.writable |= gone || flags.contains(EventFlags::OUT);
            slot.ready.read_closed |= gone || flags.contains(EventFlags::RDHUP);
            slot.ready.error |= flags.contains(EventFlags::ERR);
            // Taken out of the borrow: a waker may run anything.
            let waker = match &slot.listed {
                Some((list, tag)) => {
                    list.push(*tag);
                    list.take_waker()
                }
                None => {
                    connection_events += u64::from(slot.is_of_connection);
                    slot.waker.take()
                }
            };
            drop(slots);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        self.connection_events.set(connection_events);
    }

    /// Events so far of connections, and of those that are to be accepted.
    pub(super) fn connection_events(&self) -> u64 {
        self.connection_events.get()
    }
}

/// Which socket an event is of.
fn data(generation: u32, place: usize) -> EventData {
    EventData::new_u64(u64::from(generation) << 32 | place as u64)
}
