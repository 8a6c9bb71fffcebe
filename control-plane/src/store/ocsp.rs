//! What OCSP responders said last.

use std::collections::HashMap;

use super::Store;

impl Store {
    /// The answers that are not older than `now` (unix seconds), by fingerprint. Older ones are forgotten.
    pub async fn ocsp_answers(&self, now: i64) -> sqlx::Result<HashMap<String, Vec<u8>>> {
        sqlx::query("DELETE FROM ocsp_answers WHERE until <= ?").bind(now).execute(self.writer()).await?;
        let rows = sqlx::query_as::<_, (String, Vec<u8>)>("SELECT fingerprint, answer FROM ocsp_answers")
            .fetch_all(self.writer())
            .await?;
        Ok(rows.into_iter().collect())
    }

    /// Stores an answer in place of the one before.
    pub async fn write_ocsp_answer(&self, fingerprint: &str, answer: &[u8], until: i64) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO ocsp_answers (fingerprint, answer, until) VALUES (?1, ?2, ?3) \
             ON CONFLICT (fingerprint) DO UPDATE SET answer = ?2, until = ?3",
        )
        .bind(fingerprint)
        .bind(answer)
        .bind(until)
        .execute(self.writer())
        .await?;
        Ok(())
    }
}
