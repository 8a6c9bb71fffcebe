//! The scheduling policy of a thread.

#![expect(unsafe_code, reason = "sched_setscheduler has no safe binding here")]

use std::io;

/// How the scheduler treats a thread that becomes ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It may push another one off its CPU.
    Normal,
    /// It does not (SCHED_BATCH).
    Batch,
}

/// Sets that of the calling thread. Needs no privilege.
pub fn set_own(policy: Policy) -> io::Result<()> {
    let number = match policy {
        Policy::Normal => libc::SCHED_OTHER,
        Policy::Batch => libc::SCHED_BATCH,
    };
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a local that outlives the call; 0 means the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, number, &parameters) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_go_there_and_back() {
        set_own(Policy::Batch).unwrap();
        set_own(Policy::Normal).unwrap();
    }
}
