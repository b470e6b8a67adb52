//! The table of shared strings of a workbook.

use crate::text::{Cursor, content, has_escape};
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Strings that are kept as Python's own, so that a text which occurs often is one object. A later one takes an earlier one's
/// place; the table lists strings by first appearance, so neighbours are used together.
const HOT_STRINGS: usize = 32_768;
/// Bytes of the longest of these.
const HOT_LENGTH: usize = 256;

/// Strings by position, held as one blob of UTF-8 and an array of offsets: about the size of its text.
#[pyclass]
#[derive(Default)]
pub struct SharedStrings {
    blob: String,
    /// Where each string ends in the blob.
    ends: Vec<usize>,
    /// Position and string, by the position's remainder.
    hot: Vec<Option<(usize, Py<PyString>)>>,
}

#[pymethods]
impl SharedStrings {
    /// A table without strings.
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn __len__(&self) -> usize {
        self.ends.len()
    }

    /// Appends a string as it is.
    fn append(&mut self, text: &str) {
        self.push(text);
    }

    /// Appends the strings of a block of a shared strings part from `at` on, as long as each is one plain text of up to `longest`
    /// bytes, and returns where that ends.
    fn take(&mut self, block: &[u8], at: usize, longest: usize) -> usize {
        let mut done = at;
        while let Some(next) = self.one(block, done, longest) {
            done = next;
        }
        done
    }

    /// The string at a position, as a cell's text has it; None when there is none.
    fn get<'py>(&mut self, py: Python<'py>, position: &str) -> Option<Bound<'py, PyString>> {
        self.at(py, position.as_bytes())
    }
}

impl SharedStrings {
    fn push(&mut self, text: &str) {
        self.blob.push_str(text);
        self.ends.push(self.blob.len());
    }

    /// Takes one string if it is usual, and says where it ends.
    fn one(&mut self, block: &[u8], at: usize, longest: usize) -> Option<usize> {
        let mut cursor = Cursor::new(block, at);
        cursor.skip_space();
        if !cursor.eat(b"<si><t") {
            return None;
        }
        cursor.eat(b" xml:space=\"preserve\"");
        if cursor.eat(b"/></si>") {
            self.push("");
            return Some(cursor.at());
        }
        if !cursor.eat(b">") {
            return None;
        }
        let raw = cursor.until_tag()?;
        if raw.len() > longest || !cursor.eat(b"</t></si>") {
            return None;
        }
        let text = content(raw)?;
        if has_escape(&text) {
            return None;
        }
        self.push(&text);
        Some(cursor.at())
    }

    /// The string at a position, in ASCII digits; `None` when there is none.
    pub fn at<'py>(&mut self, py: Python<'py>, position: &[u8]) -> Option<Bound<'py, PyString>> {
        if position.is_empty() || position.len() > 12 {
            return None;
        }
        let mut index = 0_usize;
        for byte in position {
            index =
                index.checked_mul(10)?.checked_add(usize::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?))?;
        }
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        if let Some(Some((held, string))) = self.hot.get(index % HOT_STRINGS)
            && *held == index
        {
            return Some(string.bind(py).clone());
        }
        let text = self.blob.get(start..end)?;
        let string = PyString::new(py, text);
        if text.len() <= HOT_LENGTH {
            if self.hot.is_empty() {
                self.hot.resize_with(HOT_STRINGS, || None);
            }
            if let Some(place) = self.hot.get_mut(index % HOT_STRINGS) {
                *place = Some((index, string.clone().unbind()));
            }
        }
        Some(string)
    }
}
