//! Rows of the output as XML.

use crate::text::is_escape;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};
use std::io::Write as _;

/// UTF-16 code units of a cell's text; from Excel's specifications and limits.
pub const MAX_TEXT: usize = 32_767;
/// A spreadsheet's number keeps 15 significant digits.
const LARGEST_EXACT: i64 = 999_999_999_999_999;
/// Bytes of XML after which a call ends with its row.
const ENOUGH: usize = 1024 * 1024;
/// Dates whose serial numbers are kept for reuse.
const KNOWN_DATES: usize = 65_536;

/// Writes cells of one sheet: text as inline strings, numbers, bools and dates as such.
#[pyclass]
pub struct CellWriter {
    /// Per column `<c r="` and its letters.
    starts: Vec<Vec<u8>>,
    rare: Py<PyAny>,
    date: Py<PyType>,
    dates: Py<PyDict>,
    truncated: usize,
}

#[pymethods]
impl CellWriter {
    /// `letters` name the columns. `rare` is asked for what any value of another type than str, int, float, bool, `date` and None
    /// is in the sheet, for each new `date`, and for an integer of more than 15 digits: a str, an int of up to 15 digits, a float,
    /// a bool, None, or a number with its cell style, `(style, number)`.
    #[new]
    fn new(py: Python<'_>, letters: Vec<String>, date: Py<PyType>, rare: Py<PyAny>) -> Self {
        let starts = letters.iter().map(|letters| format!("<c r=\"{letters}").into_bytes()).collect();
        Self { starts, rare, date, dates: PyDict::new(py).unbind(), truncated: 0 }
    }

    /// How many texts were cut to what a cell can hold.
    #[getter]
    fn truncated(&self) -> usize {
        self.truncated
    }

    /// Rows from `start` up to `stop` of the columns, the first of them numbered `number`, as XML in UTF-8; and where it stopped,
    /// which is before `stop` when that is about a megabyte. `style` is the cell style of texts.
    ///
    /// # Errors
    /// What `rare` raises, and `IndexError` when a column is too short.
    #[pyo3(signature = (columns, start, stop, number, style = None))]
    fn rows<'py>(
        &mut self,
        py: Python<'py>,
        columns: Vec<Bound<'py, PyList>>,
        start: usize,
        stop: usize,
        number: usize,
        style: Option<u32>,
    ) -> PyResult<(Bound<'py, PyBytes>, usize)> {
        let style = style.map(|style| format!(" s=\"{style}\"")).unwrap_or_default();
        let mut out: Vec<u8> = Vec::with_capacity(ENOUGH / 4);
        let mut at = start;
        while at < stop && out.len() < ENOUGH {
            let digits = (number + (at - start)).to_string();
            put(&mut out, &[b"<row r=\"", digits.as_bytes(), b"\">"]);
            for (place, column) in columns.iter().enumerate() {
                let value = column.get_item(at)?;
                self.cell(py, &mut out, place, &digits, &value, &style)?;
            }
            out.extend_from_slice(b"</row>");
            at += 1;
        }
        Ok((PyBytes::new(py, &out), at))
    }
}

impl CellWriter {
    fn cell(
        &mut self,
        py: Python<'_>,
        out: &mut Vec<u8>,
        place: usize,
        digits: &str,
        value: &Bound<'_, PyAny>,
        style: &str,
    ) -> PyResult<()> {
        if value.is_none() || self.common(out, place, digits, value, style)? {
            return Ok(());
        }
        if value.get_type().is(self.date.bind(py)) {
            return self.date(py, out, place, digits, value);
        }
        let plain = self.rare.bind(py).call1((value,))?;
        self.stand_in(out, place, digits, &plain, style)
    }

    /// Writes what `rare` said.
    fn stand_in(
        &mut self,
        out: &mut Vec<u8>,
        place: usize,
        digits: &str,
        plain: &Bound<'_, PyAny>,
        style: &str,
    ) -> PyResult<()> {
        if let Ok(styled) = plain.cast_exact::<PyTuple>() {
            let (style, number): (u32, Bound<'_, PyAny>) = styled.extract()?;
            self.open(out, place, digits, &format!("\" s=\"{style}\"><v>"));
            if number.is_exact_instance_of::<PyFloat>() {
                float(out, number.extract()?, &number)?;
            } else {
                put(out, &[number.extract::<i64>()?.to_string().as_bytes()]);
            }
            out.extend_from_slice(b"</v></c>");
        } else if !plain.is_none() && !self.common(out, place, digits, plain, style)? {
            return Err(PyTypeError::new_err("a value has no place in a sheet"));
        }
        Ok(())
    }

    /// Writes a value of a type that nearly all are of; false, and nothing written, when it is none of these.
    fn common(
        &mut self,
        out: &mut Vec<u8>,
        place: usize,
        digits: &str,
        value: &Bound<'_, PyAny>,
        style: &str,
    ) -> PyResult<bool> {
        if let Ok(text) = value.cast_exact::<PyString>() {
            self.text(out, place, digits, text, style)?;
        } else if value.is_exact_instance_of::<PyInt>() {
            let Some(whole) =
                value.extract::<i64>().ok().filter(|whole| (-LARGEST_EXACT..=LARGEST_EXACT).contains(whole))
            else {
                return Ok(false);
            };
            self.open(out, place, digits, "\"><v>");
            // Writing into memory does not fail.
            let _ = write!(out, "{whole}</v></c>");
        } else if value.is_exact_instance_of::<PyFloat>() {
            let number: f64 = value.extract()?;
            if number.is_nan() {
                return Ok(true);
            }
            if number.is_infinite() {
                let text = PyString::new(value.py(), if number > 0.0 { "Infinity" } else { "-Infinity" });
                self.text(out, place, digits, &text, style)?;
                return Ok(true);
            }
            self.open(out, place, digits, "\"><v>");
            float(out, number, value)?;
            out.extend_from_slice(b"</v></c>");
        } else if let Ok(truth) = value.cast_exact::<PyBool>() {
            self.open(
                out,
                place,
                digits,
                if truth.is_true() { "\" t=\"b\"><v>1</v></c>" } else { "\" t=\"b\"><v>0</v></c>" },
            );
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// The beginning of a cell, and what follows its reference.
    fn open(&self, out: &mut Vec<u8>, place: usize, digits: &str, after: &str) {
        put(out, &[self.starts.get(place).map_or(b"".as_slice(), Vec::as_slice), digits.as_bytes(), after.as_bytes()]);
    }

    fn date(
        &mut self,
        py: Python<'_>,
        out: &mut Vec<u8>,
        place: usize,
        digits: &str,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let dates = self.dates.bind(py);
        if let Some(known) = dates.get_item(value)? {
            let text: &Bound<'_, PyString> = known.cast()?;
            self.open(out, place, digits, text.to_str()?);
            return Ok(());
        }
        let plain = self.rare.bind(py).call1((value,))?;
        if dates.len() < KNOWN_DATES
            && let Ok((style, serial)) = plain.extract::<(u32, i64)>()
        {
            dates.set_item(value, format!("\" s=\"{style}\"><v>{serial}</v></c>"))?;
        }
        self.stand_in(out, place, digits, &plain, "")
    }

    fn text(
        &mut self,
        out: &mut Vec<u8>,
        place: usize,
        digits: &str,
        value: &Bound<'_, PyString>,
        style: &str,
    ) -> PyResult<()> {
        if let Ok(text) = value.to_str() {
            self.inline(out, place, digits, cut(text), text, style);
            return Ok(());
        }
        // Surrogates without a partner have no UTF-8. One unit each, so that they count as they do in Python.
        let bytes: Vec<u8> = value.call_method1("encode", ("utf-8", "surrogatepass"))?.extract()?;
        let text = with_stand_ins(&bytes, "\u{fffd}");
        let kept = cut(&text);
        if kept.len() < text.len() {
            // Cutting goes through UTF-16, where Python puts another stand-in.
            let text = with_stand_ins(&bytes, "?");
            self.inline(out, place, digits, cut(&text), &text, style);
        } else {
            self.inline(out, place, digits, kept, &text, style);
        }
        Ok(())
    }

    fn inline(&mut self, out: &mut Vec<u8>, place: usize, digits: &str, kept: &str, whole: &str, style: &str) {
        if kept.is_empty() {
            return;
        }
        if kept.len() < whole.len() {
            self.truncated += 1;
        }
        self.open(out, place, digits, "\"");
        put(out, &[style.as_bytes(), b" t=\"inlineStr\"><is><t"]);
        // An XML reader may drop white space at the ends unless told not to. What is escaped is no white space any more.
        let kept_space = |one: char| one.is_whitespace() && !is_escaped(one);
        if kept.starts_with(kept_space) || kept.ends_with(kept_space) {
            out.extend_from_slice(b" xml:space=\"preserve\"");
        }
        out.push(b'>');
        escape(out, kept);
        out.extend_from_slice(b"</t></is></c>");
    }
}

fn put(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

/// A finite float as Python's `repr` writes it: the shortest digits that are this float again, and of two equally near ones the
/// even one, which the standard library does not promise. Outside of these bounds Python writes an exponent.
fn float(out: &mut Vec<u8>, number: f64, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if number == 0.0 || (1e-4..1e16).contains(&number.abs()) {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
    } else {
        put(out, &[value.repr()?.to_str()?.as_bytes()]);
    }
    Ok(())
}

/// At most [`MAX_TEXT`] UTF-16 code units, no character split.
fn cut(text: &str) -> &str {
    // No character has more code units than bytes.
    if text.len() <= MAX_TEXT {
        return text;
    }
    let mut units = 0;
    for (at, one) in text.char_indices() {
        units += one.len_utf16();
        if units > MAX_TEXT {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

/// UTF-8 in which surrogates may stand, with something else for each of these.
fn with_stand_ins(bytes: &[u8], stand_in: &str) -> String {
    let mut text = String::with_capacity(bytes.len());
    for piece in bytes.utf8_chunks() {
        text.push_str(piece.valid());
        // Three bytes that are three chunks: the first is ED, which begins nothing else that is invalid.
        if piece.invalid().first() == Some(&0xed) {
            text.push_str(stand_in);
        }
    }
    text
}

/// Characters that XML 1.0 forbids or changes; a carriage return would come back as a line feed.
fn is_escaped(one: char) -> bool {
    matches!(one, '\0'..='\x08' | '\x0b'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}

/// Text as the content of an inline string: markup by name, what XML does not hold as `_xHHHH_` (ECMA-376 part 1, 22.9.2.19), and
/// so the beginning of what would be taken for such an escape.
fn escape(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let rest = bytes.get(at..).unwrap_or_default();
        let (length, instead): (usize, &str) = match byte {
            b'\t' | b'\n' => continue,
            b'&' => (1, "&amp;"),
            b'<' => (1, "&lt;"),
            b'>' => (1, "&gt;"),
            b'_' if is_escape(rest) => (1, "_x005F_"),
            0..b' ' => (1, ""),
            0xef if rest.starts_with("\u{fffe}".as_bytes()) => (3, "_xFFFE_"),
            0xef if rest.starts_with("\u{ffff}".as_bytes()) => (3, "_xFFFF_"),
            _ => continue,
        };
        out.extend_from_slice(bytes.get(done..at).unwrap_or_default());
        if instead.is_empty() {
            // Writing into memory does not fail.
            let _ = write!(out, "_x{byte:04X}_");
        } else {
            out.extend_from_slice(instead.as_bytes());
        }
        done = at + length;
    }
    out.extend_from_slice(bytes.get(done..).unwrap_or_default());
}
