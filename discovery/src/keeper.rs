//! What counts of what a source says: the last good answer, limits against answers that take too much away, and when to
//! ask again. No clock and no I/O.

use std::time::Duration;

use awe4lb_model::{
    Backend,
    discovery::{OnFailure, Source},
};

use crate::{Answer, Endpoint, Failure};

/// The most of what was rejected that is told.
const TOLD: usize = 5;
/// After failures it is asked at most this seldom.
const SELDOM: Duration = Duration::from_secs(300);
/// After the first failure it is asked again after this, unless the interval is shorter.
const SOON: Duration = Duration::from_secs(2);

/// What is known of a source.
#[derive(Debug, Clone)]
pub struct Keeper {
    source: Source,
    backends: Vec<Backend>,
    /// Whether there was a good answer ever (or a remembered one).
    has_answer: bool,
    failures: u32,
    error: Option<String>,
    rejected: Vec<String>,
    rejected_total: usize,
    next: Duration,
}

impl Keeper {
    /// Nothing is known yet but what was remembered.
    pub fn new(source: Source, remembered: Option<Vec<Backend>>) -> Self {
        let has_answer = remembered.is_some();
        Self {
            source,
            backends: remembered.unwrap_or_default(),
            has_answer,
            failures: 0,
            error: None,
            rejected: Vec::new(),
            rejected_total: 0,
            next: Duration::ZERO,
        }
    }

    /// What counts now.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Why the last try failed.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Items of the last answer that are no backends: some of them, and how many there are.
    pub fn rejected(&self) -> (&[String], usize) {
        (&self.rejected, self.rejected_total)
    }

    /// How long to wait before the next try, before jitter.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Takes what the source said. True: other backends count now.
    pub fn take(&mut self, said: Result<Answer, Failure>) -> bool {
        match said {
            Ok(answer) => self.answer(answer),
            Err(failure) => self.fail(failure.0),
        }
    }

    fn answer(&mut self, answer: Answer) -> bool {
        let valid_for = answer.valid_for;
        let mut backends: Vec<Backend> = Vec::with_capacity(answer.endpoints.len());
        let mut rejected = answer.rejected;
        let mut seen = std::collections::HashSet::new();
        let named = answer.endpoints.len();
        let select = self.source.select.as_ref();
        let is_selected = |endpoint: &Endpoint| select.is_none_or(|select| select.matches(&endpoint.labels));
        let selected: Vec<Endpoint> = answer.endpoints.into_iter().filter(is_selected).collect();
        let left_out = named - selected.len();
        for endpoint in selected {
            let text = endpoint.address.to_string();
            match endpoint.backend(&self.source.template) {
                Some(backend) if seen.insert(backend.address.clone()) => backends.push(backend),
                Some(_) => {}
                None => rejected.push(format!("{text} makes no name")),
            }
        }
        // The order of an answer means nothing, and an answer in another order is no change.
        backends.sort_by(|a, b| (a.priority, &a.name, &a.address).cmp(&(b.priority, &b.name, &b.address)));
        self.rejected_total = rejected.len();
        rejected.truncate(TOLD);
        self.rejected = rejected;
        if let Some(problem) = self.too_little(&backends, left_out) {
            return self.fail(problem);
        }
        self.failures = 0;
        self.error = None;
        self.has_answer = true;
        self.next = valid_for.unwrap_or(self.source.interval);
        let is_news = self.backends != backends;
        self.backends = backends;
        is_news
    }

    /// Why an answer is not believed.
    fn too_little(&self, backends: &[Backend], left_out: usize) -> Option<String> {
        let least = self.source.min_backends as usize;
        if backends.len() < least {
            let rejected = match (self.rejected_total, self.rejected.first()) {
                (0, _) | (_, None) => String::new(),
                (count, Some(first)) => format!(" ({count} items are no backends: {first})"),
            };
            let others = match left_out {
                0 => String::new(),
                count => format!(" ({count} are not selected)"),
            };
            let found = backends.len();
            return Some(format!("{found} backends, minBackends is {least}{others}{rejected}"));
        }
        if self.source.max_vanish_percent >= 100 || self.backends.is_empty() {
            return None;
        }
        let there: std::collections::HashSet<_> = backends.iter().map(|backend| &backend.address).collect();
        let vanished = self.backends.iter().filter(|backend| !there.contains(&backend.address)).count();
        let (before, most) = (self.backends.len(), self.source.max_vanish_percent);
        (vanished * 100 > usize::from(most) * before).then(|| {
            format!(
                "{vanished} of {before} backends would vanish at once, maxVanishPercent is {most}: \
                 raise it if this is meant"
            )
        })
    }

    fn fail(&mut self, error: String) -> bool {
        self.error = Some(error);
        self.failures = self.failures.saturating_add(1);
        let first = SOON.min(self.source.interval);
        let doubled = first.saturating_mul(1 << (self.failures - 1).min(16));
        self.next = doubled.min(SELDOM.max(self.source.interval));
        if self.source.on_failure == OnFailure::Clear && !self.backends.is_empty() {
            self.backends.clear();
            return true;
        }
        false
    }

    /// What was told is too old to count. True: there was something.
    pub fn expire(&mut self) -> bool {
        self.error = Some("what was pushed is older than ttl".to_owned());
        let had = !self.backends.is_empty();
        self.backends.clear();
        had
    }

    /// Whether there is an answer, be it an old one.
    pub fn has_answer(&self) -> bool {
        self.has_answer
    }
}

#[cfg(test)]
mod tests {
    use awe4lb_model::document::backend_address;

    use super::*;

    fn keeper(change: impl FnOnce(&mut Source)) -> Keeper {
        let mut source = Source::elsewhere("s".parse().unwrap());
        change(&mut source);
        Keeper::new(source, None)
    }

    fn answer(addresses: &[&str]) -> Result<Answer, Failure> {
        let endpoints = addresses.iter().map(|text| Endpoint::at(backend_address(text).unwrap())).collect();
        Ok(Answer { endpoints, ..Answer::default() })
    }

    fn failure() -> Result<Answer, Failure> {
        Err(Failure::new("refused"))
    }

    const TWO: [&str; 2] = ["10.0.0.1:80", "10.0.0.2:80"];

    #[test]
    fn a_failure_keeps_the_last_answer_and_is_asked_again_soon_then_seldom() {
        let mut keeper = keeper(|_| {});
        assert!(keeper.take(answer(&TWO)));
        assert_eq!(keeper.next(), Duration::from_secs(10));
        let waits: Vec<u64> = (0..12)
            .map(|_| {
                assert!(!keeper.take(failure()));
                keeper.next().as_secs()
            })
            .collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
        assert_eq!((keeper.backends().len(), keeper.error()), (2, Some("refused")));
        assert!(!keeper.take(answer(&TWO)), "the same again is no news");
        assert_eq!((keeper.error(), keeper.next()), (None, Duration::from_secs(10)));
    }

    #[test]
    fn a_failure_clears_where_that_is_asked_for() {
        let mut keeper = keeper(|source| source.on_failure = OnFailure::Clear);
        keeper.take(answer(&TWO)).then_some(()).unwrap();
        assert!(keeper.take(failure()) && keeper.backends().is_empty());
        assert!(!keeper.take(failure()));
        assert!(keeper.take(answer(&TWO)));
    }

    #[test]
    fn an_answer_with_too_few_is_a_failure_and_an_empty_one_may_be_asked_for() {
        let mut strict = keeper(|source| source.min_backends = 2);
        strict.take(answer(&TWO));
        assert!(!strict.take(answer(&TWO[..1])));
        assert_eq!((strict.backends().len(), strict.error()), (2, Some("1 backends, minBackends is 2")));
        let mut any = keeper(|source| source.min_backends = 0);
        any.take(answer(&TWO));
        assert!(any.take(answer(&[])) && any.backends().is_empty() && any.error().is_none());
    }

    #[test]
    fn more_than_the_share_never_vanishes_at_once() {
        let mut keeper = keeper(|source| source.max_vanish_percent = 50);
        let four = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
        keeper.take(answer(&four));
        assert!(!keeper.take(answer(&four[..1])));
        assert!(keeper.error().unwrap().starts_with("3 of 4 backends would vanish at once"));
        assert!(keeper.take(answer(&four[..2])));
        assert!(keeper.take(answer(&four[..1])));
    }

    #[test]
    fn another_order_is_no_change_and_what_is_said_twice_counts_once() {
        let mut keeper = keeper(|_| {});
        assert!(keeper.take(answer(&["10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"])));
        assert!(!keeper.take(answer(&TWO)));
        assert_eq!(keeper.backends().len(), 2);
    }

    #[test]
    fn labels_select_name_and_place() {
        let mut keeper = keeper(|source| {
            source.select = Some("tier=web, !canary".parse().unwrap());
            source.template.name = Some("${label.app}-${host}".parse().unwrap());
            source.template.zone = Some("west".into());
        });
        let endpoint = |address: &str, labels: &[(&str, &str)]| {
            let endpoint = Endpoint::at(backend_address(address).unwrap());
            labels.iter().fold(endpoint, |endpoint, (key, value)| endpoint.label(key, value))
        };
        let endpoints = vec![
            endpoint("10.0.0.1:80", &[("tier", "web"), ("app", "Shop"), ("zone", "east")]),
            endpoint("10.0.0.2:80", &[("tier", "web"), ("canary", "")]),
            endpoint("10.0.0.3:80", &[("tier", "web")]),
            endpoint("10.0.0.4:80", &[]),
        ];
        assert!(keeper.take(Ok(Answer { endpoints: endpoints.clone(), ..Answer::default() })));
        let found: Vec<_> =
            keeper.backends().iter().map(|one| (one.name.as_str(), one.zone.as_deref())).collect();
        assert_eq!(found, [("10-0-0-3", Some("west")), ("shop-10-0-0-1", Some("east"))]);
        keeper.take(Ok(Answer { endpoints: endpoints[1..2].to_vec(), ..Answer::default() }));
        assert_eq!(keeper.error(), Some("0 backends, minBackends is 1 (1 are not selected)"));
    }

    #[test]
    fn what_the_source_does_not_say_comes_from_the_template() {
        let mut keeper = keeper(|source| {
            source.template.weight = 5;
            source.template.port = Some(90);
        });
        let address = backend_address("10.0.0.1:80").unwrap();
        let said = Endpoint { weight: Some(9), ..Endpoint::at(address.clone()) };
        keeper.take(Ok(Answer { endpoints: vec![said], ..Answer::default() }));
        let only = &keeper.backends()[0];
        assert_eq!((only.weight, only.address.port), (9, Some(90)));
    }
}
