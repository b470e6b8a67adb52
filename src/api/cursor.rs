//! Opaque cursors of list pages: where the next page begins.

use super::problem::{Code, Problem};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The first byte of every cursor; another layout gets another number, and old cursors are then refused.
const VERSION: u8 = 1;

/// Longest id in a cursor, bytes; ours have 31 at most.
const MAX_ID: usize = 64;

/// The last row of a page: pages go by time and, within the same millisecond, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Milliseconds since 1970.
    pub millis: i64,
    /// The id of the row.
    pub id: String,
}

impl Cursor {
    /// The cursor as text: base64url of a version byte, the time, and the id.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.millis.to_be_bytes());
        bytes.extend(self.id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// `invalid_cursor` for anything else. The id is not checked: it is compared, never followed.
    pub fn decode(text: &str) -> Result<Self, Problem> {
        Self::read(text).ok_or_else(|| {
            Problem::new(Code::InvalidCursor)
                .detail("take the cursor from next_cursor of the page before, unchanged")
                .field("cursor", "is not a cursor of this server")
        })
    }

    fn read(text: &str) -> Option<Self> {
        if text.len() > 2 * (MAX_ID + 9) {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (&VERSION, rest) = bytes.split_first()? else { return None };
        let (millis, id) = rest.split_first_chunk::<8>()?;
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let id = String::from_utf8(id.to_vec()).ok()?;
        let fits = (1..=MAX_ID).contains(&id.len()) && id.bytes().all(known);
        fits.then(|| Self { millis: i64::from_be_bytes(*millis), id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_cursor_is_refused() {
        let good = Cursor { millis: -5, id: "job_1".into() }.encode();
        let version_two = URL_SAFE_NO_PAD.encode([2, 0, 0, 0, 0, 0, 0, 0, 0, b'a']);
        let no_id = URL_SAFE_NO_PAD.encode([1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let quote = URL_SAFE_NO_PAD.encode([1, 0, 0, 0, 0, 0, 0, 0, 0, b'\'']);
        for wrong in ["", "!", &good[1..], &format!("{good}="), &version_two, &no_id, &quote, &"A".repeat(10_000)] {
            assert!(Cursor::decode(wrong).is_err_and(|problem| problem.code() == Code::InvalidCursor), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(millis: i64, id in "[a-zA-Z0-9_]{1,64}") {
            let cursor = Cursor { millis, id };
            prop_assert_eq!(Cursor::decode(&cursor.encode()).ok(), Some(cursor));
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = Cursor::decode(&text);
        }
    }
}
