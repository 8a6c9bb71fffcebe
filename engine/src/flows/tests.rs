use std::{collections::BTreeMap, sync::Arc, time::Duration};

use awe4lb_model::ClientPrefix;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::*;

fn settings() -> UdpSettings {
    UdpSettings {
        idle_timeout: Duration::from_millis(60),
        unanswered_timeout: Duration::from_millis(10),
        ..UdpSettings::default()
    }
}

fn key(client: u8, port: u16) -> FlowKey {
    FlowKey { client: SocketAddr::from(([10, 0, 0, client], port)), local: IpAddr::from([127, 0, 0, 1]) }
}

#[test]
fn a_flow_ends_after_its_last_datagram_in_either_direction() {
    let mut table = FlowTable::new(settings());
    let id = table.start(key(1, 1), 0, ());
    assert!(table.backend_datagrams(id, 1, 5).is_some());
    assert!(table.client_datagram(&key(1, 1), 50).is_some());
    assert!(table.expired(109).is_none());
    assert_eq!(table.expired(110).map(|ended| ended.reason), Some(EndReason::IdleTimeout));
    assert!(table.backend_datagrams(id, 1, 111).is_none() && table.is_empty());
}

#[test]
fn unanswered_flows_end_sooner_and_make_room() {
    let mut table = FlowTable::new(settings());
    let first = table.start(key(1, 1), 0, 'a');
    table.start(key(2, 1), 1, 'b');
    table.backend_datagrams(first, 1, 2);
    let evicted = table.evict().map(|ended| (ended.value, ended.reason));
    assert_eq!(evicted, Some(('b', EndReason::FlowEvicted)));
    table.start(key(3, 1), 3, 'c');
    let expired = table.expired(13).map(|ended| (ended.value, ended.reason));
    assert_eq!(expired, Some(('c', EndReason::Unanswered)));
    assert!(table.evict().is_none(), "what was answered is never evicted");
}

#[test]
fn a_flow_takes_so_many_requests_and_the_next_begins_another() {
    let mut table = FlowTable::new(UdpSettings { max_requests: Some(2), ..settings() });
    let first = table.start(key(1, 1), 0, 'a');
    assert_eq!(table.client_datagram(&key(1, 1), 1).map(|(id, _)| id), Some(first));
    assert!(table.client_datagram(&key(1, 1), 2).is_none(), "it had two");
    let second = table.start(key(1, 1), 2, 'b');
    assert!(first != second && table.len() == 2);
    let answers = table.backend_datagrams(first, 1, 3).expect("it still waits for answers");
    assert_eq!((answers.allowed, answers.is_complete), (1, false));
    assert_eq!(
        table.expired(13).map(|ended| (ended.value, ended.reason)),
        Some(('b', EndReason::Unanswered))
    );
    assert_eq!(
        table.expired(13).map(|ended| (ended.value, ended.reason)),
        Some(('a', EndReason::FlowComplete))
    );
}

#[test]
fn a_flow_is_complete_with_exactly_the_last_answer() {
    let mut table = FlowTable::new(UdpSettings { max_responses: Some(3), ..settings() });
    let id = table.start(key(1, 1), 0, ());
    let two = table.backend_datagrams(id, 2, 1).expect("a flow");
    assert_eq!((two.allowed, two.is_complete), (2, false));
    let more = table.backend_datagrams(id, 2, 1).expect("a flow");
    assert_eq!((more.allowed, more.is_complete), (1, true));
}

#[test]
fn a_flow_follows_its_client_to_another_port() {
    let mut table = FlowTable::new(settings());
    let id = table.start(key(1, 1), 0, ());
    assert!(table.rebind(id, key(1, 2)));
    assert!(table.client_datagram(&key(1, 1), 1).is_none());
    assert_eq!(table.client_datagram(&key(1, 2), 1).map(|(id, ())| id), Some(id));
    assert_eq!(table.backend_datagrams(id, 1, 2).map(|answers| answers.key), Some(key(1, 2)));
}

#[derive(Debug)]
struct Modelled {
    key: (u8, u16),
    last: u64,
    answered: bool,
    detached: bool,
    requests: u32,
    responses: u32,
    _permit: FlowPermit,
}

/// A model with none of the cleverness; table and quota must agree with it after every step, for every seed.
struct Simulation {
    rng: SmallRng,
    settings: UdpSettings,
    quota: Arc<FlowQuota>,
    table: FlowTable<u32>,
    flows: BTreeMap<u32, (FlowId, Modelled)>,
    next: u32,
    now: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut some = |most: u32| (rng.random_range(0..3) == 0).then(|| rng.random_range(1..most));
        let (max_requests, max_responses) = (some(4), some(5));
        let settings = UdpSettings {
            max_flows: rng.random_range(1..20),
            max_flows_per_client: rng.random_range(1..6),
            max_requests,
            max_responses,
            ..settings()
        };
        Self {
            rng,
            settings,
            quota: Arc::default(),
            table: FlowTable::new(settings),
            flows: BTreeMap::new(),
            next: 0,
            now: 0,
        }
    }

    fn attached(&self, of: (u8, u16)) -> Option<u32> {
        let fits = |(number, (_, flow)): (&u32, &(FlowId, Modelled))| {
            (flow.key == of && !flow.detached).then_some(*number)
        };
        self.flows.iter().find_map(fits)
    }

    fn asked(&mut self, number: u32) {
        let most = self.settings.max_requests.unwrap_or(u32::MAX);
        let (_, flow) = self.flows.get_mut(&number).expect("the model has it");
        (flow.last, flow.requests) = (self.now, flow.requests + 1);
        if flow.requests >= most {
            (flow.detached, flow.answered) = (true, false);
        }
    }

    fn client_sends(&mut self, of: (u8, u16)) {
        let expected = self.attached(of);
        let found = self.table.client_datagram(&key(of.0, of.1), self.now).map(|(id, value)| (id, *value));
        assert_eq!(found.map(|(_, number)| number), expected);
        if let Some(number) = expected {
            return self.asked(number);
        }
        let of_client = self.flows.values().filter(|(_, flow)| flow.key.0 == of.0).count();
        let is_full = self.flows.len() >= self.settings.max_flows as usize;
        let client = key(of.0, of.1).client.ip();
        let permit = match self.quota.take(client, ClientPrefix::default(), &self.settings) {
            Place::ClientFull => {
                assert!(of_client >= self.settings.max_flows_per_client as usize);
                return;
            }
            Place::Free(permit) => {
                assert!(!is_full);
                permit
            }
            Place::InsteadOfAnother(permit) => {
                assert!(is_full);
                let Some(evicted) = self.table.evict() else {
                    assert!(self.flows.values().all(|(_, flow)| flow.answered));
                    return;
                };
                let (_, gone) = self.flows.remove(&evicted.value).expect("the model has it");
                assert!(!gone.answered);
                let mut others = self.flows.values().filter(|(_, flow)| !flow.answered);
                assert!(
                    others.all(|(_, flow)| flow.last >= gone.last),
                    "the one that was silent for longest"
                );
                permit
            }
        };
        self.next += 1;
        let id = self.table.start(key(of.0, of.1), self.now, self.next);
        let flow = Modelled {
            key: of,
            last: self.now,
            answered: false,
            detached: false,
            requests: 0,
            responses: 0,
            _permit: permit,
        };
        self.flows.insert(self.next, (id, flow));
        self.asked(self.next);
    }

    fn any_flow(&mut self) -> Option<u32> {
        let at = self.rng.random_range(0..self.flows.len().max(1));
        self.flows.keys().nth(at).copied()
    }

    fn backend_sends(&mut self) {
        let Some(number) = self.any_flow() else { return };
        let count = self.rng.random_range(1..4);
        let most = self.settings.max_responses.unwrap_or(u32::MAX);
        let (id, flow) = self.flows.get_mut(&number).expect("just found");
        let answers = self.table.backend_datagrams(*id, count, self.now).expect("it is there");
        assert_eq!(answers.key, key(flow.key.0, flow.key.1));
        assert_eq!(answers.allowed, count.min(most - flow.responses));
        flow.responses += answers.allowed;
        flow.last = self.now;
        flow.answered |= !flow.detached;
        assert_eq!(answers.is_complete, flow.responses == most);
        if answers.is_complete {
            self.end(number, EndReason::FlowComplete);
        }
    }

    fn end(&mut self, number: u32, reason: EndReason) {
        let (id, _) = self.flows.remove(&number).expect("just found");
        assert!(self.table.end(id, reason).is_some());
        assert!(self.table.end(id, reason).is_none(), "a stale id ends nothing");
        assert!(self.table.backend_datagrams(id, 1, self.now).is_none() && self.table.value(id).is_none());
    }

    fn rebinds(&mut self, to: (u8, u16)) {
        let Some(number) = self.any_flow().filter(|_| self.attached(to).is_none()) else { return };
        let (id, flow) = self.flows.get_mut(&number).expect("just found");
        // Its permit stays that of the address it began with.
        if flow.key.0 == to.0 {
            let moved = self.table.rebind(*id, key(to.0, to.1));
            assert_eq!(moved, !flow.detached);
            if moved {
                flow.key = to;
            }
        }
    }

    fn step(&mut self) {
        self.now += self.rng.random_range(0..4);
        let of = (self.rng.random_range(0..5), self.rng.random_range(0..6));
        match self.rng.random_range(0..12) {
            0..6 => self.client_sends(of),
            6..10 => self.backend_sends(),
            10 => self.rebinds(of),
            _ => {
                if let Some(number) = self.any_flow() {
                    self.end(number, EndReason::BackendRemoved);
                }
            }
        }
        let timeout = |flow: &Modelled| if flow.answered { 60 } else { 10 };
        while let Some(ended) = self.table.expired(self.now) {
            let (_, flow) = self.flows.remove(&ended.value).expect("the model has it");
            assert!(self.now - flow.last >= timeout(&flow));
            assert_eq!(ended.reason == EndReason::FlowComplete, flow.detached && flow.responses > 0);
        }
        assert!(self.flows.values().all(|(_, flow)| self.now - flow.last < timeout(flow)));
        assert_eq!((self.table.len(), self.quota.len() as usize), (self.flows.len(), self.flows.len()));
        assert!(self.flows.len() <= self.settings.max_flows as usize);
        assert_eq!(self.table.ids().len(), self.flows.len());
        assert_eq!(self.table.by_key.len(), self.flows.values().filter(|(_, flow)| !flow.detached).count());
    }
}

fn simulate(seed: u64, steps: u32) {
    let mut simulation = Simulation::new(seed);
    for step in 0..steps {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulation.step()));
        assert!(outcome.is_ok(), "seed {seed}, step {step}: run again with AWE4LB_SEED={seed}");
    }
}

#[test]
fn simulation_agrees_with_a_plain_model() {
    match std::env::var("AWE4LB_SEED") {
        Ok(seed) => simulate(seed.parse().expect("a number"), 100_000),
        Err(_) => (0..256).for_each(|seed| simulate(seed, 1_000)),
    }
}

#[test]
#[ignore = "the deep lane"]
fn deep_simulation_of_flows() {
    for seed in 1_000..9_000 {
        simulate(seed, 4_000);
    }
}
