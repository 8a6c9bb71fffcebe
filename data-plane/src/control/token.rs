//! Join tokens as the node sees them: `awj_<cluster>_<CA hash hex>_<secret>`.

/// A join token, taken apart. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The cluster it was made in.
    pub cluster: String,
    /// SHA-256 of the DER of the cluster's CA certificate.
    pub ca_hash: [u8; 32],
    text: String,
}

impl JoinToken {
    /// Takes a token apart. The errors name what is wrong, never the secret.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix("awj_").ok_or("it does not start with awj_")?;
        let mut parts = rest.splitn(3, '_');
        let (Some(cluster), Some(hash), Some(secret)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("it does not have the form awj_CLUSTER_HASH_SECRET");
        };
        if cluster.is_empty() || secret.is_empty() {
            return Err("it does not have the form awj_CLUSTER_HASH_SECRET");
        }
        let mut ca_hash = [0; 32];
        hex::decode_to_slice(hash, &mut ca_hash).map_err(|_| "its CA hash is not 64 hex digits")?;
        Ok(Self { cluster: cluster.to_owned(), ca_hash, text: text.to_owned() })
    }

    /// The whole token, to be sent over a connection that was checked.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinToken({}, …)", self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_token_apart() {
        let text = format!("awj_c1_{}_s3cret_with_underscores", "ab".repeat(32));
        let token = JoinToken::parse(&text).unwrap();
        assert_eq!((token.cluster.as_str(), token.ca_hash), ("c1", [0xab; 32]));
        assert_eq!(token.expose(), text);
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn says_what_is_wrong() {
        for bad in ["", "awj_", "awl_c_00_s", "awj_c_zz_s", "awj_c_00_s", "awj__00_"] {
            assert!(JoinToken::parse(bad).is_err(), "{bad:?}");
        }
    }
}
