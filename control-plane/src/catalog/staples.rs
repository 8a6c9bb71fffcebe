//! What OCSP responders say of certificates: it goes along with them to nodes, without a revision.

use std::{collections::BTreeMap, sync::Arc};

use awe4lb_model::{
    Certificate, Name,
    placed::{NodeConfig, Staple},
};
use sha2::{Digest as _, Sha256};

use super::{Catalog, Head, Kind, Model, entry::Noun};

/// By the name that a certificate has on nodes. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staples(Arc<BTreeMap<Name, ([u8; 32], Staple)>>);

impl Staples {
    /// Each with the certificate that it is of.
    pub fn of<'a>(all: impl IntoIterator<Item = (&'a Certificate, Staple)>) -> Self {
        let one = |(of, staple): (&Certificate, Staple)| (of.name.clone(), (identity(of), staple));
        Self(Arc::new(all.into_iter().map(one).collect()))
    }

    /// Puts each to its certificate, if that is still the one that it is of.
    pub(super) fn attach(&self, config: &mut NodeConfig) {
        if self.0.is_empty() {
            return;
        }
        for placed in &mut config.certificates {
            let known = self.0.get(&placed.certificate.name);
            let fits = known.filter(|(of, _)| *of == identity(&placed.certificate));
            placed.ocsp = fits.map(|(_, staple)| staple.clone());
        }
    }
}

fn identity(certificate: &Certificate) -> [u8; 32] {
    Sha256::digest(certificate.chain_pem.as_bytes()).into()
}

impl Model {
    /// The object that a certificate on nodes comes from.
    pub fn holder_of(&self, placed: &Name) -> Option<&str> {
        let is_it = |name: &str, noun: &Noun| match noun {
            Noun::Issued(issued) => issued.placed_names().contains(placed),
            _ => name == placed.as_str(),
        };
        if let Some((name, entry)) = self.objects.get(&Kind::Certificate)?.get_key_value(placed.as_str())
            && is_it(name, &entry.noun)
        {
            return Some(name);
        }
        self.all(Kind::Certificate).find(|(name, entry)| is_it(name, &entry.noun)).map(|(name, _)| name)
    }
}

impl Catalog {
    /// From now on these, and no others, go along with certificates. Those of certificates that are replaced meanwhile do not
    /// count. They stay through writes, until this is called again.
    pub async fn staple(&self, staples: Staples) {
        let _writing = self.next_number.lock().await;
        let head = self.head();
        if head.model.staples == staples {
            return;
        }
        let model = Model { staples, ..Model::clone(&head.model) };
        let placed = model.placed();
        // Of certificates that no longer are: nothing that nodes see.
        let placed = if placed == *head.placed { head.placed.clone() } else { Arc::new(placed) };
        self.head.send_replace(Arc::new(Head {
            lineage: head.lineage.clone(),
            revision: head.revision,
            placed,
            model: Arc::new(model),
        }));
    }
}
