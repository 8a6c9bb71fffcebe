//! One backend a line. The grammars of awe4lb's ancestor (`host port [weight priority]`) and of gobetween
//! (`host:port [weight=1] [priority=1]`), both in one; `#` begins a comment. Or an expression for each line.

use regex::Regex;

use super::{joined, port, share};
use crate::{Answer, Endpoint, Failure};

/// Groups of an expression that say what a backend is.
const OWN: [&str; 4] = ["host", "port", "weight", "priority"];
/// Longer lines are told shortened.
const TOLD: usize = 60;

pub(super) fn read(text: &str, pattern: Option<&str>) -> Result<Answer, Failure> {
    let pattern = pattern.map(Regex::new).transpose();
    let pattern = pattern.map_err(|error| Failure::new(format!("the expression: {error}")))?;
    let mut answer = Answer::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.split_once('#').map_or(line, |(before, _)| before).trim();
        if line.is_empty() {
            continue;
        }
        let read = match &pattern {
            Some(pattern) => matched(line, pattern),
            None => words(line).map(Some),
        };
        match read {
            Ok(Some(endpoint)) => answer.endpoints.push(endpoint),
            // What an expression does not match is not meant.
            Ok(None) => {}
            Err(why) => {
                let shown: String = line.chars().take(TOLD).collect();
                answer.rejected.push(format!("line {} ({shown:?}): {why}", index + 1));
            }
        }
    }
    Ok(answer)
}

fn words(line: &str) -> Result<Endpoint, String> {
    let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    let host = words.next().ok_or("nothing")?;
    let mut endpoint = Endpoint::at(joined(host, None)?);
    let mut has_port = endpoint.address.port.is_some();
    let mut bare = 0;
    for word in words {
        match word.split_once('=') {
            Some(("weight", value)) => endpoint.weight = Some(share(value)?),
            Some(("priority", value)) => endpoint.priority = Some(share(value)?),
            Some(("maxConnections" | "max_connections", value)) => {
                let number = value.parse().map_err(|_| format!("{value:?} is no number"))?;
                endpoint.max_connections = Some(number).filter(|number| *number > 0);
            }
            Some((key @ ("zone" | "sni"), value)) => endpoint = endpoint.label(key, value),
            Some((other, value)) => match other.strip_prefix("label.") {
                Some(key) if !key.is_empty() => endpoint = endpoint.label(key, value),
                _ => return Err(format!("{other:?} is not known")),
            },
            None if !has_port => {
                endpoint.address.port = Some(port(word)?);
                has_port = true;
            }
            None if bare == 0 => {
                endpoint.weight = Some(share(word)?);
                bare = 1;
            }
            None if bare == 1 => {
                endpoint.priority = Some(share(word)?);
                bare = 2;
            }
            None => return Err(format!("{word:?} has no place")),
        }
    }
    Ok(endpoint)
}

fn matched(line: &str, pattern: &Regex) -> Result<Option<Endpoint>, String> {
    let Some(captures) = pattern.captures(line) else { return Ok(None) };
    let group = |name| captures.name(name).map(|found| found.as_str());
    let host = group("host").ok_or("the group host is empty")?;
    let mut endpoint = Endpoint::at(joined(host, group("port").map(port).transpose()?)?);
    endpoint.weight = group("weight").map(share).transpose()?;
    endpoint.priority = group("priority").map(share).transpose()?;
    // Other groups are labels by their names.
    let others = pattern.capture_names().flatten().filter(|name| !OWN.contains(name));
    for name in others {
        if let Some(value) = group(name) {
            endpoint = endpoint.label(name, value);
        }
    }
    Ok(Some(endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> (String, Option<u32>, Option<u32>) {
        let endpoint = words(line).unwrap_or_else(|why| panic!("{line}: {why}"));
        (endpoint.address.to_string(), endpoint.weight, endpoint.priority)
    }

    #[test]
    fn both_grammars() {
        assert_eq!(one("10.0.0.1 80"), ("10.0.0.1:80".into(), None, None));
        assert_eq!(one("10.0.0.1 80 5 2"), ("10.0.0.1:80".into(), Some(5), Some(2)));
        assert_eq!(one("10.0.0.1:80"), ("10.0.0.1:80".into(), None, None));
        assert_eq!(one("app.internal:80 priority=1 weight=7"), ("app.internal:80".into(), Some(7), Some(1)));
        assert_eq!(one("::1 80"), ("[::1]:80".into(), None, None));
        assert_eq!(one("[::1]:80 sni=a.b"), ("[::1]:80".into(), None, None));
        assert_eq!(one("10.0.0.1"), ("10.0.0.1".into(), None, None));
    }

    #[test]
    fn words_and_groups_are_labels() {
        let endpoint = words("10.0.0.1:80 zone=east label.tier=web sni=a.b weight=2").unwrap();
        let labels: Vec<_> = endpoint.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!((labels.join(" ").as_str(), endpoint.weight), ("sni=a.b tier=web zone=east", Some(2)));
        assert!(words("10.0.0.1:80 wieght=2").is_err() && words("10.0.0.1:80 label.=2").is_err());
        let read = read("east 10.0.0.1", Some(r"^(?<zone>\w+) (?<host>.+)$")).unwrap();
        assert_eq!(read.endpoints[0].labels["zone"], "east");
    }

    #[test]
    fn a_malformed_line_is_told_and_the_others_count() {
        let text = "# all of them\n10.0.0.1 80\n\n10.0.0.2 99999\nbad host!\n10.0.0.3:80 weight=many\n10.0.0.4 80 # new\n";
        let answer = read(text, None).unwrap();
        assert_eq!(answer.endpoints.len(), 2);
        assert_eq!(answer.rejected.len(), 3, "{:?}", answer.rejected);
        assert!(answer.rejected[0].starts_with("line 4 (\"10.0.0.2 99999\")"));
    }

    #[test]
    fn an_expression_takes_what_it_matches() {
        let text = "server app1 10.0.0.1:80 check weight 3\nmode tcp\nserver app2 10.0.0.2:81\n";
        let pattern = r"^server \S+ (?<host>[^:]+):(?<port>\d+)(.*weight (?<weight>\d+))?";
        let answer = read(text, Some(pattern)).unwrap();
        let found: Vec<_> =
            answer.endpoints.iter().map(|one| (one.address.to_string(), one.weight)).collect();
        assert_eq!(found, [("10.0.0.1:80".to_owned(), Some(3)), ("10.0.0.2:81".to_owned(), None)]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}", pattern in "[(?<host>).*\\[\\]a-z:]{0,20}") {
            let _ = read(&text, None);
            let _ = read(&text, Some(&pattern));
        }
    }
}
