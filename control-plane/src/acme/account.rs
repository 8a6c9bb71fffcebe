//! Accounts with certificate authorities: made when they are first needed, kept sealed, told of new contacts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use awe4lb_discovery::Allowed;
use awe4lb_model::acme::{AcmeAccount, Secret};
use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use instant_acme::{Account, ExternalAccountKey, Key, NewAccount};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{authority::AuthorityClient, failure::Failure};
use crate::store::{
    Store,
    acme::{AccountKey, StoredAccount},
};

/// What a directory says is believed for so long.
const REFRESH: Duration = Duration::from_secs(3_600);

/// Padding or not: authorities write both.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An account that can be used now.
#[derive(Clone)]
pub struct Open {
    /// To order with.
    pub account: Account,
    /// The way to its authority.
    pub client: AuthorityClient,
}

struct Live {
    spec: AcmeAccount,
    secret: Option<Secret>,
    since: Instant,
    open: Open,
}

type Slot = Arc<tokio::sync::Mutex<Option<Live>>>;

/// All accounts. Each is opened by one at a time.
pub struct Accounts {
    store: Store,
    allowed: Arc<Allowed>,
    slots: Mutex<HashMap<AccountKey, Slot>>,
}

/// By what it is stored.
pub fn key_of(spec: &AcmeAccount) -> AccountKey {
    AccountKey {
        name: spec.name.to_string(),
        directory: spec.directory.to_string(),
        external_key_id: spec.external_key_id.as_deref().unwrap_or_default().to_owned(),
    }
}

impl Accounts {
    /// None is opened yet.
    pub fn new(store: Store, allowed: Arc<Allowed>) -> Self {
        Self { store, allowed, slots: Mutex::default() }
    }

    fn slot(&self, of: &AccountKey) -> Slot {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(of.clone()).or_default().clone()
    }

    /// The account, registered where it is not yet.
    pub async fn open(&self, spec: &AcmeAccount, secret: Option<&Secret>) -> Result<Open, Failure> {
        let of = key_of(spec);
        let slot = self.slot(&of);
        let mut slot = slot.lock().await;
        if let Some(live) = &*slot
            && live.spec == *spec
            && live.secret.as_ref() == secret
            && live.since.elapsed() < REFRESH
        {
            return Ok(live.open.clone());
        }
        let client = AuthorityClient::new(spec, &self.allowed)?;
        let account = self.restore_or_register(spec, secret, &of, &client).await?;
        let open = Open { account, client };
        *slot = Some(Live {
            spec: spec.clone(),
            secret: secret.cloned(),
            since: Instant::now(),
            open: open.clone(),
        });
        Ok(open)
    }

    /// The terms of its authority, where it was opened lately.
    pub async fn terms(&self, spec: &AcmeAccount) -> Option<String> {
        let slot = self.slot(&key_of(spec));
        // Whoever opens it may wait for the authority: nobody waits for that.
        let slot = slot.try_lock().ok()?;
        slot.as_ref()?.open.client.terms()
    }

    async fn restore_or_register(
        &self,
        spec: &AcmeAccount,
        secret: Option<&Secret>,
        of: &AccountKey,
        client: &AuthorityClient,
    ) -> Result<Account, Failure> {
        let fail = |error: &instant_acme::Error| Failure::of_error(error, client.take_retry_after());
        let stored = self.store.acme_account(of).await.map_err(Failure::storage)?;
        let contact = serde_json::to_string(&spec.contact).unwrap_or_default();
        let contacts: Vec<&str> = spec.contact.iter().map(AsRef::as_ref).collect();
        let builder = || Account::builder_with_http(Box::new(client.clone()));
        let directory = spec.directory.to_string();

        if let Some(known) = stored.as_ref().filter(|known| !known.url.is_empty()) {
            let key = PrivatePkcs8KeyDer::from(known.key.as_slice());
            let account = builder()
                .from_parts(known.url.clone(), key, directory)
                .await
                .map_err(|error| fail(&error))?;
            if known.contact != contact {
                account.update_contacts(&contacts).await.map_err(|error| fail(&error))?;
                let told = StoredAccount { contact, url: known.url.clone(), key: known.key.clone() };
                self.store.put_acme_account(of, &told).await.map_err(Failure::storage)?;
            }
            return Ok(account);
        }

        let (account, credentials) = match binding(spec, secret)? {
            Some(binding) => {
                let new = NewAccount {
                    contact: &contacts,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                builder().create(&new, directory, Some(&binding)).await.map_err(|error| fail(&error))?
            }
            None => {
                // The key is stored before the authority hears of it: whoever ends in between finds the account again.
                let key = match stored {
                    Some(known) => known.key,
                    None => self.new_key(of).await?,
                };
                let pkcs8 = PrivatePkcs8KeyDer::from(key.to_vec());
                let signing = Key::from_pkcs8_der(pkcs8.clone_key()).map_err(|error| fail(&error))?;
                let pair = (signing, PrivateKeyDer::Pkcs8(pkcs8));
                let made = builder().create_from_key(pair, directory).await.map_err(|error| fail(&error))?;
                if !contacts.is_empty() {
                    made.0.update_contacts(&contacts).await.map_err(|error| fail(&error))?;
                }
                made
            }
        };
        let made = StoredAccount {
            url: account.id().to_owned(),
            contact,
            key: Zeroizing::new(credentials.private_key().secret_pkcs8_der().to_vec()),
        };
        self.store.put_acme_account(of, &made).await.map_err(Failure::storage)?;
        tracing::info!(
            account = of.name,
            directory = of.directory,
            url = made.url,
            "registered with an authority"
        );
        Ok(account)
    }

    async fn new_key(&self, of: &AccountKey) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let crypto = |error: instant_acme::Error| Failure::new("key", error.to_string(), "");
        let (_, pkcs8) = Key::generate_pkcs8().map_err(crypto)?;
        let key = Zeroizing::new(pkcs8.secret_pkcs8_der().to_vec());
        let begun = StoredAccount { url: String::new(), contact: String::new(), key: key.clone() };
        self.store.put_acme_account(of, &begun).await.map_err(Failure::storage)?;
        Ok(key)
    }

    /// It is opened anew the next time: what was heard of the authority is heard again.
    pub async fn close(&self, spec: &AcmeAccount) {
        *self.slot(&key_of(spec)).lock().await = None;
    }

    /// The authority does not know it any more: the next one registers anew, with the same key.
    pub async fn forget(&self, spec: &AcmeAccount) -> Result<(), Failure> {
        let of = key_of(spec);
        self.close(spec).await;
        if let Some(known) = self.store.acme_account(&of).await.map_err(Failure::storage)? {
            let unknown = StoredAccount { url: String::new(), ..known };
            self.store.put_acme_account(&of, &unknown).await.map_err(Failure::storage)?;
        }
        Ok(())
    }

    /// Gives the account another key.
    pub async fn roll_over(&self, spec: &AcmeAccount, secret: Option<&Secret>) -> Result<(), Failure> {
        let of = key_of(spec);
        let Open { mut account, client } = self.open(spec, secret).await?;
        let slot = self.slot(&of);
        // Nobody uses the old key meanwhile to open it.
        let mut slot = slot.lock().await;
        let known = self.store.acme_account(&of).await.map_err(Failure::storage)?;
        let credentials = account
            .update_key()
            .await
            .map_err(|error| Failure::of_error(&error, client.take_retry_after()))?;
        let rolled = StoredAccount {
            url: account.id().to_owned(),
            contact: known.map(|known| known.contact).unwrap_or_default(),
            key: Zeroizing::new(credentials.private_key().secret_pkcs8_der().to_vec()),
        };
        self.store.put_acme_account(&of, &rolled).await.map_err(Failure::storage)?;
        *slot = None;
        tracing::info!(account = of.name, directory = of.directory, "the account has another key");
        Ok(())
    }
}

/// How the authority knows us already (RFC 8555 7.3.4).
fn binding(spec: &AcmeAccount, secret: Option<&Secret>) -> Result<Option<ExternalAccountKey>, Failure> {
    let Some(id) = &spec.external_key_id else { return Ok(None) };
    let hint = "send externalAccountBinding.secret, base64url as the authority gave it";
    let Some(secret) = secret else {
        return Err(Failure::new("account", "the secret of the external account is not stored", hint));
    };
    let text = secret.0.replace('+', "-").replace('/', "_");
    let key = URL_SAFE
        .decode(text.trim())
        .map_err(|_| Failure::new("account", "the secret of the external account is no base64url", hint))?;
    Ok(Some(ExternalAccountKey::new(id.to_string(), &key)))
}
