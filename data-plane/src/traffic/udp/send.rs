//! Sends runs, and falls back to single datagrams where a run cannot be sent.

use std::{io, os::fd::BorrowedFd};

use awe4lb_engine::flows::FlowId;

use super::runs::Runs;
use crate::sys::mmsg::{Batch, Outbox, Run};

/// What a worker's UDP sockets share, between two waits.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(super) batch: Batch,
    pub(super) outbox: Outbox,
    pub(super) runs: Runs,
    /// Of the datagrams of one round: whose (its place among `flows`) and where in the batch.
    pub(super) items: Vec<(u32, u32)>,
    /// The flows of one round.
    pub(super) flows: Vec<FlowId>,
    /// Flows that end once what was gathered is sent.
    pub(super) finished: Vec<FlowId>,
}

/// What became of a run or a datagram.
pub(super) enum Fate {
    /// Delivered to the socket.
    Sent {
        /// Payload.
        bytes: u32,
        /// How many datagrams.
        datagrams: u32,
    },
    /// The path takes no runs of datagrams this long.
    TooLongForRun(u32),
    /// The socket had an error to report, and sent nothing of these: an earlier datagram was refused.
    Refused(u32),
    /// So many were lost on our side.
    Dropped(u32),
}

/// Sends all of them and tells what became of each. `Refused` ends it: the caller decides about the rest.
pub(super) fn send_all(
    outbox: &mut Outbox,
    socket: BorrowedFd<'_>,
    batch: &Batch,
    runs: &Runs,
    mut tell: impl FnMut(FlowId, Fate),
) -> Result<(), usize> {
    let mut at = 0;
    while let (Some(rest), Some(load)) = (runs.runs().get(at..), runs.loads().get(at)) {
        match outbox.send(socket, batch, rest, runs.pieces()) {
            Ok(sent) => {
                for load in runs.loads().iter().skip(at).take(sent) {
                    tell(load.flow, Fate::Sent { bytes: load.bytes, datagrams: load.datagrams });
                }
                at += sent.max(1);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if load.datagrams > 1 && speaks_against_runs(&error) => {
                tell(load.flow, Fate::TooLongForRun(runs.each(at)));
                for piece in runs.singles(at) {
                    let run = Run { first_piece: 0, pieces: 1, segment: 0, ..runs.runs()[at] };
                    let fate = match outbox.send(socket, batch, &[run], &[piece]) {
                        Ok(_) => Fate::Sent { bytes: piece.len, datagrams: 1 },
                        Err(_) => Fate::Dropped(1),
                    };
                    tell(load.flow, fate);
                }
                at += 1;
            }
            Err(error) if is_refusal(&error) => {
                tell(load.flow, Fate::Refused(load.datagrams));
                return Err(at);
            }
            Err(_) => {
                tell(load.flow, Fate::Dropped(load.datagrams));
                at += 1;
            }
        }
    }
    Ok(())
}

/// Longer than the path takes whole, or a device that cannot cut them.
fn speaks_against_runs(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL | libc::EIO | libc::EOPNOTSUPP))
}

/// What ICMP brought back of an earlier datagram.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EPROTO
                | libc::EACCES
        )
    )
}
