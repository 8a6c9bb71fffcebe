//! Convinces an authority that names are ours (RFC 8555 section 7.5): its questions, their answers where it will ask, and what it says
//! then.

use awe4lb_model::acme::AcmeChallenge;
use instant_acme::{
    AuthorizationStatus, ChallengeStatus, ChallengeType, Error, Identifier, Order, OrderStatus,
};
use tokio::time::{Instant, sleep};

use super::{
    authority::AuthorityClient,
    dns::Zone,
    failure::{Failure, is_final},
    order::{Clerk, Ended, Job, LOOKS, PATIENCE},
    presenter::{self, Presented, Question},
};
use crate::store::acme::StoredOrder;

impl Clerk {
    /// Convinces the authority of every name.
    pub(super) async fn authorize(
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
            other => other,
        })
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
                Error::Api(problem) if is_final(problem) => {}
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
