//! JSON with what a manifest needs beyond a parser: repeated keys are found, nesting is bounded, every value has a line,
//! and there is one canonical spelling to hash.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::text::shown;

/// Deepest nesting of arrays and objects. A manifest needs 6.
pub(super) const MAX_DEPTH: usize = 32;

/// Most repeated keys that are listed; a document with one of them is refused anyway.
const MAX_REPEATED: usize = 20;

/// The byte order mark that some editors put before UTF-8.
const BOM: &str = "\u{feff}";

/// A document that is valid JSON.
#[derive(Debug)]
pub(super) struct Document<'a> {
    /// What it says; of a repeated key, the last value.
    pub(super) value: Value,
    /// The text without a byte order mark.
    pub(super) text: &'a str,
    /// Whether it began with a byte order mark.
    pub(super) had_bom: bool,
    /// Pointers to keys that occur more than once in their object.
    pub(super) repeated: Vec<Pointer>,
}

/// Why a document is not usable JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not UTF-8; the line is the one with the first bad byte.
    NotUtf8 { line: usize },
    /// Not JSON. Line and column count from 1, columns in bytes.
    Syntax {
        line: usize,
        column: usize,
        detail: String,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep { line: usize },
}

/// Reads a whole document.
pub(super) fn parse(bytes: &[u8]) -> Result<Document<'_>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| Fault::NotUtf8 {
        line: line_at(bytes, error.valid_up_to()),
    })?;
    let (text, had_bom) = text
        .strip_prefix(BOM)
        .map_or((text, false), |rest| (rest, true));
    let mut state = State {
        at: Pointer::default(),
        depth: 0,
        too_deep: false,
        repeated: Vec::new(),
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = Seed(&mut state)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match parsed {
        Ok(value) => Ok(Document {
            value,
            text,
            had_bom,
            repeated: state.repeated,
        }),
        Err(error) if state.too_deep => Err(Fault::TooDeep { line: error.line() }),
        Err(error) => {
            let detail = error.to_string();
            // The position is told apart from the text; the library appends it.
            let detail = detail
                .rsplit_once(" at line ")
                .map_or(detail.as_str(), |(text, _)| text)
                .to_owned();
            Err(Fault::Syntax {
                line: error.line(),
                column: error.column(),
                detail,
            })
        }
    }
}

/// The 1-based line of a byte offset.
fn line_at(bytes: &[u8], offset: usize) -> usize {
    1 + bytes
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
}

/// A JSON pointer (RFC 6901).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Pointer(String);

impl Pointer {
    /// The pointer to a member.
    pub(super) fn key(&self, key: &str) -> Self {
        let mut child = self.clone();
        child.push(key);
        child
    }

    /// The pointer to an element.
    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0))
    }

    /// The pointer to the value that holds this one; the root's is the root.
    pub(super) fn parent(&self) -> Self {
        Self(
            self.0
                .rsplit_once('/')
                .map_or("", |(parent, _)| parent)
                .to_owned(),
        )
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// As people write it, fit to be shown: `engine.defaults.timeout_ms`, or `manifest.json` for the root.
    pub(super) fn dotted(&self) -> String {
        if self.0.is_empty() {
            super::MANIFEST.to_owned()
        } else {
            shown(&self.tokens().collect::<Vec<_>>().join("."))
        }
    }

    fn push(&mut self, key: &str) {
        self.0.push('/');
        for c in key.chars() {
            match c {
                '~' => self.0.push_str("~0"),
                '/' => self.0.push_str("~1"),
                _ => self.0.push(c),
            }
        }
    }

    fn tokens(&self) -> impl Iterator<Item = String> {
        self.0
            .split('/')
            .skip(1)
            .map(|token| token.replace("~1", "/").replace("~0", "~"))
    }
}

struct State {
    at: Pointer,
    depth: usize,
    too_deep: bool,
    repeated: Vec<Pointer>,
}

impl State {
    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        self.too_deep = self.depth > MAX_DEPTH;
        if self.too_deep {
            Err(E::custom("nested too deeply"))
        } else {
            Ok(())
        }
    }
}

/// Deserializes a [`Value`] while watching depth and keys.
struct Seed<'s>(&'s mut State);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.enter()?;
        let here = self.0.at.0.len();
        let mut values = Vec::new();
        loop {
            // Writing to a String cannot fail.
            let _ = write!(self.0.at.0, "/{}", values.len());
            let next = access.next_element_seed(Seed(self.0))?;
            self.0.at.0.truncate(here);
            match next {
                Some(value) => values.push(value),
                None => break,
            }
        }
        self.0.depth -= 1;
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.enter()?;
        let here = self.0.at.0.len();
        let mut members = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            // Checked first: the raw-value extension of serde_json smuggles text through a key of this name.
            if key.starts_with("$serde_json::private::") {
                return Err(A::Error::custom("a reserved key"));
            }
            self.0.at.push(&key);
            if members.contains_key(&key)
                && self.0.repeated.len() < MAX_REPEATED
                && !self.0.repeated.contains(&self.0.at)
            {
                self.0.repeated.push(self.0.at.clone());
            }
            let value = access.next_value_seed(Seed(self.0))?;
            self.0.at.0.truncate(here);
            members.insert(key, value);
        }
        self.0.depth -= 1;
        Ok(Value::Object(members))
    }
}

/// The 1-based lines where the members or elements at `pointers` begin in valid JSON `text`; of a repeated key, the last.
///
/// One pass over the text, which goes into the values around `pointers` and skips all others. A map of every value's line
/// could be far larger than the text.
pub(super) fn lines_of(text: &str, pointers: &[&Pointer]) -> Vec<Option<usize>> {
    let mut root = Wanted::default();
    for (slot, pointer) in pointers.iter().enumerate() {
        let inmost = pointer.tokens().fold(&mut root, |wanted, token| {
            wanted.inside.entry(token).or_default()
        });
        inmost.slots.push(slot);
    }
    let mut scanner = Scanner {
        bytes: text.as_bytes(),
        at: 0,
        offsets: vec![None; pointers.len()],
    };
    scanner.skip_space();
    let begins = scanner.at;
    // What is not JSON after all ends the scan early and leaves lines unknown.
    let _ = scanner.value(&root, begins);
    scanner.lines()
}

/// The values whose lines are wanted, as a tree over keys and indices.
#[derive(Default)]
struct Wanted {
    inside: HashMap<String, Wanted>,
    slots: Vec<usize>,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    offsets: Vec<Option<usize>>,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Moves past a value that is wanted, or has wanted ones inside. It is shown to begin at `begins`: a member does at
    /// its key. The recursion is as deep as the deepest pointer.
    fn value(&mut self, wanted: &Wanted, begins: usize) -> Option<()> {
        for slot in &wanted.slots {
            self.offsets[*slot] = Some(begins);
        }
        match self.peek()? {
            b'{' if !wanted.inside.is_empty() => self.members(wanted),
            b'[' if !wanted.inside.is_empty() => self.elements(wanted),
            _ => self.skip_value(),
        }
    }

    fn members(&mut self, wanted: &Wanted) -> Option<()> {
        self.at += 1;
        loop {
            self.skip_space();
            match self.peek()? {
                b'}' => break,
                b',' => self.at += 1,
                _ => {
                    let begins = self.at;
                    self.skip_string()?;
                    let inside = self.key(begins).and_then(|key| wanted.inside.get(&*key));
                    self.skip_space();
                    self.at += 1; // the colon
                    self.skip_space();
                    match inside {
                        Some(inside) => self.value(inside, begins)?,
                        None => self.skip_value()?,
                    }
                }
            }
        }
        self.at += 1;
        Some(())
    }

    fn elements(&mut self, wanted: &Wanted) -> Option<()> {
        self.at += 1;
        let mut index = 0_usize;
        loop {
            self.skip_space();
            match self.peek()? {
                b']' => break,
                b',' => self.at += 1,
                _ => {
                    match wanted.inside.get(&index.to_string()) {
                        Some(inside) => self.value(inside, self.at)?,
                        None => self.skip_value()?,
                    }
                    index += 1;
                }
            }
        }
        self.at += 1;
        Some(())
    }

    /// The key whose quotes are from `begins` to here.
    fn key(&self, begins: usize) -> Option<Cow<'_, str>> {
        let quoted = std::str::from_utf8(self.bytes.get(begins..self.at)?).ok()?;
        if quoted.contains('\\') {
            serde_json::from_str(quoted).ok().map(Cow::Owned)
        } else {
            quoted
                .strip_prefix('"')?
                .strip_suffix('"')
                .map(Cow::Borrowed)
        }
    }

    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            self.skip_space();
            match self.peek()? {
                b'"' => self.skip_string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    while self
                        .peek()
                        .is_some_and(|byte| !b",:]}".contains(&byte) && !byte.is_ascii_whitespace())
                    {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Moves past a string; the scanner is at its opening quote.
    fn skip_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    /// The lines of the offsets found.
    fn lines(self) -> Vec<Option<usize>> {
        let mut breaks = Vec::new();
        breaks.extend(
            self.bytes
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n')
                .map(|(at, _)| at),
        );
        let line = |offset| 1 + breaks.partition_point(|at| *at < offset);
        self.offsets
            .into_iter()
            .map(|offset| offset.map(line))
            .collect()
    }
}

/// The canonical spelling of a value, after RFC 8785: no spaces, keys sorted by their UTF-16 code units, the shortest
/// escapes, and numbers as ECMAScript writes them, so that `1`, `1.0` and `1e0` are one number. One departure: an integer
/// that fits 64 bits keeps all its digits, where RFC 8785 would round it to a double and so merge different manifests.
pub(super) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

/// The recursion is bounded: a parsed document is at most [`MAX_DEPTH`] deep.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_string(text, out),
        Value::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(value, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (index, (key, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn write_number(number: &serde_json::Number, out: &mut String) {
    if let Some(integer) = number.as_u64() {
        out.push_str(&integer.to_string());
    } else if let Some(integer) = number.as_i64() {
        out.push_str(&integer.to_string());
    } else if let Some(double) = number.as_f64() {
        write_double(double, out);
    }
}

/// ECMAScript's `Number::toString`: the shortest digits that read back as the same double, laid out by magnitude.
fn write_double(double: f64, out: &mut String) {
    if double == 0.0 {
        out.push('0');
        return;
    }
    if double < 0.0 {
        out.push('-');
    }
    let scientific = format!("{:e}", double.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    // The value is 0.digits × 10^point.
    let point = exponent.parse::<i32>().unwrap_or_default() + 1;
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    let split =
        |at: i32| digits.split_at(usize::try_from(at).unwrap_or_default().min(digits.len()));
    match point {
        _ if count <= point && point <= 21 => out.extend([digits.as_str(), &zeros(point - count)]),
        1..=21 => {
            let (whole, fraction) = split(point);
            out.extend([whole, ".", fraction]);
        }
        -5..=0 => out.extend(["0.", &zeros(-point), &digits]),
        _ => {
            let (first, rest) = split(1);
            let sign = if point > 0 { "+" } else { "-" };
            let dot = if rest.is_empty() { "" } else { "." };
            out.extend([first, dot, rest, "e", sign, &(point - 1).abs().to_string()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer(text.to_owned())
    }

    fn line_of(text: &str, at: &str) -> Option<usize> {
        lines_of(text, &[&pointer(at)])[0]
    }

    #[test]
    fn repeated_keys_are_found_at_any_depth_and_listed_once() {
        let document =
            parse(br#"{"a": {"b": 1, "b": 2, "b": 3}, "c": [0, {"d/e": 1, "d/e": 1}]}"#).unwrap();
        assert_eq!(document.repeated, [pointer("/a/b"), pointer("/c/1/d~1e")]);
        assert_eq!(document.value["a"]["b"], 3);
        assert!(
            parse(br#"[{"a": 1}, {"a": 1}]"#)
                .unwrap()
                .repeated
                .is_empty()
        );
    }

    #[test]
    fn a_syntax_error_has_its_line_and_column() {
        let fault = parse(b"{\n  \"a\": 1,\n  oops\n}").unwrap_err();
        assert_eq!(
            fault,
            Fault::Syntax {
                line: 3,
                column: 3,
                detail: "key must be a string".to_owned()
            }
        );
        assert!(matches!(
            parse(b"{} {}"),
            Err(Fault::Syntax {
                line: 1,
                column: 4,
                ..
            })
        ));
        assert!(matches!(parse(b""), Err(Fault::Syntax { .. })));
        assert!(matches!(
            parse(b"{\"$serde_json::private::RawValue\": \"1\"}"),
            Err(Fault::Syntax { .. })
        ));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(
            parse(nested(MAX_DEPTH + 1).as_bytes()).unwrap_err(),
            Fault::TooDeep { line: 1 }
        );
        assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn a_byte_order_mark_is_taken_off_and_other_encodings_are_refused_with_the_line() {
        let document = parse(b"\xef\xbb\xbf{}").unwrap();
        assert!(document.had_bom && document.text == "{}");
        assert_eq!(
            parse(b"{\n\"a\": \"\xe9\"}").unwrap_err(),
            Fault::NotUtf8 { line: 2 }
        );
        assert_eq!(
            parse(b"\xff\xfe{\0}\0").unwrap_err(),
            Fault::NotUtf8 { line: 1 }
        );
    }

    #[test]
    fn every_value_has_the_line_it_begins_on() {
        let text = "{\n \"a\": {\n  \"b\": [1,\n   2, {\"x\": \"}\\\"]\"},\n   [3]\n  ]\n },\n\n \"c~/\\u0041\":\n  null\n}";
        for (at, line) in [
            ("", 1),
            ("/a", 2),
            ("/a/b", 3),
            ("/a/b/0", 3),
            ("/a/b/1", 4),
            ("/a/b/2/x", 4),
            ("/a/b/3/0", 5),
            ("/c~0~1A", 9),
        ] {
            assert_eq!(line_of(text, at), Some(line), "{at}");
        }
        for at in ["/z", "/a/b/9", "/a/b/x", "/a/b/0/0"] {
            assert_eq!(line_of(text, at), None, "{at}");
        }
    }

    #[test]
    fn of_a_repeated_key_the_last_has_the_line() {
        assert_eq!(line_of("{\"a\": 1,\n\"a\": 2}", "/a"), Some(2));
    }

    #[test]
    fn canonical_json_has_sorted_keys_no_spaces_and_short_escapes() {
        // The example of RFC 8785, section 3.2.3: keys sort by UTF-16 code units.
        let value = json!({"\u{20ac}": "Euro", "\r": "CR", "\u{fb33}": "Dalet", "1": "One", "\u{1f600}": "Smile", "\u{80}": "Control", "\u{f6}": "o"});
        assert_eq!(
            canonical(&value),
            "{\"\\r\":\"CR\",\"1\":\"One\",\"\u{80}\":\"Control\",\"\u{f6}\":\"o\",\"\u{20ac}\":\"Euro\",\"\u{1f600}\":\"Smile\",\"\u{fb33}\":\"Dalet\"}"
        );
        assert_eq!(
            canonical(&json!(["\u{8}\t\n\u{c}\r\"\\/\u{1}é", null, true])),
            "[\"\\b\\t\\n\\f\\r\\\"\\\\/\\u0001é\",null,true]"
        );
    }

    #[test]
    fn canonical_numbers_are_those_of_ecmascript() {
        // The table of RFC 8785, appendix B, and the borders of each layout.
        for (double, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (5e-324, "5e-324"),
            (-5e-324, "-5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (295_147_905_179_352_830_000.0, "295147905179352830000"),
            (9.999_999_999_999_997e22, "9.999999999999997e+22"),
            (1e23, "1e+23"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (999_999_999_999_999_700_000.0, "999999999999999700000"),
            (333_333_333.333_333_3, "333333333.3333333"),
            (0.000_001, "0.000001"),
            (0.000_000_1, "1e-7"),
            (1.0, "1"),
            (0.5, "0.5"),
            (-1.5, "-1.5"),
            (1.25e-7, "1.25e-7"),
        ] {
            let mut out = String::new();
            write_double(double, &mut out);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn one_number_has_one_spelling_and_large_integers_keep_their_digits() {
        for text in ["1", "1.0", "1e0", "10e-1"] {
            assert_eq!(
                canonical(&parse(text.as_bytes()).unwrap().value),
                "1",
                "{text}"
            );
        }
        for text in [
            "9007199254740993",
            "18446744073709551615",
            "-9223372036854775808",
        ] {
            assert_eq!(canonical(&parse(text.as_bytes()).unwrap().value), text);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn the_scanner_survives_text_that_is_not_json(text in "[\\[\\]{}\",:\\\\a1 \n]{0,40}", at in "(/[a01]){0,3}") {
            let _ = lines_of(&text, &[&pointer(&at), &pointer("/a"), &pointer("")]);
        }

        #[test]
        fn canonical_numbers_read_back_as_the_same_double(bits in any::<u64>()) {
            let double = f64::from_bits(bits);
            prop_assume!(double.is_finite());
            let mut out = String::new();
            write_double(double, &mut out);
            prop_assert_eq!(out.parse::<f64>().unwrap(), double);
        }
    }
}
