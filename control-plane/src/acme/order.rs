//! One order, from the wish to the chain (RFC 8555 section 7.4). What has to be known to go on after a restart is stored before
//! the step that needs it, so that an order that is on its way is taken up again and not placed twice.

use std::{sync::Arc, time::Duration};

use awe4lb_discovery::Allowed;
use awe4lb_engine::renewal;
use awe4lb_model::{
    acme::{AcmeAccount, AcmeCertificate, AcmeChallenge, KeyType, Secret},
    placed::PrivateKeyPem,
};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error, Identifier,
    NewOrder, Order, OrderStatus,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::{
    account::{Accounts, Open, key_of},
    authority::AuthorityClient,
    dns::{Record, Zone},
    failure::Failure,
    presenter::{self, Presented, Question},
    verify,
};
use crate::{
    catalog::{Catalog, Chain, InstallError},
    fleet::Fleet,
    internal_ca,
    store::{Store, acme::StoredOrder},
};

/// An authority has so long for each of its parts: to validate, to issue.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Between two looks, at first and later.
const LOOKS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// With a clock that differs by more, nothing is ordered.
const MOST_SKEW: i64 = 3_600;
/// Orders are counted over so many seconds.
const BUDGET_SPAN: i64 = 3 * 3_600;
/// Nothing failed: there is no room for another order yet.
pub const BUDGET: &str = "budget";

/// What orders need.
pub struct Clerk {
    /// Where orders are kept.
    pub store: Store,
    /// Where chains go.
    pub catalog: Catalog,
    /// Who answers the authority.
    pub fleet: Fleet,
    /// With whom.
    pub accounts: Accounts,
    /// What hooks may use.
    pub allowed: Arc<Allowed>,
}

/// What is to be ordered.
pub struct Job {
    /// The wish.
    pub wanted: Arc<AcmeCertificate>,
    /// Of its hook.
    pub secret: Option<Secret>,
    /// By whom.
    pub account: AcmeAccount,
    /// Of its external binding.
    pub account_secret: Option<Secret>,
    /// One of the wished ones.
    pub key_type: KeyType,
    /// What serves, if it is what is wished.
    pub current: Option<Chain>,
    /// With which this began: the listener that is asked may be new in it.
    pub revision: u64,
    /// Called with what is being done.
    pub tell: Box<dyn Fn(&str) + Send + Sync>,
}

/// Of a chain: by which authority and profile it was issued, and for which names.
pub fn source_of(account: &AcmeAccount, wanted: &AcmeCertificate) -> String {
    let mut domains: Vec<&str> = wanted.domains.iter().map(AsRef::as_ref).collect();
    domains.sort_unstable();
    let profile = wanted.profile.as_deref().unwrap_or("-");
    format!("{} {profile} {}", account.directory, domains.join(","))
}

/// Why an attempt ended, and whether its order lives on.
enum Ended {
    /// The order is no good any more.
    Dead(Failure),
    /// It may be taken up again.
    Later(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Later(failure)
    }
}

impl Job {
    /// What was ordered, to be compared with what is wished after a restart.
    fn wish(&self) -> String {
        serde_json::json!({
            "source": source_of(&self.account, &self.wanted),
            "account": key_of(&self.account).external_key_id,
            "challenges": self.wanted.challenges.iter().map(|one| one.word()).collect::<Vec<_>>(),
        })
        .to_string()
    }

    fn name(&self) -> &str {
        self.wanted.name.as_str()
    }
}

impl Clerk {
    /// Orders a certificate and puts it in its place, or goes on with the order that is on its way.
    pub async fn run(&self, job: &Job) -> Result<Chain, Failure> {
        let Open { account, client } = self.accounts.open(&job.account, job.account_secret.as_ref()).await?;
        let mut stored = self.stored(job).await?;
        let mut kind = stored.as_ref().map_or(0, |order| order.challenge as usize);
        loop {
            let ended = match self.attempt(job, &account, &client, kind, stored.take()).await {
                Ok(chain) => return Ok(chain),
                Err(ended) => ended,
            };
            let failure = match ended {
                Ended::Later(failure) => return Err(self.known(job, failure).await),
                Ended::Dead(failure) => failure,
            };
            self.abandon(job).await?;
            kind += 1;
            match job.wanted.challenges.get(kind) {
                Some(next) if failure.is_of_challenge() => {
                    tracing::warn!(
                        certificate = job.name(),
                        detail = failure.detail,
                        "trying {} next",
                        next.word()
                    );
                }
                _ => return Err(self.known(job, failure).await),
            }
        }
    }

    /// An account that the authority has forgotten is registered anew the next time.
    async fn known(&self, job: &Job, failure: Failure) -> Failure {
        if *failure.r#type == *"urn:ietf:params:acme:error:accountDoesNotExist"
            && let Err(worse) = self.accounts.forget(&job.account).await
        {
            return worse;
        }
        failure
    }

    /// The order that is on its way, if it is for what is wished now.
    async fn stored(&self, job: &Job) -> Result<Option<StoredOrder>, Failure> {
        let stored = self.store.acme_order(job.name(), job.key_type).await.map_err(Failure::storage)?;
        match stored {
            Some(stored) if stored.wanted != job.wish() => {
                self.abandon(job).await?;
                Ok(None)
            }
            stored => Ok(stored),
        }
    }

    /// Forgets an order, after what it put into a zone is out again.
    pub async fn abandon(&self, job: &Job) -> Result<(), Failure> {
        let stored = self.store.acme_order(job.name(), job.key_type).await.map_err(Failure::storage)?;
        let Some(stored) = stored else { return Ok(()) };
        self.clean_up(job, &read_records(&stored.presented)).await;
        self.store.forget_acme_order(job.name(), job.key_type).await.map_err(Failure::storage)
    }

    async fn attempt(
        &self,
        job: &Job,
        account: &Account,
        client: &AuthorityClient,
        kind: usize,
        stored: Option<StoredOrder>,
    ) -> Result<Chain, Ended> {
        let fail = |error: &Error| Failure::of_error(error, client.take_retry_after());
        let kind = job.wanted.challenges.get(kind).copied().unwrap_or(AcmeChallenge::Http01);
        let (mut order, mut stored) = match stored {
            Some(stored) => {
                (job.tell)("the order is taken up again");
                let order = account.order(stored.url.clone()).await.map_err(|error| match error {
                    // The authority has forgotten it.
                    Error::Api(_) => Ended::Dead(fail(&error)),
                    _ => Ended::Later(fail(&error)),
                })?;
                (order, stored)
            }
            None => self.place(job, account, client, kind).await?,
        };
        let deadline = Instant::now() + PATIENCE;
        let mut pause = LOOKS.0;
        let mut is_finalized = false;
        loop {
            match order.state().status {
                OrderStatus::Pending => {
                    self.authorize(job, &mut order, client, kind, &mut stored).await?;
                    continue;
                }
                OrderStatus::Ready if !is_finalized => {
                    (job.tell)("the authority makes the certificate");
                    let request = request(&job.wanted, &stored.key)
                        .map_err(|error| Ended::Dead(Failure::new("key", error.to_string(), "")))?;
                    order.finalize_csr(&request).await.map_err(|error| match &error {
                        Error::Api(_) => Ended::Dead(fail(&error)),
                        _ => Ended::Later(fail(&error)),
                    })?;
                    is_finalized = true;
                    continue;
                }
                OrderStatus::Valid => {
                    let pem = order.certificate().await.map_err(|error| Ended::Later(fail(&error)))?;
                    if let Some(pem) = pem {
                        return self.install(job, pem, &stored).await;
                    }
                }
                OrderStatus::Invalid => {
                    let failure = match &order.state().error {
                        Some(problem) => Failure::of_problem(problem),
                        None => Failure::new("invalid", "the authority calls the order invalid", ""),
                    };
                    return Err(Ended::Dead(failure));
                }
                OrderStatus::Ready | OrderStatus::Processing => {}
            }
            if Instant::now() > deadline {
                return Err(Ended::Later(fail(&Error::Timeout(None))));
            }
            sleep(client.take_poll_after().unwrap_or(pause).max(pause)).await;
            pause = (pause * 2).min(LOOKS.1);
            order.refresh().await.map_err(|error| Ended::Later(fail(&error)))?;
        }
    }

    /// Whether the authority takes one more order.
    async fn check_budget(&self, job: &Job) -> Result<(), Failure> {
        let now = jiff::Timestamp::now().as_second();
        let placed = self.store.acme_placed(&key_of(&job.account), now - BUDGET_SPAN).await;
        let most = job.account.orders_per_hour as usize * (BUDGET_SPAN / 3_600) as usize;
        let at = renewal::budget(&placed.map_err(Failure::storage)?, most, BUDGET_SPAN, now);
        if at <= now {
            return Ok(());
        }
        let detail =
            format!("{most} orders were placed within three hours, which is what the authority takes");
        let hint =
            "it is ordered when there is room; \"ordersPerHour\" of the account says how much there is";
        Err(Failure { not_sooner: at, ..Failure::new(BUDGET, detail, hint) })
    }

    /// A new order. It is counted before it is placed, and stored before anything else.
    async fn place(
        &self,
        job: &Job,
        account: &Account,
        client: &AuthorityClient,
        kind: AcmeChallenge,
    ) -> Result<(Order, StoredOrder), Ended> {
        let fail = |error: &Error| Ended::Later(Failure::of_error(error, client.take_retry_after()));
        let skew = client.skew();
        if skew.abs() > MOST_SKEW {
            let detail = format!("the authority's clock and the one here differ by {} min", skew / 60);
            return Err(Failure::new(
                "clock",
                detail,
                "set the clock of the control plane: nothing is ordered before",
            )
            .into());
        }
        if let Some(wanted) = &job.wanted.profile {
            let known: Vec<String> = account.profiles().map(|profile| profile.name.to_owned()).collect();
            if !known.iter().any(|name| **name == **wanted) {
                let detail = format!("the authority has no profile {wanted:?}; it has: {}", known.join(", "));
                return Err(Failure::new("profile", detail, "choose one of them, or none").into());
            }
        }
        (job.tell)("a certificate is ordered");
        let key_type = job.key_type;
        let key = tokio::task::spawn_blocking(move || {
            internal_ca::generate(key_type).map(|key| Zeroizing::new(key.serialize_pem()))
        })
        .await
        .map_err(|error| error.to_string())
        .and_then(|made| made.map_err(|error| error.to_string()))
        .map_err(|error| Failure::new("key", error, ""))?;
        self.check_budget(job).await?;
        let now = jiff::Timestamp::now().as_second();
        self.store
            .note_acme_placed(&key_of(&job.account), job.name(), now)
            .await
            .map_err(Failure::storage)?;
        let identifiers: Vec<Identifier> =
            job.wanted.domains.iter().map(|domain| Identifier::Dns(domain.to_string())).collect();
        let mut new = NewOrder::new(&identifiers);
        if let Some(profile) = &job.wanted.profile {
            new = new.profile(profile);
        }
        let replaced = job.current.as_ref().and_then(|chain| identifier_of(&chain.chain_pem));
        let replacing = match &replaced {
            Some(replaced) => {
                let mut again = NewOrder::new(&identifiers).replaces(replaced.clone());
                if let Some(profile) = &job.wanted.profile {
                    again = again.profile(profile);
                }
                Some(account.new_order(&again).await)
            }
            None => None,
        };
        let order = match replacing {
            Some(Ok(order)) => order,
            // It knows no renewal information, or somebody replaced that one already: a plain order does.
            Some(Err(Error::Unsupported(_))) | None => {
                account.new_order(&new).await.map_err(|error| fail(&error))?
            }
            Some(Err(Error::Api(problem))) if is_about_replacing(&problem) => {
                account.new_order(&new).await.map_err(|error| fail(&error))?
            }
            Some(Err(error)) => return Err(fail(&error)),
        };
        let stored = StoredOrder {
            wanted: job.wish(),
            url: order.url().to_owned(),
            key,
            challenge: job.wanted.challenges.iter().position(|one| *one == kind).unwrap_or(0) as u32,
            presented: "[]".to_owned(),
        };
        self.store.put_acme_order(job.name(), job.key_type, &stored).await.map_err(Failure::storage)?;
        Ok((order, stored))
    }

    /// Convinces the authority of every name.
    async fn authorize(
        &self,
        job: &Job,
        order: &mut Order,
        client: &AuthorityClient,
        kind: AcmeChallenge,
        stored: &mut StoredOrder,
    ) -> Result<(), Ended> {
        let fail = |error: &Error| Ended::Later(Failure::of_error(error, client.take_retry_after()));
        let questions = questions(order, kind, fail).await?;
        let zone = job.wanted.dns.as_ref().filter(|_| kind == AcmeChallenge::Dns01);
        let zone = zone.map(|dns| Zone { dns, secret: job.secret.as_ref(), allowed: &self.allowed });
        let presented = match &zone {
            Some(zone) => {
                (job.tell)("records are put into the zone");
                let presented = Presented::in_zone(presenter::records(zone, &questions).await);
                // Whoever ends now knows afterwards what to take out again.
                stored.presented = serde_json::to_string(&presented.records).unwrap_or_default();
                self.store
                    .put_acme_order(job.name(), job.key_type, stored)
                    .await
                    .map_err(Failure::storage)?;
                for record in &presented.records {
                    zone.present(record).await.map_err(of_zone)?;
                }
                (job.tell)("name servers are asked whether the records are there");
                zone.wait_until_seen(&presented.records).await.map_err(of_zone)?;
                presented
            }
            None => {
                (job.tell)("the nodes confirm the challenge");
                presenter::at_nodes(&self.fleet, kind, &questions, job.revision).await?
            }
        };
        (job.tell)("the authority asks");
        let outcome = validate(order, client, kind).await;
        presented.take_back(&self.fleet);
        if matches!(outcome, Ok(()) | Err(Ended::Dead(_))) && !presented.records.is_empty() {
            self.clean_up(job, &presented.records).await;
            stored.presented = "[]".to_owned();
            self.store.put_acme_order(job.name(), job.key_type, stored).await.map_err(Failure::storage)?;
        }
        outcome.map_err(|ended| match ended {
            Ended::Dead(failure) => {
                Ended::Dead(Failure { nodes: presented.unconfirmed.clone().into(), ..failure })
            }
            later @ Ended::Later(_) => later,
        })
    }

    /// Takes out of the zone what an order has left there that was given up.
    pub async fn take_out(
        &self,
        name: &str,
        key_type: KeyType,
        wanted: &AcmeCertificate,
        secret: Option<&Secret>,
    ) {
        let (Some(dns), Ok(Some(stored))) = (&wanted.dns, self.store.acme_order(name, key_type).await) else {
            return;
        };
        let zone = Zone { dns, secret, allowed: &self.allowed };
        for record in read_records(&stored.presented) {
            if let Err(failure) = zone.cleanup(&record).await {
                tracing::warn!(certificate = name, record = record.name, detail = %failure.detail, "a record stays in the zone");
            }
        }
    }

    async fn clean_up(&self, job: &Job, records: &[Record]) {
        let Some(dns) = &job.wanted.dns else { return };
        let zone = Zone { dns, secret: job.secret.as_ref(), allowed: &self.allowed };
        for record in records {
            if let Err(failure) = zone.cleanup(record).await {
                tracing::warn!(
                    certificate = job.name(),
                    record = record.name,
                    detail = failure.detail,
                    "a record stays in the zone"
                );
            }
        }
    }

    /// Verified, stored, and on its way to the nodes.
    async fn install(&self, job: &Job, pem: String, stored: &StoredOrder) -> Result<Chain, Ended> {
        (job.tell)("the nodes get the certificate");
        let now = jiff::Timestamp::now().as_second();
        let key = PrivateKeyPem(stored.key.to_string());
        let source = source_of(&job.account, &job.wanted);
        let chain = verify::accept(pem, key, &job.wanted, job.key_type, source, job.current.as_ref(), now)
            .map_err(Ended::Dead)?;
        self.catalog.install(&job.wanted, chain.clone()).await.map_err(|error| match error {
            InstallError::Storage(error) => Ended::Later(Failure::storage(error)),
            InstallError::Changed => {
                Ended::Dead(Failure::new("changed", error.to_string(), "it is ordered as it is wished now"))
            }
            InstallError::Unfit(detail) => Ended::Dead(Failure::new("bad-chain", detail, "")),
        })?;
        self.store.forget_acme_order(job.name(), job.key_type).await.map_err(Failure::storage)?;
        Ok(chain)
    }
}

/// What is wrong with a zone may be right with another kind of challenge.
fn of_zone(failure: Failure) -> Ended {
    let failure = Failure { challenge: Some(AcmeChallenge::Dns01.word().into()), ..failure };
    Ended::Dead(failure)
}

fn wire_kind(kind: AcmeChallenge) -> ChallengeType {
    match kind {
        AcmeChallenge::Http01 => ChallengeType::Http01,
        AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        AcmeChallenge::Dns01 => ChallengeType::Dns01,
    }
}

/// What the authority asks of names that it is not convinced of yet.
async fn questions(
    order: &mut Order,
    kind: AcmeChallenge,
    fail: impl Fn(&Error) -> Ended,
) -> Result<Vec<Question>, Ended> {
    let mut questions = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut authorization = next.map_err(|error| fail(&error))?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let domain = match authorization.identifier().identifier {
            Identifier::Dns(name) => name.clone(),
            other => format!("{other:?}"),
        };
        let offered =
            format!("{:?}", authorization.challenges.iter().map(|one| &one.r#type).collect::<Vec<_>>());
        let Some(challenge) = authorization.challenge(wire_kind(kind)) else {
            let detail =
                format!("the authority does not offer {} for {domain}; it offers {offered}", kind.word());
            let failure = Failure::new("not-offered", detail, "name another kind of challenge");
            return Err(Ended::Dead(failure.of(&domain, kind.word())));
        };
        let answer = challenge.key_authorization();
        questions.push(Question {
            domain,
            token: challenge.token.clone(),
            key_authorization: answer.as_str().to_owned(),
            digest: answer.digest().as_ref().to_vec(),
            dns_value: answer.dns_value(),
        });
    }
    Ok(questions)
}

/// Lets the authority ask, and waits for what it says.
async fn validate(order: &mut Order, client: &AuthorityClient, kind: AcmeChallenge) -> Result<(), Ended> {
    let fail = |error: &Error| Ended::Later(Failure::of_error(error, client.take_retry_after()));
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut authorization = next.map_err(|error| fail(&error))?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let Some(mut challenge) = authorization.challenge(wire_kind(kind)) else { continue };
        // An order that is taken up again may have been told already.
        if challenge.status == ChallengeStatus::Pending
            && let Err(error) = challenge.set_ready().await
        {
            match &error {
                // It answers with the error of the challenge: told below, with the name.
                Error::Api(_) => {}
                _ => return Err(fail(&error)),
            }
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let mut pause = LOOKS.0;
    loop {
        sleep(client.take_poll_after().unwrap_or(pause).max(pause)).await;
        pause = (pause * 2).min(LOOKS.1);
        order.refresh().await.map_err(|error| fail(&error))?;
        match order.state().status {
            OrderStatus::Pending if Instant::now() < deadline => {
                // Some authorities tell of a failed name before they call the order invalid.
                if let Some(failure) = refused(order).await.map_err(|error| fail(&error))? {
                    return Err(Ended::Dead(failure));
                }
            }
            OrderStatus::Pending => return Err(fail(&Error::Timeout(None))),
            OrderStatus::Invalid => {
                let failure = refused(order).await.map_err(|error| fail(&error))?;
                let failure = failure.unwrap_or_else(|| match &order.state().error {
                    Some(problem) => Failure::of_problem(problem),
                    None => Failure::new("invalid", "the authority calls the order invalid", ""),
                });
                return Err(Ended::Dead(failure));
            }
            OrderStatus::Ready | OrderStatus::Processing | OrderStatus::Valid => return Ok(()),
        }
    }
}

/// The first name that the authority was not convinced of, in its words.
async fn refused(order: &mut Order) -> Result<Option<Failure>, Error> {
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut authorization = next?;
        authorization.refresh().await?;
        if matches!(authorization.status, AuthorizationStatus::Pending | AuthorizationStatus::Valid) {
            continue;
        }
        let domain = match authorization.identifier().identifier {
            Identifier::Dns(name) => name.clone(),
            other => format!("{other:?}"),
        };
        for challenge in &authorization.challenges {
            let Some(problem) = &challenge.error else { continue };
            let kind = match &challenge.r#type {
                ChallengeType::Http01 => "http-01",
                ChallengeType::TlsAlpn01 => "tls-alpn-01",
                ChallengeType::Dns01 => "dns-01",
                _ => "another",
            };
            return Ok(Some(Failure::of_problem(problem).of(&domain, kind)));
        }
        let detail = format!("the authorisation of {domain} is {:?}", authorization.status);
        return Ok(Some(Failure::new("invalid", detail, "it is ordered anew")));
    }
    Ok(None)
}

/// What the authority is to sign: the names and nothing else.
fn request(wanted: &AcmeCertificate, key: &str) -> Result<Vec<u8>, rcgen::Error> {
    let names: Vec<String> = wanted.domains.iter().map(|domain| domain.to_string()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&KeyPair::from_pem(key)?)?.der().to_vec())
}

/// What an authority calls a certificate of its own (RFC 9773 4.1).
pub fn identifier_of(chain_pem: &str) -> Option<CertificateIdentifier<'static>> {
    let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes()).ok()?;
    CertificateIdentifier::try_from(&leaf).ok().map(CertificateIdentifier::into_owned)
}

fn is_about_replacing(problem: &instant_acme::Problem) -> bool {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let says = problem.detail.as_deref().unwrap_or_default();
    kind.ends_with(":alreadyReplaced") || (kind.ends_with(":malformed") && says.contains("replace"))
}

fn read_records(presented: &str) -> Vec<Record> {
    serde_json::from_str(presented).unwrap_or_default()
}
