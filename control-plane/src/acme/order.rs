//! One order, from the wish to the chain (RFC 8555 section 7.4). What has to be known to go on after a restart is stored before
//! the step that needs it, so that an order that is on its way is taken up again and not placed twice.

use std::{sync::Arc, time::Duration};

use awe4lb_discovery::Allowed;
use awe4lb_model::{
    acme::{AcmeAccount, AcmeCertificate, AcmeChallenge, KeyType, Secret},
    placed::PrivateKeyPem,
};
use instant_acme::{Account, Error, OrderStatus};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::{Instant, sleep};

use super::{
    account::{Accounts, Open, key_of},
    authority::AuthorityClient,
    dns::{Record, Zone},
    failure::{Failure, is_final},
    verify,
};
use crate::{
    catalog::{Catalog, Chain, InstallError},
    fleet::Fleet,
    store::{Store, acme::StoredOrder},
};

/// An authority has so long for each of its parts: to validate, to issue.
pub(super) const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Between two looks, at first and later.
pub(super) const LOOKS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// So often an order goes on at once after the library has given up on nonces, which it tries three times itself.
const MOST_NONCES: u32 = 10;

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
pub(super) enum Ended {
    /// The order is no good any more.
    Dead(Failure),
    /// It may be taken up again.
    Later(Failure),
    /// The authority knows nothing of it any more.
    Forgotten,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Later(failure)
    }
}

impl Job {
    /// What was ordered, to be compared with what is wished after a restart.
    pub(super) fn wish(&self) -> String {
        serde_json::json!({
            "source": source_of(&self.account, &self.wanted),
            "account": key_of(&self.account).external_key_id,
            "challenges": self.wanted.challenges.iter().map(|one| one.word()).collect::<Vec<_>>(),
        })
        .to_string()
    }

    pub(super) fn name(&self) -> &str {
        self.wanted.name.as_str()
    }
}

impl Clerk {
    /// Orders a certificate and puts it in its place, or goes on with the order that is on its way.
    pub async fn run(&self, job: &Job) -> Result<Chain, Failure> {
        let mut nonces = 0;
        let Open { account, client } = loop {
            match self.accounts.open(&job.account, job.account_secret.as_ref()).await {
                Err(failure) if is_about_nonces(&failure) && nonces < MOST_NONCES => nonces += 1,
                opened => break opened?,
            }
        };
        let mut stored = self.stored(job).await?;
        let mut kind = stored.as_ref().map_or(0, |order| order.challenge as usize);
        loop {
            let ended = match self.attempt(job, &account, &client, kind, stored.take()).await {
                Ok(chain) => return Ok(chain),
                Err(ended) => ended,
            };
            let failure = match ended {
                Ended::Later(failure) if is_about_nonces(&failure) && nonces < MOST_NONCES => {
                    nonces += 1;
                    stored = self.stored(job).await?;
                    continue;
                }
                Ended::Later(failure) => return Err(self.known(job, failure).await),
                Ended::Dead(failure) => failure,
                Ended::Forgotten => {
                    self.abandon(job).await?;
                    continue;
                }
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
                    Error::Api(ref problem) if is_final(problem) => Ended::Forgotten,
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
                        Error::Api(problem) if is_final(problem) => Ended::Dead(fail(&error)),
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

    pub(super) async fn clean_up(&self, job: &Job, records: &[Record]) {
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

/// Nothing failed but the order of two messages (RFC 8555 6.5).
fn is_about_nonces(failure: &Failure) -> bool {
    failure.r#type.ends_with(":badNonce")
}

/// What the authority is to sign: the names and nothing else.
fn request(wanted: &AcmeCertificate, key: &str) -> Result<Vec<u8>, rcgen::Error> {
    let names: Vec<String> = wanted.domains.iter().map(|domain| domain.to_string()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&KeyPair::from_pem(key)?)?.der().to_vec())
}

fn read_records(presented: &str) -> Vec<Record> {
    serde_json::from_str(presented).unwrap_or_default()
}
