//! Places orders: within what the authority takes, with a clock that can be right, and counted before they are placed.

use awe4lb_engine::renewal;
use awe4lb_model::acme::AcmeChallenge;
use instant_acme::{Account, CertificateIdentifier, Error, Identifier, NewOrder, Order};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::{
    account::key_of,
    authority::AuthorityClient,
    failure::Failure,
    order::{Clerk, Ended, Job},
};
use crate::{internal_ca, store::acme::StoredOrder};

/// With a clock that differs by more, nothing is ordered.
const MOST_SKEW: i64 = 3_600;
/// Orders are counted over so many seconds.
const BUDGET_SPAN: i64 = 3 * 3_600;
/// Nothing failed: there is no room for another order yet.
pub const BUDGET: &str = "budget";

impl Clerk {
    /// Counts an order, if the authority takes one more.
    async fn count(&self, job: &Job) -> Result<(), Failure> {
        let now = jiff::Timestamp::now().as_second();
        let most = job.account.orders_per_hour as usize * (BUDGET_SPAN / 3_600) as usize;
        let mut at = now;
        let may = |placed: &[i64]| {
            at = renewal::budget(placed, most, BUDGET_SPAN, now);
            at <= now
        };
        let (of, span) = (key_of(&job.account), (now - BUDGET_SPAN, now));
        if self.store.note_acme_placed(&of, job.name(), span, may).await.map_err(Failure::storage)? {
            return Ok(());
        }
        let detail =
            format!("{most} orders were placed within three hours, which is what the authority takes");
        let hint =
            "it is ordered when there is room; \"ordersPerHour\" of the account says how much there is";
        Err(Failure { not_sooner: at, ..Failure::new(BUDGET, detail, hint) })
    }

    /// A new order. It is counted before it is placed, and stored before anything else.
    pub(super) async fn place(
        &self,
        job: &Job,
        account: &Account,
        client: &AuthorityClient,
        kind: AcmeChallenge,
    ) -> Result<(Order, StoredOrder), Ended> {
        let fail = |error: &Error| Ended::Later(Failure::of_error(error, client.take_retry_after()));
        let skew = client.skew();
        if skew.abs() > MOST_SKEW {
            // The next attempt asks what time it is.
            self.accounts.close(&job.account).await;
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
        self.count(job).await?;
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
