//! API keys: how they are made and recognized.
//!
//! A key is `ade_PREFIX_SECRET`. The prefix finds it in the database and is shown to people; the whole key is known to its
//! owner only. The secret has 160 random bits, so that one plain SHA-256 at rest is enough: there is nothing to guess.

use sha2::{Digest, Sha256};

/// Where the first admin's key is, inside of the data directory; readable by the owner only.
pub const ADMIN_KEY_FILE: &str = "admin-key";

const SCHEME: &str = "ade_";
const PREFIX_LEN: usize = 10;
const SECRET_LEN: usize = 32;
/// Crockford's base 32 in lower case: five bits a letter, none that looks like another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A new key.
#[derive(Clone)]
pub struct NewSecret {
    /// The whole key; shown once.
    pub key: String,
    /// Its prefix.
    pub prefix: String,
    /// What is stored of it.
    pub sha256: String,
}

impl std::fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSecret").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Makes a key.
///
/// # Errors
/// When the system gives no random bytes.
pub fn generate() -> Result<NewSecret, getrandom::Error> {
    let mut random = [0_u8; PREFIX_LEN + SECRET_LEN];
    getrandom::fill(&mut random)?;
    let letters: String = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect();
    let (prefix, secret) = letters.split_at(PREFIX_LEN);
    let key = format!("{SCHEME}{prefix}_{secret}");
    Ok(NewSecret { sha256: hash(&key), prefix: prefix.to_owned(), key })
}

/// The prefix of a text that has the form of a key.
#[must_use]
pub fn prefix(key: &str) -> Option<&str> {
    let (prefix, secret) = key.strip_prefix(SCHEME)?.split_once('_')?;
    let letters = |text: &str| text.bytes().all(|byte| ALPHABET.contains(&byte));
    (prefix.len() == PREFIX_LEN && secret.len() == SECRET_LEN && letters(prefix) && letters(secret)).then_some(prefix)
}

/// What is stored of a key, lower-case hex.
#[must_use]
pub fn hash(key: &str) -> String {
    format!("{:x}", Sha256::digest(key.as_bytes()))
}

/// Whether a key is the one whose hash is stored. The comparison does not stop at the first difference; it is of hashes, which
/// a caller cannot steer anyway.
#[must_use]
pub fn matches(key: &str, stored: &str) -> bool {
    let asked = hash(key);
    asked.len() == stored.len() && asked.bytes().zip(stored.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_prefix_and_known_by_its_hash() {
        let new = generate().unwrap();
        assert_eq!(prefix(&new.key), Some(new.prefix.as_str()));
        assert!(matches(&new.key, &new.sha256));
        let other = generate().unwrap();
        assert!(!matches(&other.key, &new.sha256));
        assert!(!format!("{new:?}").contains(&new.key));
    }

    #[test]
    fn what_is_no_key_has_no_prefix() {
        for text in ["", "ade_", "ade__", "ade_0123456789_", "ade_012345678U_00000000000000000000000000000000", "x"] {
            assert_eq!(prefix(text), None, "{text}");
        }
    }
}
