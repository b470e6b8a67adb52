//! Credentials of indexes, kept out of everything that is stored or shown.

use serde_json::Value;

const HIDDEN: &str = "***";
/// Shorter secrets would be found in innocent text.
const MIN: usize = 3;

/// What must not be shown.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// The credentials in these URLs, as they are written there and as they are sent.
    pub fn of<'a>(urls: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Vec::new();
        for url in urls {
            let Some(rest) = url.split_once("://").map(|(_, rest)| rest) else { continue };
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let Some((credentials, _)) = authority.rsplit_once('@') else { continue };
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, credentials));
            // A lone user is a token; the name of a user with a password is no secret.
            let decoded = decode(credentials);
            let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &decoded);
            let lone = if password.is_empty() || user == credentials { user } else { password };
            found.extend([credentials.to_owned(), decoded, lone.to_owned(), decode(lone), basic]);
        }
        found.retain(|secret| secret.len() >= MIN);
        // The longest first: a part must not be cut out of the whole.
        found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        found.dedup();
        Self(found)
    }

    /// The text without them.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), HIDDEN))
    }

    /// The value without them, in keys and strings at any depth.
    #[must_use]
    pub fn scrub_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.scrub(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.scrub_value(item)).collect(),
            Value::Object(map) => {
                map.into_iter().map(|(key, value)| (self.scrub(&key), self.scrub_value(value))).collect()
            }
            other => other,
        }
    }
}

/// Percent-decoding (RFC 3986); what is no escape stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = bytes.get(at + 1..at + 3).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a64_credentials_go_in_every_spelling() {
        let secrets =
            Secrets::of(["https://ann:s%40crettt@index.example/simple", "https://tok_123@other.example"].into_iter());
        let text = "GET https://ann:s%40crettt@index.example: s@crettt, Basic YW5uOnNAY3JldHR0; tok_123; ann stays";
        let scrubbed = secrets.scrub(text);
        for secret in ["crettt", "YW5u", "tok_123"] {
            assert!(!scrubbed.contains(secret), "{scrubbed}");
        }
        assert!(scrubbed.ends_with("ann stays"), "{scrubbed}");
        assert_eq!(secrets.scrub_value(json!({"a": ["tok_123", 1]})), json!({"a": ["***", 1]}));
    }

    #[test]
    fn without_credentials_nothing_is_touched() {
        assert_eq!(Secrets::of(["https://pypi.org/simple"].into_iter()).scrub("pypi.org"), "pypi.org");
    }
}
