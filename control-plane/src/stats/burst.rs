//! Which messages are one report, and which time a report is of. Times are Unix milliseconds.

/// A report of many numbers comes in parts; what comes later than this is the next one.
pub const BURST: i64 = 300;
/// A node reports each second what has changed, and that it is there each five seconds.
const INTERVAL: i64 = 1_000;
const SIGN_OF_LIFE: i64 = 6_000;

/// The report that came last, in its parts.
#[derive(Debug, Default)]
pub struct Burst {
    /// The how many-th.
    pub index: u64,
    /// Unix milliseconds.
    pub began: Option<i64>,
    /// The time that its counts are of; unknown for the first one.
    pub covers: Option<i64>,
    has_counters: bool,
}

impl Burst {
    /// A part has come.
    pub fn part(&mut self, at: i64, has_counters: bool) {
        let gap = self.began.map(|began| at - began);
        if gap.is_none_or(|gap| !(0..BURST).contains(&gap)) {
            self.covers = match gap {
                // Nothing had changed until a second ago, or it would have said so.
                Some(gap) if !self.has_counters && (0..SIGN_OF_LIFE).contains(&gap) => {
                    Some(gap.min(INTERVAL))
                }
                Some(gap) if gap > 0 => Some(gap),
                _ => None,
            };
            self.index += 1;
            self.began = Some(at);
            self.has_counters = false;
        }
        self.has_counters |= has_counters;
    }
}
