//! Names of files that come from callers, and how they go back: sanitized on the way in, encoded on the way out.

use super::problem::{Code, Problem};
use axum::http::HeaderValue;
use std::fmt::Write;

/// Longest name of an uploaded file, characters.
pub const MAX_NAME: usize = 255;

/// A file name as it is stored: the last part of what the caller sent, for browsers and scripts that send whole paths.
///
/// # Errors
/// `invalid_parameter` when nothing is left, when it is `.` or `..`, has control characters or such as reorder text, or
/// is longer than [`MAX_NAME`].
pub fn file_name(sent: &str) -> Result<String, Problem> {
    let name = sent.rsplit(['/', '\\']).next().unwrap_or_default().trim();
    let refused = |why: &str| Err(Problem::new(Code::InvalidParameter).detail(why).field("filename", why));
    if name.is_empty() || name == "." || name == ".." {
        return refused("a file needs a name");
    }
    if name.chars().count() > MAX_NAME {
        return refused("a file name has at most 255 characters");
    }
    if crate::text::plain(name, MAX_NAME) != name {
        return refused("a file name has no control characters and none that reorder text");
    }
    Ok(name.to_owned())
}

/// The value of `Content-Disposition` for a download (RFC 6266): a plain ASCII name for old clients and the whole name as
/// `filename*` (RFC 8187). No name can add to the header: what is not a plain character is encoded.
#[must_use]
pub fn attachment(name: &str) -> HeaderValue {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    let name = if name.trim_matches(['.', ' ']).is_empty() { "download" } else { &name };
    // Quotes, backslashes and percent signs mean something to one client or another, even inside of quotes.
    let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\' | '%' | ';');
    let ascii: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let text = format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{}", percent(name));
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

/// Percent-encodes all but the `attr-char` of RFC 8187, 3.2.1.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_part_of_a_path_is_the_name() {
        for (sent, name) in
            [("a.xlsx", "a.xlsx"), ("/etc/passwd", "passwd"), ("C:\\x\\Größe 1.csv", "Größe 1.csv"), ("../..b", "..b")]
        {
            assert_eq!(file_name(sent).unwrap(), name);
        }
        for sent in ["", " ", ".", "..", "a/", "a/..", "a\0b", "a\nb", "a\u{202e}b", &"ä".repeat(256)] {
            assert!(file_name(sent).is_err(), "{sent:?}");
        }
        assert!(file_name(&"ä".repeat(255)).is_ok());
    }

    #[test]
    fn a_name_is_given_twice_and_cannot_leave_its_quotes() {
        assert_eq!(attachment("a b.csv"), "attachment; filename=\"a b.csv\"; filename*=UTF-8''a%20b.csv");
        assert_eq!(
            attachment("x/ä\"\r\nSet-Cookie: a=b;.csv"),
            "attachment; filename=\"__Set-Cookie: a=b_.csv\"; filename*=UTF-8''%C3%A4%22Set-Cookie%3A%20a%3Db%3B.csv"
        );
        assert_eq!(attachment(".."), "attachment; filename=\"download\"; filename*=UTF-8''download");
    }

    proptest! {
        #[test]
        fn every_name_gives_a_header(name in ".{0,300}") {
            let value = attachment(&name);
            let text = value.to_str().unwrap();
            prop_assert_eq!(text.matches('"').count(), 2);
            prop_assert!(text.starts_with("attachment; filename=\""));
        }
    }
}
