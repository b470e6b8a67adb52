//! `expected.json` and `normalized.csv`: read, and written in one way, so that a change shows as what changed.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// All of an expectation but the cells.
pub const EXPECTED: &str = "expected.json";
/// The cells.
pub const NORMALIZED: &str = "normalized.csv";

/// Issues by field and code.
pub type Issues = BTreeMap<String, BTreeMap<String, u64>>;

/// What is expected of a job, beside its cells. Anything that is left out is not compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expectation {
    /// The inputs in order; all other files of the example, by name, when it is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// The job is expected to fail like this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ExpectedError>,
    /// Name of the output sheet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sheet: Option<String>,
    /// Which kinds of cells the columns of the output hold; CSV cannot tell the text 12 from the number 12.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<IndexMap<String, Vec<String>>>,
    /// The tables that are found, and what becomes of their columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<Vec<ExpectedTable>>,
    /// How many issues of which code there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issues: Option<Issues>,
    /// Annotations that hooks leave, as far as they are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Vec<Map<String, Value>>>,
    /// What is found out about inputs: `format`, `encoding`, `delimiter`, as far as they are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub formats: Option<BTreeMap<String, Map<String, Value>>>,
}

/// How a job is expected to fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedError {
    /// The error kind.
    pub kind: String,
}

/// A table of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedTable {
    /// File name of the input.
    pub input: String,
    /// Name of the sheet.
    pub sheet: String,
    /// From the header row to the last row, such as `B6:J160`.
    pub range: String,
    /// `raw`, `synthetic` or `promoted`.
    pub header: String,
    /// Every header, left to right, and the field that its column becomes.
    pub mapping: Vec<(Option<String>, Option<String>)>,
}

impl Expectation {
    /// Reads `expected.json`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            crate::text::plain(&format!("{path}: {}", error.into_inner()), 300)
        })?;
        reader.end().map_err(|error| error.to_string())?;
        Ok(parsed)
    }

    /// Whether it says anything that can be compared.
    pub fn claims(&self) -> bool {
        *self != Self { inputs: self.inputs.clone(), ..Self::default() }
    }
}

/// A sheet as text: headers, and rows of as many cells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sheet {
    /// The first row.
    pub headers: Vec<String>,
    /// All further rows.
    pub rows: Vec<Vec<String>>,
}

impl Sheet {
    /// Reads `normalized.csv`.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(false).from_reader(bytes);
        let mut rows = reader.records().map(|record| match record {
            Ok(record) => Ok(record.iter().map(str::to_owned).collect::<Vec<_>>()),
            Err(error) => Err(error.to_string()),
        });
        let headers = rows.next().transpose()?.ok_or("it is empty; its first line are the headers of the output")?;
        Ok(Self { headers, rows: rows.collect::<Result<_, _>>()? })
    }

    /// Writes `normalized.csv`.
    pub fn to_csv(&self) -> Vec<u8> {
        let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
        for row in std::iter::once(&self.headers).chain(&self.rows) {
            // Writing to memory cannot fail.
            writer.write_record(row).ok();
        }
        writer.into_inner().unwrap_or_default()
    }
}

/// JSON for reading: indented, but a list of plain values is one line, so that a mapping reads as a table.
pub fn to_text(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text.push('\n');
    text
}

fn write(value: &Value, depth: usize, text: &mut String) {
    let plain = |value: &Value| !value.is_array() && !value.is_object();
    let (open, close, members): (char, char, Vec<(Option<&String>, &Value)>) = match value {
        Value::Array(items) if !items.iter().all(plain) => ('[', ']', items.iter().map(|item| (None, item)).collect()),
        Value::Object(members) if !members.is_empty() => {
            ('{', '}', members.iter().map(|(key, value)| (Some(key), value)).collect())
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            return text.push_str(&format!("[{}]", items.join(", ")));
        }
        other => return text.push_str(&other.to_string()),
    };
    text.push(open);
    for (index, (key, member)) in members.into_iter().enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        text.push_str(&"  ".repeat(depth + 1));
        if let Some(key) = key {
            text.push_str(&format!("{}: ", Value::from(key.as_str())));
        }
        write(member, depth + 1, text);
    }
    text.push('\n');
    text.push_str(&"  ".repeat(depth));
    text.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_indented_but_lists_of_plain_values_are_not() {
        let value = json!({"a": [["x", null], ["y", "z"]], "b": [], "c": {}, "d": [{"e": 1}]});
        let text = "{\n  \"a\": [\n    [\"x\", null],\n    [\"y\", \"z\"]\n  ],\n  \"b\": [],\n  \"c\": {},\n  \"d\": [\n    {\n      \"e\": 1\n    }\n  ]\n}\n";
        assert_eq!(to_text(&value), text);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_place() {
        let unknown = Expectation::parse(br#"{"isues": {}}"#).unwrap_err();
        assert!(unknown.contains("isues"), "{unknown}");
        let wrong = Expectation::parse(br#"{"issues": {"email": {"missing": "2"}}}"#).unwrap_err();
        assert!(wrong.contains("issues.email.missing"), "{wrong}");
        assert!(Sheet::parse(b"a,b\n1\n").unwrap_err().contains("line: 2"));
        assert!(Sheet::parse(b"").is_err());
    }

    #[test]
    fn a_sheet_is_read_as_it_was_written() {
        let rows = vec![vec!["a,\"b\"\nc".to_owned(), String::new()], vec![String::new(), String::new()]];
        let sheet = Sheet { headers: vec!["H 1".to_owned(), "H 2".to_owned()], rows };
        assert_eq!(Sheet::parse(&sheet.to_csv()).unwrap(), sheet);
    }
}
