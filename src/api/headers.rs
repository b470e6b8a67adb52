//! Grammars of request headers, as pure functions: `Prefer`, entity tags, ranges.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH, RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::ops::Range;
use std::time::Duration;

/// The longest that `Prefer: wait` is honoured.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// `Prefer` and `Preference-Applied` (RFC 7240).
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Tells the caller which preference was honoured.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Tells the caller that the answer is about a job that was there before.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How long the caller would like to wait: `Prefer: wait=N` in seconds (RFC 7240, 4.3), [`MAX_WAIT`] at most. `None`
/// without one; what is badly written is ignored, as the RFC says, and the first of several counts.
#[must_use]
pub fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    for preference in headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','))
    {
        let word = preference.split(';').next().unwrap_or_default();
        let Some((name, value)) = word.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case("wait") {
            let digits = value.trim().trim_matches('"');
            let well_written = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            // Too many digits for a number are still a long wait.
            return well_written.then(|| Duration::from_secs(digits.parse().unwrap_or(u64::MAX)).min(MAX_WAIT));
        }
    }
    None
}

/// The value of `Preference-Applied` for a wait that was honoured.
#[must_use]
pub fn wait_applied(wait: Duration) -> HeaderValue {
    // Digits and letters are always allowed in a header.
    HeaderValue::from_str(&format!("wait={}", wait.as_secs())).unwrap_or_else(|_| HeaderValue::from_static("wait"))
}

/// A strong entity tag (RFC 9110, 8.8.3) around text that names a state, such as a hash or a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// A tag around `state`; characters that a tag cannot have become `_`.
    #[must_use]
    pub fn strong(state: &str) -> Self {
        let allowed = |c: char| c.is_ascii_graphic() && c != '"';
        Self(state.chars().map(|c| if allowed(c) { c } else { '_' }).collect())
    }

    /// The value of the `ETag` header.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&format!("\"{}\"", self.0)).unwrap_or_else(|_| HeaderValue::from_static("\"_\""))
    }

    /// Whether `If-None-Match` has this tag, by weak comparison, or `*` (RFC 9110, 13.1.2): the answer to a GET is then
    /// 304. False without the header.
    #[must_use]
    pub fn matched_by_if_none_match(&self, headers: &HeaderMap) -> bool {
        Tags::of(headers, &IF_NONE_MATCH).is_some_and(|tags| match tags {
            Tags::Any => true,
            Tags::These(tags) => tags.iter().any(|tag| tag.opaque == self.0),
        })
    }

    /// Whether `If-Match` allows a change of this state, by strong comparison (RFC 9110, 13.1.1): without the header,
    /// with `*`, or with this tag. Else the answer is 412. A header that cannot be read allows nothing.
    #[must_use]
    pub fn allowed_by_if_match(&self, headers: &HeaderMap) -> bool {
        Tags::of(headers, &IF_MATCH).is_none_or(|tags| match tags {
            Tags::Any => true,
            Tags::These(tags) => tags.iter().any(|tag| !tag.weak && tag.opaque == self.0),
        })
    }
}

enum Tags {
    Any,
    These(Vec<Tag>),
}

struct Tag {
    weak: bool,
    opaque: String,
}

impl Tags {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut values = headers.get_all(name).iter().peekable();
        values.peek()?;
        let mut tags = Vec::new();
        for value in values {
            let text = value.to_str().unwrap_or_default().trim();
            if text == "*" {
                return Some(Self::Any);
            }
            tags.extend(list(text));
        }
        Some(Self::These(tags))
    }
}

/// The tags of a list, up to the first that is badly written. A tag may have commas in it, so no `split(',')`.
fn list(mut text: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        let (weak, quoted) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
        let Some((opaque, rest)) = quoted.strip_prefix('"').and_then(|rest| rest.split_once('"')) else { return tags };
        tags.push(Tag { weak, opaque: opaque.to_owned() });
        text = rest;
    }
}

/// Which part of a file to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it, with 200: no range was asked for, or none that this server must honour.
    Whole,
    /// These bytes, with 206 and [`content_range`].
    Bytes(Range<u64>),
    /// None, with 416 and [`unsatisfied_range`].
    Unsatisfiable,
}

/// What `Range` asks of a file of `size` bytes (RFC 9110, 14.2): `bytes=a-b`, `a-` or `-n`. What is badly written, of
/// another unit, or has several ranges gets the whole file, as the RFC allows. Several would cost more than they give
/// here, and lists of overlapping ones are an old way to make servers work.
#[must_use]
pub fn range(headers: &HeaderMap, size: u64) -> Part {
    let mut values = headers.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Part::Whole };
    value.to_str().ok().and_then(|text| bytes_range(text, size)).unwrap_or(Part::Whole)
}

fn bytes_range(text: &str, size: u64) -> Option<Part> {
    let (unit, spec) = text.split_once('=')?;
    let (first, last) = spec.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |digits: &str| {
        let well_written = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than a number holds are past the end of any file.
        well_written.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let range = match (first, last) {
        ("", suffix) => size.saturating_sub(number(suffix)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some(if range.is_empty() { Part::Unsatisfiable } else { Part::Bytes(range) })
}

/// The value of `Content-Range` for a part of a file of `size` bytes (RFC 9110, 14.4).
#[must_use]
pub fn content_range(range: &Range<u64>, size: u64) -> HeaderValue {
    let text = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
    HeaderValue::from_str(&text).unwrap_or_else(|_| unsatisfied_range(size))
}

/// The value of `Content-Range` in a 416 answer.
#[must_use]
pub fn unsatisfied_range(size: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes */{size}")).unwrap_or_else(|_| HeaderValue::from_static("bytes */*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn prefer_wait_is_read_and_capped() {
        let wait = |values: &[&str]| prefer_wait(&headers(PREFER, values)).map(|wait| wait.as_secs());
        assert_eq!(wait(&["wait=5"]), Some(5));
        assert_eq!(wait(&["respond-async, Wait = \"10\"; x=y"]), Some(10));
        assert_eq!(wait(&["return=minimal", "wait=0"]), Some(0));
        assert_eq!(wait(&["wait=1, wait=2"]), Some(1));
        assert_eq!(wait(&["wait=99999999999999999999999"]), Some(60));
        for ignored in ["", "wait", "wait=", "wait=-1", "wait=1s", "waiting=3"] {
            assert_eq!(wait(&[ignored]), None, "{ignored}");
        }
        assert_eq!(wait_applied(Duration::from_secs(9)), "wait=9");
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let tag = ETag::strong("a,b");
        let matched = |value: &str| tag.matched_by_if_none_match(&headers(IF_NONE_MATCH, &[value]));
        assert!(!tag.matched_by_if_none_match(&HeaderMap::new()));
        for hit in ["*", "\"a,b\"", "W/\"a,b\"", "\"x\", \"a,b\"", "\"x\",,\"a,b\"", " W/\"y\" ,\t\"a,b\""] {
            assert!(matched(hit), "{hit}");
        }
        for miss in ["", "a,b", "\"a\"", "\"a,b", "w/\"a,b\"", "x \"a,b\""] {
            assert!(!matched(miss), "{miss}");
        }
    }

    #[test]
    fn if_match_compares_strongly_and_what_cannot_be_read_allows_nothing() {
        let tag = ETag::strong("7");
        let allowed = |values: &[&str]| tag.allowed_by_if_match(&headers(IF_MATCH, values));
        assert!(allowed(&[]) && allowed(&["*"]) && allowed(&["\"7\""]) && allowed(&["\"6\"", "\"7\""]));
        assert!(!allowed(&["W/\"7\""]) && !allowed(&["\"8\""]) && !allowed(&["7"]) && !allowed(&[""]));
    }

    #[test]
    fn a_tag_never_breaks_its_header() {
        assert_eq!(ETag::strong("a\"b\r\nc").header(), "\"a_b__c\"");
    }

    #[test]
    fn one_range_is_honoured() {
        let part = |value: &str, size| range(&headers(RANGE, &[value]), size);
        assert_eq!(part("bytes=0-0", 10), Part::Bytes(0..1));
        assert_eq!(part("bytes=2-", 10), Part::Bytes(2..10));
        assert_eq!(part("Bytes = 2-99999999999999999999999", 10), Part::Bytes(2..10));
        assert_eq!(part("bytes=-3", 10), Part::Bytes(7..10));
        assert_eq!(part("bytes=-30", 10), Part::Bytes(0..10));
        for unsatisfiable in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(part(unsatisfiable, 10), Part::Unsatisfiable, "{unsatisfiable}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Unsatisfiable);
        for whole in ["bytes=5-2", "bytes=", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes=+1-2", "0-1"]
        {
            assert_eq!(part(whole, 10), Part::Whole, "{whole}");
        }
        assert_eq!(range(&HeaderMap::new(), 10), Part::Whole);
        assert_eq!(range(&headers(RANGE, &["bytes=0-0", "bytes=1-1"]), 10), Part::Whole);
        assert_eq!(content_range(&(2..5), 10), "bytes 2-4/10");
        assert_eq!(unsatisfied_range(10), "bytes */10");
    }
}
