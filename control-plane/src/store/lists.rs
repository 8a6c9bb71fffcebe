//! Entries of address lists: one row a list, as it is now.

use awe4lb_model::AddressList;
use awe4lb_proto::v1;
use prost::Message as _;
use sqlx::{Row as _, Sqlite, Transaction};

use super::Store;

/// The stored entries of a list, and how often they changed.
#[derive(Debug)]
pub struct StoredList {
    /// The list with its entries.
    pub list: AddressList,
    /// Goes up with every change.
    pub edition: u64,
}

impl Store {
    /// The entries of a list, also of one that was deleted.
    pub async fn list_entries(&self, name: &str) -> sqlx::Result<Option<StoredList>> {
        let row = sqlx::query("SELECT edition, entries FROM address_list_entries WHERE list = ?")
            .bind(name)
            .fetch_optional(self.writer())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let wrong = |what: String| sqlx::Error::Decode(format!("entries of {name:?}: {what}").into());
        let bytes: &[u8] = row.try_get("entries")?;
        let wire = v1::AddressList::decode(bytes).map_err(|error| wrong(error.to_string()))?;
        let list = AddressList::try_from(wire).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(StoredList { list, edition: row.try_get::<i64, _>("edition")?.unsigned_abs() }))
    }
}

/// Stores the entries of a list in place of those that are there.
pub async fn write_list_entries(
    tx: &mut Transaction<'_, Sqlite>,
    list: &AddressList,
    edition: u64,
    now: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO address_list_entries (list, edition, updated_at, entries) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (list) DO UPDATE SET edition = ?2, updated_at = ?3, entries = ?4",
    )
    .bind(list.name.as_str())
    .bind(i64::try_from(edition).unwrap_or(i64::MAX))
    .bind(now)
    .bind(v1::AddressList::from(list).encode_to_vec())
    .execute(&mut **tx)
    .await?;
    Ok(())
}
