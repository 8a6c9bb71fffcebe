//! Puts the answers to an authority's questions where it will ask: before all nodes, or into a zone. And takes them back.

use std::time::{Duration, SystemTime};

use awe4lb_model::acme::AcmeChallenge;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use tokio::time::{Instant, sleep};

use super::{
    dns::{Record, Zone},
    failure::Failure,
};
use crate::fleet::{Challenge, ChallengeKind, Fleet};

/// Nodes have so long to confirm that they hold a challenge.
const CONFIRM: Duration = Duration::from_secs(15);
/// Between two looks at what nodes run.
const LOOK: Duration = Duration::from_millis(50);
/// Nodes forget a challenge by themselves after this.
const LIFE: Duration = Duration::from_secs(15 * 60);

/// One question of an authority.
#[derive(Debug, Clone)]
pub struct Question {
    /// The domain, without `*.`.
    pub domain: String,
    /// Of the challenge, base64url.
    pub token: String,
    /// What is answered (RFC 8555 8.1).
    pub key_authorization: String,
    /// Its SHA-256.
    pub digest: Vec<u8>,
    /// The digest in base64url, as in a zone.
    pub dns_value: String,
}

/// Answers that were put somewhere.
#[derive(Debug, Default)]
pub struct Presented {
    /// At the nodes.
    ids: Vec<String>,
    /// In the zone.
    pub records: Vec<Record>,
    /// Nodes that did not confirm.
    pub unconfirmed: Vec<String>,
}

/// Before all nodes. Returns when each that could be asked has confirmed and listens as this revision says, or the deadline is
/// over.
pub async fn at_nodes(
    fleet: &Fleet,
    kind: AcmeChallenge,
    questions: &[Question],
    revision: u64,
) -> Result<Presented, Failure> {
    let mut challenges = Vec::new();
    for question in questions {
        challenges.push(challenge(kind, question)?);
    }
    let ids = challenges.iter().map(|challenge| challenge.id.clone()).collect();
    let version = fleet.add_challenges(challenges);
    let deadline = Instant::now() + CONFIRM;
    let mut unconfirmed = fleet.challenges_confirmed(version, CONFIRM).await.err().unwrap_or_default();
    for node in behind(fleet, revision, deadline).await {
        if !unconfirmed.contains(&node) {
            unconfirmed.push(node);
        }
    }
    let presented = Presented { ids, records: Vec::new(), unconfirmed };
    if !fleet.nodes().iter().any(|node| node.state == "connected") {
        presented.take_back(fleet);
        return Err(Failure::new(
            "no-node",
            "no node is connected that could answer the authority",
            "the authority is not asked before one is: start a node",
        ));
    }
    Ok(presented)
}

/// Waits for nodes that do not run a revision yet: the listener that is asked may be new. Those that do not in the end, or will
/// not.
async fn behind(fleet: &Fleet, revision: u64, deadline: Instant) -> Vec<String> {
    // Before, they are in sync with the revision before.
    let is_planned = tokio::time::timeout_at(deadline, fleet.planned(revision)).await.is_ok();
    loop {
        let nodes = fleet.nodes();
        let behind = nodes.iter().filter(|node| {
            let runs = node.running.as_ref().and_then(|running| running.revision);
            // A revision that changes nothing on nodes is not told to them.
            node.state == "connected" && !(is_planned && node.in_sync) && runs < Some(revision)
        });
        let is_hopeless = behind.clone().all(|node| node.rejection.is_some());
        if is_hopeless || Instant::now() >= deadline {
            return behind.map(|node| node.name.clone()).collect();
        }
        sleep(LOOK).await;
    }
}

impl Presented {
    /// In a zone.
    pub fn in_zone(records: Vec<Record>) -> Self {
        Self { records, ..Self::default() }
    }

    /// What is at the nodes.
    pub fn take_back(&self, fleet: &Fleet) {
        if !self.ids.is_empty() {
            fleet.remove_challenges(&self.ids);
        }
    }
}

/// The records of a zone, one for each question.
pub async fn records(zone: &Zone<'_>, questions: &[Question]) -> Vec<Record> {
    let mut records = Vec::new();
    for question in questions {
        let name = zone.name_of(&question.domain).await;
        records.push(Record { name, value: question.dns_value.clone() });
    }
    records
}

fn challenge(kind: AcmeChallenge, question: &Question) -> Result<Challenge, Failure> {
    let host = question.domain.clone();
    let of_kind = match kind {
        AcmeChallenge::TlsAlpn01 => {
            let (chain_der, key_der) = alpn_certificate(&host, &question.digest)
                .map_err(|error| Failure::new("key", error.to_string(), ""))?;
            ChallengeKind::TlsAlpn01 { host, chain_der, key_der }
        }
        AcmeChallenge::Http01 | AcmeChallenge::Dns01 => ChallengeKind::Http01 {
            host,
            token: question.token.clone(),
            key_authorization: question.key_authorization.clone(),
        },
    };
    Ok(Challenge { id: question.token.clone(), kind: of_kind, expires_at: SystemTime::now() + LIFE })
}

/// RFC 8737 section 3: for the name alone, with the hash of the answer in a critical extension.
fn alpn_certificate(host: &str, digest: &[u8]) -> Result<(Vec<Vec<u8>>, Vec<u8>), rcgen::Error> {
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((vec![certificate.der().to_vec()], key.serialize_der()))
}
