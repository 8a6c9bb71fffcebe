//! Labels and expressions over them, in the grammar that Kubernetes has for its selectors:
//! `zone in (a, b), !canary, tier=web`.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// Free words about something: key and value.
pub type Labels = BTreeMap<String, String>;

/// The labels that say in which part of the world something is: ours, and that of Kubernetes.
const ZONE: [&str; 2] = ["zone", "topology.kubernetes.io/zone"];

/// Where something is, by its labels.
pub fn zone(labels: &Labels) -> Option<&str> {
    ZONE.into_iter().find_map(|key| labels.get(key)).map(String::as_str).filter(|zone| !zone.is_empty())
}

/// The most conditions of one expression.
const MAX_CONDITIONS: usize = 64;

/// An expression over labels: every condition has to hold. Printed as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct LabelSelector {
    text: Box<str>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    key: Box<str>,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    There,
    NotThere,
    In(Vec<Box<str>>),
    /// Also where the label is not there, as with Kubernetes.
    NotIn(Vec<Box<str>>),
}

/// Why a text is no [`LabelSelector`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelSelectorError {
    /// Nothing, or a comma with nothing beside it.
    #[error("a condition is missing: write tier=web, zone in (a, b), !canary")]
    Empty,
    /// Too many.
    #[error("at most {MAX_CONDITIONS} conditions")]
    TooMany,
    /// This part is none.
    #[error(
        "{0:?} is no condition: write tier=web, tier!=web, zone in (a, b), zone notin (a), canary or !canary"
    )]
    Malformed(String),
}

impl LabelSelector {
    /// Whether all conditions hold.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.conditions.iter().all(|condition| {
            let value = labels.get(&*condition.key);
            let is_one =
                |values: &[Box<str>]| value.is_some_and(|value| values.iter().any(|one| **one == **value));
            match &condition.test {
                Test::There => value.is_some(),
                Test::NotThere => value.is_none(),
                Test::In(values) => is_one(values),
                Test::NotIn(values) => !is_one(values),
            }
        })
    }
}

impl FromStr for LabelSelector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, LabelSelectorError> {
        let conditions: Vec<Condition> = parts(text).into_iter().map(condition).collect::<Result<_, _>>()?;
        if conditions.len() > MAX_CONDITIONS {
            return Err(LabelSelectorError::TooMany);
        }
        Ok(Self { text: text.into(), conditions })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

/// Split at the commas that stand outside of parentheses.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut is_within) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' => is_within = true,
            ')' => is_within = false,
            ',' if !is_within => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn condition(text: &str) -> Result<Condition, LabelSelectorError> {
    let text = text.trim();
    let malformed = || LabelSelectorError::Malformed(text.to_owned());
    let made = |key: &str, test| {
        let key = word(key).filter(|key| !key.is_empty()).ok_or_else(malformed)?;
        Ok(Condition { key: key.into(), test })
    };
    if text.is_empty() {
        return Err(LabelSelectorError::Empty);
    }
    if let Some(key) = text.strip_prefix('!') {
        return made(key, Test::NotThere);
    }
    if let Some((key, value)) = text.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        let values = vec![word(value).ok_or_else(malformed)?.into()];
        return match key.strip_suffix('!') {
            Some(key) => made(key, Test::NotIn(values)),
            None => made(key, Test::In(values)),
        };
    }
    let Some((key, rest)) = text.split_once(char::is_whitespace) else {
        return made(text, Test::There);
    };
    let rest = rest.trim();
    let (is_in, list) = match (rest.strip_prefix("in"), rest.strip_prefix("notin")) {
        (_, Some(list)) => (false, list),
        (Some(list), None) => (true, list),
        (None, None) => return Err(malformed()),
    };
    let list =
        list.trim_start().strip_prefix('(').and_then(|list| list.strip_suffix(')')).ok_or_else(malformed)?;
    let values: Option<Vec<Box<str>>> = list.split(',').map(|value| word(value).map(Into::into)).collect();
    let values =
        values.filter(|values| values.iter().any(|value| !value.is_empty())).ok_or_else(malformed)?;
    made(key, if is_in { Test::In(values) } else { Test::NotIn(values) })
}

/// A key or a value: no character that means something else here.
fn word(text: &str) -> Option<&str> {
    let text = text.trim();
    let is_taken = |c: char| c.is_whitespace() || c.is_control() || "()=!,".contains(c);
    (!text.contains(is_taken) && text.len() <= 255).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        selector.parse::<LabelSelector>().unwrap_or_else(|why| panic!("{selector}: {why}")).matches(&labels)
    }

    #[test]
    fn every_condition_has_to_hold() {
        let web = [("zone", "a"), ("tier", "web"), ("app.kubernetes.io/name", "shop")];
        for yes in [
            "tier=web",
            "tier==web",
            "tier = web , zone",
            "zone in (a, b), !canary, tier=web",
            "zone in(a)",
            "canary notin (yes)",
            "canary!=yes",
            "tier != db",
            "app.kubernetes.io/name=shop",
            "zone notin (b,c)",
        ] {
            assert!(fits(yes, &web), "{yes}");
        }
        for no in
            ["tier=db", "zone in (b, c)", "!zone", "canary", "zone notin (a)", "tier!=web", "tier=web,canary"]
        {
            assert!(!fits(no, &web), "{no}");
        }
        assert!(fits("empty=", &[("empty", "")]));
    }

    #[test]
    fn what_is_no_expression_says_so() {
        for bad in [
            "",
            ",",
            "a,",
            "zone in",
            "zone in a",
            "zone in ()",
            "zone on (a)",
            "a b",
            "=a",
            "!",
            "a=b=c",
            "a=(b)",
            "((a",
        ] {
            assert!(bad.parse::<LabelSelector>().is_err(), "{bad}");
        }
        let many = vec!["a"; 65].join(",");
        assert_eq!(many.parse::<LabelSelector>(), Err(LabelSelectorError::TooMany));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-c=!,() int]{0,30}") {
            let _ = text.parse::<LabelSelector>();
        }
    }
}
