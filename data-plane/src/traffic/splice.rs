//! Pipes for moving bytes between sockets without copying them: borrowed while bytes flow, given back when empty.

use std::{cell::RefCell, os::fd::OwnedFd, rc::Rc};

use rustix::pipe::{self, PipeFlags};

/// What one pipe is asked to hold.
const PIPE_BYTES: usize = 1024 * 1024;
/// Pipes a worker keeps for the next one.
const KEPT: usize = 64;
/// Pipes a worker has at most; beyond, bytes are copied.
const MOST: usize = 512;

/// A worker's pipes.
#[derive(Default)]
pub(super) struct Pipes {
    kept: RefCell<Vec<Ends>>,
    lent: RefCell<usize>,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

/// A borrowed pipe. Goes back when it is dropped empty; one that holds bytes is closed, for they are nobody else's.
pub(super) struct Pipe {
    ends: Option<Ends>,
    /// Bytes inside.
    pub(super) holds: usize,
    pipes: Rc<Pipes>,
}

impl Pipes {
    /// `None`: there are enough, or the system gives none. Then the caller copies.
    pub(super) fn borrow(self: &Rc<Self>) -> Option<Pipe> {
        if *self.lent.borrow() >= MOST {
            return None;
        }
        let ends = self.kept.borrow_mut().pop().or_else(make)?;
        *self.lent.borrow_mut() += 1;
        Some(Pipe { ends: Some(ends), holds: 0, pipes: self.clone() })
    }
}

fn make() -> Option<Ends> {
    let (read, write) = pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
    // Beyond the user's share of pipe memory the size is refused: a small pipe is still better than a copy.
    let _ = pipe::fcntl_setpipe_size(&write, PIPE_BYTES);
    let capacity = pipe::fcntl_getpipe_size(&write).ok()?;
    Some(Ends { read, write, capacity })
}

impl Pipe {
    pub(super) fn read_end(&self) -> Option<&OwnedFd> {
        self.ends.as_ref().map(|ends| &ends.read)
    }

    pub(super) fn write_end(&self) -> Option<&OwnedFd> {
        self.ends.as_ref().map(|ends| &ends.write)
    }

    /// How much to ask for: more than it holds, as a slot may take a whole fragment.
    pub(super) fn most(&self) -> usize {
        self.ends.as_ref().map_or(0, |ends| ends.capacity)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        *self.pipes.lent.borrow_mut() -= 1;
        let mut kept = self.pipes.kept.borrow_mut();
        if self.holds == 0
            && kept.len() < KEPT
            && let Some(ends) = self.ends.take()
        {
            kept.push(ends);
        }
    }
}
