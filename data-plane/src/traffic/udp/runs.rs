//! Gathers datagrams of one flow into runs: equal in size but for the last, one send each.
//!
//! Only decides what goes together; the bytes stay in the batch.

use awe4lb_engine::flows::FlowId;

use crate::sys::mmsg::{Ecn, MAX_PAYLOAD, MAX_SEGMENTS, Piece, Received, Run};
use std::net::{IpAddr, SocketAddr};

/// Where a run goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// Whose datagrams these are.
    pub(super) flow: FlowId,
    /// As in [`Run`].
    pub(super) to: Option<SocketAddr>,
    /// As in [`Run`].
    pub(super) from: Option<IpAddr>,
    /// The longest datagram that may go out in a run; 0: none.
    pub(super) longest: u16,
    /// Whether the socket speaks IPv6.
    pub(super) v6: bool,
}

/// What is known of a run besides how to send it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Whose it is.
    pub(super) flow: FlowId,
    /// Payload.
    pub(super) bytes: u32,
    /// Datagrams.
    pub(super) datagrams: u32,
    /// Bytes of the first datagram, and of all but the last.
    each: u32,
}

/// Runs in the order in which they are sent.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    loads: Vec<Load>,
    pieces: Vec<Piece>,
}

impl Runs {
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.loads.clear();
        self.pieces.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Of the same order as the runs.
    pub(super) fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// Adds what one slot holds.
    pub(super) fn add(&mut self, way: &Way, received: &Received) {
        let each = received.segment.max(1);
        // A slot may hold more than one send takes, or be made of datagrams that are too long for a run.
        let most = if each <= u32::from(way.longest) {
            (MAX_SEGMENTS as u32).min(MAX_PAYLOAD as u32 / each).max(1) * each
        } else {
            each
        };
        let mut offset = 0;
        loop {
            let len = (received.len - offset).min(most);
            self.add_piece(way, Piece { slot: received.slot, offset, len }, each.min(len), received.ecn);
            offset += len;
            if offset >= received.len {
                return;
            }
        }
    }

    fn add_piece(&mut self, way: &Way, piece: Piece, each: u32, bits: u8) {
        let datagrams = if each == 0 { 1 } else { piece.len.div_ceil(each) };
        if let (Some(run), Some(load)) = (self.runs.last_mut(), self.loads.last_mut())
            && load.flow == way.flow
            && run.ecn.bits == bits
            && load.takes(&piece, each, datagrams, way.longest)
        {
            self.pieces.push(piece);
            run.pieces += 1;
            load.bytes += piece.len;
            load.datagrams += datagrams;
            // It fits: `takes` compared with `longest`, which is a u16.
            run.segment = load.each as u16;
            return;
        }
        self.runs.push(Run {
            to: way.to,
            from: way.from,
            first_piece: self.pieces.len() as u32,
            pieces: 1,
            segment: if datagrams > 1 { each as u16 } else { 0 },
            ecn: Ecn { bits, v6: way.v6 },
        });
        self.loads.push(Load { flow: way.flow, bytes: piece.len, datagrams, each });
        self.pieces.push(piece);
    }

    /// The datagrams of a run, one by one: for when it cannot be sent as one.
    pub(super) fn singles(&self, index: usize) -> impl Iterator<Item = Piece> + '_ {
        let (run, load) = (self.runs[index], self.loads[index]);
        let pieces = &self.pieces[run.first_piece as usize..][..run.pieces as usize];
        pieces.iter().flat_map(move |piece| {
            let each = load.each.max(1);
            (0..piece.len.div_ceil(each).max(1)).map(move |number| {
                let offset = number * each;
                Piece { slot: piece.slot, offset: piece.offset + offset, len: (piece.len - offset).min(each) }
            })
        })
    }

    /// How long each datagram of a run is.
    pub(super) fn each(&self, index: usize) -> u32 {
        self.loads[index].each
    }
}

impl Load {
    fn takes(&self, piece: &Piece, each: u32, datagrams: u32, longest: u16) -> bool {
        let all_full = self.bytes == self.each * self.datagrams;
        let fits = if datagrams > 1 { each == self.each } else { piece.len <= self.each };
        all_full
            && fits
            && piece.len > 0
            && self.each <= u32::from(longest)
            && self.datagrams + datagrams <= MAX_SEGMENTS as u32
            && (self.bytes + piece.len) as usize <= MAX_PAYLOAD
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn way(flow: u32, longest: u16) -> Way {
        Way { flow: FlowId { index: flow, generation: 0 }, to: None, from: None, longest, v6: false }
    }

    fn single(slot: u32, len: u32) -> Received {
        Received {
            slot,
            from: None,
            local: None,
            len,
            segment: len,
            truncated: false,
            overflow: None,
            ecn: 0,
        }
    }

    fn shape(runs: &Runs) -> Vec<(u16, u32, u32)> {
        runs.runs()
            .iter()
            .zip(runs.loads())
            .map(|(run, load)| (run.segment, load.datagrams, load.bytes))
            .collect()
    }

    #[test]
    fn equal_datagrams_and_a_shorter_last_one_are_a_run() {
        let mut runs = Runs::default();
        for (slot, len) in [100, 100, 30, 30, 100, 0, 0].into_iter().enumerate() {
            runs.add(&way(1, 1400), &single(slot as u32, len));
        }
        // 100 100 30 | 30 | 100 | an empty one cannot be in a run | and another
        assert_eq!(shape(&runs), [(100, 3, 230), (0, 1, 30), (0, 1, 100), (0, 1, 0), (0, 1, 0)]);
    }

    #[test]
    fn marks_for_congestion_are_not_mixed() {
        let mut runs = Runs::default();
        for ecn in [2, 2, 3, 2] {
            runs.add(&way(1, 1400), &Received { ecn, ..single(0, 10) });
        }
        assert_eq!(shape(&runs), [(10, 2, 20), (0, 1, 10), (0, 1, 10)]);
        assert_eq!(runs.runs().iter().map(|run| run.ecn.bits).collect::<Vec<_>>(), [2, 3, 2]);
    }

    #[test]
    fn flows_are_not_mixed() {
        let mut runs = Runs::default();
        for flow in [1, 1, 2, 1] {
            runs.add(&way(flow, 1400), &single(0, 10));
        }
        assert_eq!(shape(&runs), [(10, 2, 20), (0, 1, 10), (0, 1, 10)]);
    }

    #[test]
    fn too_long_for_a_run_goes_alone() {
        let mut runs = Runs::default();
        let glued = Received { segment: 1000, ..single(0, 2500) };
        runs.add(&way(1, 999), &glued);
        assert_eq!(shape(&runs), [(0, 1, 1000), (0, 1, 1000), (0, 1, 500)]);
        runs.clear();
        runs.add(&way(1, 1000), &glued);
        assert_eq!(shape(&runs), [(1000, 3, 2500)]);
    }

    proptest! {
        #[test]
        fn every_datagram_goes_out_once_in_order_and_within_limits(
            slots in prop::collection::vec((0u32..3, 0u32..40, 1u32..200), 0..60),
            longest in prop_oneof![Just(0u16), Just(20), Just(60000)],
        ) {
            let mut runs = Runs::default();
            let mut wanted: Vec<(u32, u32, u32, u32)> = Vec::new();
            for (slot, (flow, each, count)) in slots.iter().enumerate() {
                let len = (each * 40 * (count % 40)).min(65_000).max(u32::from(*count > 100));
                let segment = if *each == 0 { len } else { (each * 40).min(len) };
                let received = Received { segment, ..single(slot as u32, len) };
                runs.add(&way(*flow, longest), &received);
                let step = segment.max(1);
                let mut offset = 0;
                loop {
                    wanted.push((*flow, slot as u32, offset, (len - offset).min(step)));
                    offset += step;
                    if offset >= len { break; }
                }
            }
            let mut sent = Vec::new();
            for (index, (run, load)) in runs.runs().iter().zip(runs.loads()).enumerate() {
                let singles: Vec<Piece> = runs.singles(index).collect();
                prop_assert_eq!(singles.len() as u32, load.datagrams);
                prop_assert_eq!(singles.iter().map(|piece| piece.len).sum::<u32>(), load.bytes);
                prop_assert!(load.datagrams as usize <= MAX_SEGMENTS && load.bytes as usize <= MAX_PAYLOAD);
                if run.segment > 0 {
                    prop_assert!(run.segment <= longest && load.datagrams > 1);
                    for piece in &singles[..singles.len() - 1] {
                        prop_assert_eq!(piece.len, u32::from(run.segment));
                    }
                } else {
                    prop_assert_eq!(load.datagrams, 1);
                }
                sent.extend(singles.iter().map(|piece| (load.flow.index, piece.slot, piece.offset, piece.len)));
            }
            prop_assert_eq!(sent, wanted);
        }
    }
}
