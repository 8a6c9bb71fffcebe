//! Challenges of certificate authorities as they come over the stream: put together from their parts, checked, given to
//! the data path. Nothing of them is stored: they are of minutes, and keys are among them.

use std::time::Duration;

use awe4lb_engine::{challenge::MAX_TOKEN_BYTES, client_hello::ServerName};
use awe4lb_proto::v1;

use super::hot::{Challenge, ChallengeKind};

/// Live challenges at a time: twice as many as any control plane sends.
const MAX_CHALLENGES: usize = 8_192;
/// The longest time that is taken seriously.
const MAX_LASTS: Duration = Duration::from_secs(86_400);
/// Of what is answered for a token: the token and a hash.
const MAX_ANSWER_BYTES: usize = 1024;

/// A version that came only in part so far.
#[derive(Default)]
pub struct Challenges {
    open: Option<v1::Challenges>,
}

/// A whole version.
pub struct Whole {
    /// To be confirmed.
    pub version: u64,
    /// All that are live, but those that cannot be.
    pub challenges: Vec<Challenge>,
    /// What is wrong with others.
    pub refused: Vec<String>,
}

impl Challenges {
    /// Another connection: what came only in part is sent again.
    pub fn reconnected(&mut self) {
        self.open = None;
    }

    /// Takes a message; gives the version that is whole with it. Parts come in order, and a newer version may begin before
    /// an older one has ended.
    pub fn take(&mut self, message: v1::Challenges) -> Option<Whole> {
        let v1::Challenges { version, part, parts, challenges } = message;
        if part == 0 {
            self.open = Some(v1::Challenges { version, part, parts, challenges });
        } else {
            let open = self.open.as_mut().filter(|open| {
                let is_next = open.part.checked_add(1) == Some(part) && part < open.parts;
                let fits = open.challenges.len() + challenges.len() <= MAX_CHALLENGES;
                (open.version, open.parts) == (version, parts) && is_next && fits
            });
            let Some(open) = open else {
                tracing::warn!(version, part, parts, "challenges whose other parts did not come");
                self.open = None;
                return None;
            };
            open.part = part;
            open.challenges.extend(challenges);
        }
        let whole = self.open.take_if(|open| open.part + 1 >= open.parts)?;
        let (mut challenges, mut refused) = (Vec::new(), Vec::new());
        for challenge in whole.challenges {
            match checked(challenge) {
                Ok(challenge) => challenges.push(challenge),
                Err(why) => refused.push(why),
            }
        }
        Some(Whole { version, challenges, refused })
    }
}

fn checked(wire: v1::Challenge) -> Result<Challenge, String> {
    let id: String = wire.id.chars().take(100).collect();
    let refuse = |why: &str| format!("{id}: {why}");
    let kind = match wire.kind {
        Some(v1::challenge::Kind::Http01(v1::Http01 { token, key_authorization, .. })) => {
            let of_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if !(1..=MAX_TOKEN_BYTES).contains(&token.len()) || !token.bytes().all(of_token) {
                return Err(refuse("the token is none"));
            }
            if key_authorization.len() > MAX_ANSWER_BYTES {
                return Err(refuse("the answer is too long"));
            }
            ChallengeKind::Http01 { token, key_authorization }
        }
        Some(v1::challenge::Kind::TlsAlpn01(v1::TlsAlpn01 { host, chain_der, key_der })) => {
            let host = ServerName::new(host.as_bytes()).ok_or_else(|| refuse("the name is none"))?;
            ChallengeKind::TlsAlpn01 {
                host: host.as_str().to_owned(),
                chain_der: chain_der.iter().map(|der| der.to_vec()).collect(),
                key_der: key_der.to_vec(),
            }
        }
        None => return Err(refuse("a kind that this version does not know")),
    };
    Ok(Challenge { kind, lasts: Duration::from_millis(wire.lasts_ms).min(MAX_LASTS) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http01(id: &str, token: &str) -> v1::Challenge {
        let kind =
            v1::Http01 { host: "a.test".into(), token: token.into(), key_authorization: "answer".into() };
        v1::Challenge { id: id.into(), lasts_ms: 60_000, kind: Some(v1::challenge::Kind::Http01(kind)) }
    }

    fn message(version: u64, part: u32, parts: u32, token: &str) -> v1::Challenges {
        v1::Challenges { version, part, parts, challenges: vec![http01(token, token)] }
    }

    #[test]
    fn a_version_is_whole_with_its_last_part() {
        let mut challenges = Challenges::default();
        assert!(challenges.take(message(3, 0, 3, "a")).is_none());
        assert!(challenges.take(message(3, 1, 3, "b")).is_none());
        let whole = challenges.take(message(3, 2, 3, "c")).unwrap();
        assert_eq!((whole.version, whole.challenges.len()), (3, 3));
    }

    #[test]
    fn a_newer_version_takes_the_place_of_an_older_one_that_is_not_whole() {
        let mut challenges = Challenges::default();
        assert!(challenges.take(message(3, 0, 2, "a")).is_none());
        assert_eq!(challenges.take(message(4, 0, 1, "b")).unwrap().version, 4);
        assert!(challenges.take(message(3, 1, 2, "c")).is_none());
    }

    #[test]
    fn parts_out_of_order_are_no_version() {
        let mut challenges = Challenges::default();
        assert!(challenges.take(message(1, 0, 3, "a")).is_none());
        assert!(challenges.take(message(1, 2, 3, "c")).is_none());
        assert!(challenges.take(message(1, 1, 3, "b")).is_none());
        assert!(challenges.take(message(1, 0, 0, "a")).is_some(), "one message says it all");
    }

    #[test]
    fn what_cannot_be_is_named_and_the_rest_is_held() {
        let mut wrong = vec![http01("good", "abc"), http01("bad-token", "a/b"), http01("empty", "")];
        wrong.push(v1::Challenge { id: "kind".into(), lasts_ms: 1, kind: None });
        let all = v1::Challenges { version: 1, part: 0, parts: 1, challenges: wrong };
        let whole = Challenges::default().take(all).unwrap();
        assert_eq!(whole.challenges.len(), 1);
        let ids: Vec<_> = whole.refused.iter().map(|why| why.split(':').next().unwrap()).collect();
        assert_eq!(ids, ["bad-token", "empty", "kind"]);
    }
}
