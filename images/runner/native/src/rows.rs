//! Rows of a worksheet part in the one spelling that nearly every program writes.
//!
//! A row is taken only when all of it, to the last byte, is usual and means something; any other row is declined, and what it
//! means, or by which error the file is refused, is the XML parser's to say. So this can only ever be a faster way to the same.

use crate::strings::SharedStrings;
use crate::text::{Cursor, content, has_escape};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyString};
use std::collections::HashMap;

/// Rows and columns of a worksheet; from Excel's specifications and limits.
const MAX_ROWS: u32 = 1_048_576;
const MAX_COLUMNS: usize = 16_384;
/// Empty columns in a row past which it is not a list any more while it is read.
const SPARSE_GAP: usize = 64;
/// Decoded dates kept for reuse, all styles together, and the bytes of the longest number that one is kept for.
const KNOWN_SERIALS: usize = 65_536;
const LONGEST_SERIAL: usize = 32;
/// Bytes of the longest number that is read here.
const LONGEST_NUMBER: usize = 64;
/// Below this, a number without a fraction is an integer: a spreadsheet keeps 15 significant digits.
const EXACT: f64 = 1e15;
const EXACT_DIGITS: usize = 18;

/// What a cell's style makes of a number: a date, by the function that decodes it.
struct DateStyle {
    decode: Py<PyAny>,
    known: HashMap<Box<[u8]>, Py<PyAny>>,
}

/// Takes the plain rows out of one worksheet part.
#[pyclass]
pub struct PlainRows {
    strings: Py<SharedStrings>,
    dates: Vec<DateStyle>,
    /// Style by number → place in `dates`.
    styles: HashMap<u32, usize>,
    /// That of a cell without a style.
    unstyled: Option<usize>,
    known: usize,
    longest: usize,
}

/// How the text of a cell's value is meant.
#[derive(Clone, Copy)]
enum Kind {
    Number(Option<usize>),
    Shared,
    Text,
    Bool,
    /// Left to the parser, if there is a value at all.
    Other,
}

enum Number {
    Whole(i64),
    Float(f64),
}

/// One row: its number, its values up to the last one, the column of its last cell (from 0) and where it ends.
struct Row<'py> {
    number: u32,
    values: Vec<Option<Bound<'py, PyAny>>>,
    column: Option<usize>,
    end: usize,
}

/// What [`PlainRows::take`] returns.
type Taken<'py> = (usize, Vec<u32>, Vec<Bound<'py, PyList>>, u32, i64);

#[pymethods]
impl PlainRows {
    /// `date_formats` maps cell styles (their number as text, None for a cell without one) to the functions that decode serial
    /// numbers. A row of more than `longest` bytes is declined.
    #[new]
    fn new(strings: Py<SharedStrings>, date_formats: &Bound<'_, PyDict>, longest: usize) -> PyResult<Self> {
        let mut rows = Self { strings, dates: Vec::new(), styles: HashMap::new(), unstyled: None, known: 0, longest };
        for (style, decode) in date_formats.iter() {
            let place = rows.dates.len();
            if style.is_none() {
                rows.unstyled = Some(place);
            } else {
                rows.styles.insert(style.extract::<String>()?.parse()?, place);
            }
            rows.dates.push(DateStyle { decode: decode.unbind(), known: HashMap::new() });
        }
        Ok(rows)
    }

    /// Takes the rows of a block from `at` on, as long as they are usual and numbered past `row`.
    ///
    /// Returns where that ends; the numbers and the values of the rows that have any; the number of the last row (`row` when none
    /// was taken) and the column of its last cell, from 0 (-1 without one).
    ///
    /// # Errors
    /// Only those of a decoder of dates, and that of memory.
    fn take<'py>(&mut self, py: Python<'py>, block: &[u8], at: usize, row: u32) -> PyResult<Taken<'py>> {
        let strings = self.strings.clone_ref(py);
        let mut strings = strings.bind(py).try_borrow_mut()?;
        let mut taken: Taken<'py> = (at, Vec::new(), Vec::new(), row, -1);
        while let Some(found) = self.one(py, &mut strings, block, taken.0, taken.3)? {
            taken.0 = found.end;
            taken.3 = found.number;
            taken.4 = found.column.and_then(|column| column.try_into().ok()).unwrap_or(-1);
            if !found.values.is_empty() {
                taken.1.push(found.number);
                taken.2.push(PyList::new(py, found.values)?);
            }
        }
        Ok(taken)
    }
}

impl PlainRows {
    fn one<'py>(
        &mut self,
        py: Python<'py>,
        strings: &mut SharedStrings,
        block: &[u8],
        at: usize,
        previous: u32,
    ) -> PyResult<Option<Row<'py>>> {
        let mut cursor = Cursor::new(block, at);
        let Some((digits, number, empty)) = row_start(&mut cursor, previous) else { return Ok(None) };
        let mut row = Row { number, values: Vec::new(), column: None, end: cursor.at() };
        if empty {
            return Ok(Some(row));
        }
        while !cursor.eat(b"</row>") {
            let Some((column, kind)) = self.cell_start(&mut cursor, digits) else { return Ok(None) };
            if row.column.is_some_and(|last| column <= last) {
                return Ok(None);
            }
            row.column = Some(column);
            if cursor.eat(b"/>") {
                continue;
            }
            let Some(raw) = cell_value(&mut cursor) else { return Ok(None) };
            let value = match raw {
                Raw::None => continue,
                Raw::Inline(raw) => text(py, raw),
                Raw::Value(raw) => self.value(py, strings, raw, kind)?,
            };
            let Some(value) = value else { return Ok(None) };
            let Some(value) = value else { continue };
            let width = row.values.len();
            if column.saturating_sub(width) > SPARSE_GAP {
                return Ok(None);
            }
            row.values.resize_with(column, || None);
            row.values.push(Some(value));
        }
        row.end = cursor.at();
        Ok((row.end - at <= self.longest).then_some(row))
    }

    /// The beginning of a cell, up to where its tag is closed: its column, from 0, and what its value is.
    fn cell_start(&self, cursor: &mut Cursor<'_>, digits: &[u8]) -> Option<(usize, Kind)> {
        if !cursor.eat(b"<c r=\"") {
            return None;
        }
        let letters = cursor.run(3, |byte| byte.is_ascii_uppercase());
        let column = letters.iter().fold(0, |column, letter| column * 26 + usize::from(letter - b'A') + 1);
        if column > MAX_COLUMNS || !cursor.eat(digits) || !cursor.eat(b"\"") {
            return None;
        }
        let mut date = self.unstyled;
        if cursor.eat(b" s=\"") {
            let style = cursor.run(6, |byte| byte.is_ascii_digit());
            let spelled_twice = style.len() > 1 && style.first() == Some(&b'0');
            let number: u32 = std::str::from_utf8(style).ok()?.parse().ok()?;
            date = if spelled_twice { None } else { self.styles.get(&number).copied() };
            if !cursor.eat(b"\"") {
                return None;
            }
        }
        let mut kind = Kind::Number(date);
        if cursor.eat(b" t=\"") {
            kind = match cursor.run(9, |byte| byte.is_ascii_alphabetic()) {
                b"n" => kind,
                b"s" => Kind::Shared,
                b"str" | b"inlineStr" => Kind::Text,
                b"b" => Kind::Bool,
                _ => Kind::Other,
            };
            if !cursor.eat(b"\"") {
                return None;
            }
        }
        cursor.eat(b" ");
        Some((column.checked_sub(1)?, kind))
    }

    /// The value of a text that is not inline; the outer `None` declines it, the inner one is no value.
    fn value<'py>(
        &mut self,
        py: Python<'py>,
        strings: &mut SharedStrings,
        raw: &[u8],
        kind: Kind,
    ) -> PyResult<Option<Option<Bound<'py, PyAny>>>> {
        Ok(match kind {
            Kind::Number(_) | Kind::Text if raw.is_empty() => Some(None),
            Kind::Number(None) => number(raw).map(|number| number.object(py)).transpose()?.map(Some),
            Kind::Number(Some(date)) => self.date(py, date, raw)?,
            Kind::Shared => strings
                .at(py, raw)
                .map(|string| if string.is_empty().unwrap_or(false) { None } else { Some(string.into_any()) }),
            Kind::Text => text(py, raw),
            Kind::Bool => match raw {
                b"0" => Some(Some(PyBool::new(py, false).to_owned().into_any())),
                b"1" => Some(Some(PyBool::new(py, true).to_owned().into_any())),
                _ => None,
            },
            Kind::Other => None,
        })
    }

    fn date<'py>(&mut self, py: Python<'py>, date: usize, raw: &[u8]) -> PyResult<Option<Option<Bound<'py, PyAny>>>> {
        let Some(style) = self.dates.get_mut(date) else { return Ok(None) };
        if let Some(value) = style.known.get(raw) {
            return Ok(Some(Some(value.bind(py).clone())));
        }
        let Some(serial) = number(raw) else { return Ok(None) };
        let value = style.decode.bind(py).call1((serial.object(py)?,))?;
        if self.known < KNOWN_SERIALS && raw.len() < LONGEST_SERIAL {
            self.known += 1;
            style.known.insert(raw.into(), value.clone().unbind());
        }
        Ok(Some(Some(value)))
    }
}

/// What stands in a cell.
enum Raw<'a> {
    None,
    Value(&'a [u8]),
    Inline(&'a [u8]),
}

/// A row's start tag: the digits of its number, that number, and whether the row ends with the tag.
fn row_start<'a>(cursor: &mut Cursor<'a>, previous: u32) -> Option<(&'a [u8], u32, bool)> {
    cursor.skip_space();
    if !cursor.eat(b"<row r=\"") {
        return None;
    }
    let digits = cursor.run(7, |byte| byte.is_ascii_digit());
    if digits.first() == Some(&b'0') {
        return None;
    }
    let number: u32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    if number <= previous || number > MAX_ROWS || !cursor.eat(b"\"") {
        return None;
    }
    cursor.skip_attributes(&[b"r"])?;
    cursor.eat(b" ");
    let empty = cursor.eat(b"/>");
    (empty || cursor.eat(b">")).then_some((digits, number, empty))
}

/// The rest of a cell, behind its attributes, to its end tag.
fn cell_value<'a>(cursor: &mut Cursor<'a>) -> Option<Raw<'a>> {
    if !cursor.eat(b">") {
        return None;
    }
    if cursor.eat(b"<is><t") {
        cursor.eat(b" xml:space=\"preserve\"");
        if !cursor.eat(b">") {
            return None;
        }
        let raw = cursor.until_tag()?;
        return cursor.eat(b"</t></is></c>").then_some(Raw::Inline(raw));
    }
    if cursor.eat(b"<f") {
        cursor.skip_attributes(&[])?;
        if !cursor.eat(b"/>") {
            if !cursor.eat(b">") {
                return None;
            }
            // Nobody asks for the formula, but the parser would refuse one that is not XML.
            content(cursor.until_tag()?)?;
            if !cursor.eat(b"</f>") {
                return None;
            }
        }
    }
    if cursor.eat(b"<v>") {
        let raw = cursor.until_tag()?;
        return cursor.eat(b"</v></c>").then_some(Raw::Value(raw));
    }
    if cursor.eat(b"<v/></c>") {
        return Some(Raw::Value(b""));
    }
    cursor.eat(b"</c>").then_some(Raw::None)
}

/// A text, unless it holds what the parser must see.
fn text<'py>(py: Python<'py>, raw: &[u8]) -> Option<Option<Bound<'py, PyAny>>> {
    let text = content(raw)?;
    if has_escape(&text) {
        return None;
    }
    Some((!text.is_empty()).then(|| PyString::new(py, &text).into_any()))
}

/// A number in the spelling of XML Schema; what is not finite, and integers of more than 18 digits, are declined.
fn number(raw: &[u8]) -> Option<Number> {
    let digits = raw.strip_prefix(b"-").unwrap_or(raw);
    let whole = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if whole == digits.len() {
        if whole == 0 || whole > EXACT_DIGITS {
            return None;
        }
        return std::str::from_utf8(raw).ok()?.parse().ok().map(Number::Whole);
    }
    let proper = raw.len() <= LONGEST_NUMBER
        && raw.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if !proper || raw.first() == Some(&b'+') {
        return None;
    }
    // Correctly rounded, as Python's own.
    let value: f64 = std::str::from_utf8(raw).ok()?.parse().ok()?;
    if !value.is_finite() {
        return None;
    }
    if value.trunc() == value && -EXACT < value && value < EXACT {
        return Some(Number::Whole(value as i64));
    }
    Some(Number::Float(value))
}

impl Number {
    fn object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self {
            Self::Whole(value) => value.into_pyobject(py)?.into_any(),
            Self::Float(value) => value.into_pyobject(py)?.into_any(),
        })
    }
}
