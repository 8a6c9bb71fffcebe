//! Whom to pick: over a view of a pool that is made once per change and read by every connection.
//!
//! A [`View`] holds the usable members in tiers. [`View::pick`] gives one candidate; called again with those that were
//! tried, it gives the next, so that a fallback needs no logic of its own.

mod ewma;
mod load;
mod locality;
mod maglev;
mod rendezvous;
#[cfg(test)]
mod tests;
mod weighted;

use awe4lb_model::Balance;
use rand::RngCore;
use xxhash_rust::xxh3::xxh3_64;

pub use ewma::PeakEwma;
pub use locality::near_leads;

/// One backend as balancing sees it.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Made from its name by [`seed`]: what rendezvous hashing knows it by.
    pub seed: u64,
    /// Its share in its tier. 0 gets nothing.
    pub weight: u32,
    /// Its tier: the lowest number with a usable member leads.
    pub priority: u32,
    /// Whether health, admin state and presence allow it.
    pub usable: bool,
    /// Whether it is in the node's own zone.
    pub near: bool,
}

/// The seed of a backend's name. Pinned: nodes and versions must agree.
pub fn seed(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// The usable members of a pool, in tiers.
#[derive(Debug, Clone, Default)]
pub struct View {
    members: Vec<Member>,
    /// Indices into `members`, by tier.
    order: Vec<u32>,
    tiers: Vec<Tier>,
    spill_when_full: bool,
}

#[derive(Debug, Clone)]
struct Tier {
    start: usize,
    end: usize,
    total_weight: u64,
    equal_weights: bool,
    /// The near part of a tier: left for the rest of it also when it is full.
    near: bool,
    /// Only for maglev.
    table: maglev::Table,
}

/// How members become tiers.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The method that picks will ask for: what it needs is made once.
    pub balance: Balance,
    /// When none is usable, all of them count.
    pub any_when_all_down: bool,
    /// A tier with fewer usable members is left, if another has enough.
    pub min_usable: u32,
    /// A tier that is full is left.
    pub spill_when_full: bool,
    /// One member a tier at a time: the first usable one.
    pub single_active: bool,
    /// The tier that is in use and stays so while it has enough members.
    pub held: Option<u32>,
    /// Near members of a tier come first while at least this share of them, in percent, is usable. `None`: near and far
    /// are the same.
    pub near_first: Option<u8>,
}

impl Rules {
    /// What holds when nobody says otherwise.
    pub fn new(balance: Balance) -> Self {
        Self {
            balance,
            any_when_all_down: false,
            min_usable: 1,
            spill_when_full: false,
            single_active: false,
            held: None,
            near_first: None,
        }
    }
}

/// What roundRobin remembers, one a worker and pool.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// Smooth weighted turns: the current value of each place in `order`.
    current: Vec<i64>,
}

/// How a candidate is found.
pub struct Request<'a> {
    /// The method.
    pub balance: Balance,
    /// For `hash` and `maglev`: the bytes to hash.
    pub key: &'a [u8],
    /// Members that were tried already, by index.
    pub tried: &'a [u32],
    /// What a member has to carry, this connection included: open connections for `leastConn` and `p2c`, cost for `ewma`,
    /// bytes for `leastBandwidth`. The others do not ask.
    pub load: &'a dyn Fn(usize) -> u64,
    /// Whether a member is full.
    pub full: &'a dyn Fn(usize) -> bool,
}

/// Why there is no candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCandidate {
    /// No member is usable (any more).
    NoneUsable,
    /// The usable ones of the leading tier are full.
    AllFull,
}

impl View {
    /// Sorts the usable members into tiers, those with enough members first, by priority.
    pub fn new(members: Vec<Member>, rules: &Rules) -> Self {
        let none_usable = !members.iter().any(|member| member.usable && member.weight > 0);
        let any = rules.any_when_all_down && none_usable;
        let counts = |member: &Member| member.weight > 0 && (member.usable || any);
        let mut order: Vec<u32> =
            (0u32..).zip(&members).filter(|(_, member)| counts(member)).map(|(index, _)| index).collect();
        order.sort_by_key(|index| members[*index as usize].priority);
        let mut groups: Vec<&[u32]> =
            order.chunk_by(|a, b| members[*a as usize].priority == members[*b as usize].priority).collect();
        let priority = |group: &[u32]| group.first().map(|index| members[*index as usize].priority);
        let is_left = |group: &[u32]| group.len() < rules.min_usable as usize;
        groups.sort_by_key(|group| {
            let is_held = rules.held.is_some() && priority(group) == rules.held;
            (is_left(group), !is_held, priority(group))
        });
        let (mut tiers, mut sorted) = (Vec::new(), Vec::with_capacity(order.len()));
        let parts = groups.into_iter().flat_map(|group| locality::parts(group, &members, rules));
        for (group, near) in parts {
            let group = &group[..];
            let start = sorted.len();
            sorted.extend_from_slice(group);
            let weight = |index: &u32| members[*index as usize].weight;
            let table = match rules.balance {
                Balance::Maglev => {
                    let member = |index: &u32| (members[*index as usize].seed, weight(index));
                    maglev::Table::new(&group.iter().map(member).collect::<Vec<_>>())
                }
                _ => maglev::Table::default(),
            };
            tiers.push(Tier {
                start,
                end: sorted.len(),
                total_weight: group.iter().map(|index| u64::from(weight(index))).sum(),
                near,
                equal_weights: group.iter().all(|index| weight(index) == weight(&group[0])),
                table,
            });
        }
        Self { members, order: sorted, tiers, spill_when_full: rules.spill_when_full }
    }

    /// Members that may be picked.
    pub fn usable(&self) -> usize {
        self.order.len()
    }

    /// Where the member of this [`seed`] is, if it may be picked.
    pub fn usable_place_of(&self, seed: u64) -> Option<usize> {
        self.order.iter().map(|index| *index as usize).find(|index| self.members[*index].seed == seed)
    }

    /// The [`seed`] of a member.
    pub fn seed_of(&self, index: usize) -> Option<u64> {
        self.members.get(index).map(|member| member.seed)
    }

    /// The priority of the tier in use.
    pub fn leading_priority(&self) -> Option<u32> {
        let first = self.tiers.first()?;
        self.order.get(first.start).map(|index| self.members[*index as usize].priority)
    }

    /// The next candidate, by index into the members. A tier is left when all of it were tried, or, if asked for, when what
    /// is left of it is full; otherwise being full ends in [`NoCandidate::AllFull`].
    pub fn pick(
        &self,
        request: &Request<'_>,
        turns: &mut Turns,
        rng: &mut impl RngCore,
    ) -> Result<usize, NoCandidate> {
        let mut any_full = false;
        for tier in &self.tiers {
            let places = &self.order[tier.start..tier.end];
            if let Some(place) = self.pick_in(tier, places, request, turns, rng) {
                return Ok(places[place] as usize);
            }
            if places.iter().any(|index| !request.tried.contains(index)) {
                any_full = true;
                if !self.spill_when_full && !tier.near {
                    break;
                }
            }
        }
        Err(if any_full { NoCandidate::AllFull } else { NoCandidate::NoneUsable })
    }

    fn pick_in(
        &self,
        tier: &Tier,
        places: &[u32],
        request: &Request<'_>,
        turns: &mut Turns,
        rng: &mut impl RngCore,
    ) -> Option<usize> {
        let open = |place: usize| {
            let index = places[place];
            !request.tried.contains(&index) && !(request.full)(index as usize)
        };
        match request.balance {
            Balance::Random => self.random(tier, places, &open, rng),
            Balance::RoundRobin => {
                turns.current.resize(self.order.len(), 0);
                self.in_turn(places, &open, &mut turns.current[tier.start..tier.end])
            }
            Balance::LeastConn | Balance::LeastBandwidth => self.least(places, &open, request.load, rng),
            Balance::P2c | Balance::Ewma => self.lesser_of_two(places, &open, request.load, rng),
            Balance::Hash => self.rendezvous(tier, places, &open, request.key),
            Balance::Maglev => tier.table.look_up(request.key, &open),
        }
    }

    fn weight(&self, index: u32) -> u64 {
        u64::from(self.members[index as usize].weight)
    }

    /// The sum of the weights of the leading tier.
    pub fn leading_weight(&self) -> u64 {
        self.tiers.first().map_or(0, |tier| tier.total_weight)
    }
}
