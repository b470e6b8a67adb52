//! Reading `normalized.xlsx` back, with a library that did not write it, and comparing it with an expectation.

use crate::support::Run;
use calamine::{Data, Reader, Xlsx, open_workbook};
use std::collections::{BTreeMap, BTreeSet};

/// The one sheet of an output.
#[derive(Debug)]
pub struct Sheet {
    /// Its name.
    pub name: String,
    /// The first row.
    pub headers: Vec<String>,
    /// All further rows, each as long as the headers.
    pub rows: Vec<Vec<Data>>,
}

/// Reads the output of a job.
#[track_caller]
pub fn read(run: &Run) -> Sheet {
    let mut book: Xlsx<_> = open_workbook(run.out.join("normalized.xlsx")).expect("the output is a workbook");
    let names = book.sheet_names();
    assert_eq!(names.len(), 1, "one sheet");
    let range = book.worksheet_range(&names[0]).unwrap();
    let (height, width) = range.end().map_or((0, 0), |(row, column)| (row + 1, column + 1));
    let mut rows = (0..height)
        .map(|row| (0..width).map(|column| range.get_value((row, column)).cloned().unwrap_or(Data::Empty)).collect())
        .collect::<Vec<Vec<Data>>>()
        .into_iter();
    let headers = rows.next().unwrap_or_default().iter().map(ToString::to_string).collect();
    Sheet { name: names[0].clone(), headers, rows: rows.collect() }
}

impl Sheet {
    /// A column as text, by its header.
    #[track_caller]
    pub fn column(&self, header: &str) -> Vec<String> {
        let at = self.headers.iter().position(|one| one == header);
        let at = at.unwrap_or_else(|| panic!("no column {header:?} among {:?}", self.headers));
        self.rows.iter().map(|row| row[at].to_string()).collect()
    }

    /// Which kinds of cells the columns hold: `text`, `number`, `boolean`, `date` (with or without a time, or a duration).
    pub fn kinds(&self) -> BTreeMap<&str, BTreeSet<&'static str>> {
        self.headers
            .iter()
            .enumerate()
            .map(|(at, header)| (header.as_str(), self.rows.iter().filter_map(|row| kind(&row[at])).collect()))
            .collect()
    }
}

fn kind(cell: &Data) -> Option<&'static str> {
    match cell {
        Data::Empty => None,
        Data::String(_) => Some("text"),
        Data::Int(_) | Data::Float(_) => Some("number"),
        Data::Bool(_) => Some("boolean"),
        Data::DateTime(_) | Data::DateTimeIso(_) | Data::DurationIso(_) => Some("date"),
        Data::Error(error) => panic!("the output holds the error {error}"),
    }
}

/// Whether a cell is what `normalized.csv` says of it: ISO dates, `TRUE` and `FALSE`, `26:00:00` for a duration.
pub fn is(cell: &Data, text: &str) -> bool {
    match cell {
        Data::Empty => text.is_empty(),
        Data::String(value) => value == text,
        Data::Bool(value) => text == if *value { "TRUE" } else { "FALSE" },
        Data::Int(value) => text.parse() == Ok(*value),
        Data::Float(value) => text.parse() == Ok(*value),
        // Half a millisecond, in days.
        Data::DateTime(value) => serial(text).is_some_and(|wanted| (value.as_f64() - wanted).abs() < 6e-9),
        Data::DateTimeIso(_) | Data::DurationIso(_) | Data::Error(_) => false,
    }
}

/// The number by which a worksheet holds a day, a moment, or a time.
fn serial(text: &str) -> Option<f64> {
    match text.split_once(' ') {
        Some((day, clock)) => Some(day_serial(day)? + clock_serial(clock)?),
        None if text.contains(':') => clock_serial(text),
        None => day_serial(text),
    }
}

fn day_serial(text: &str) -> Option<f64> {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return None };
    let month = time::Month::try_from(month.parse::<u8>().ok()?).ok()?;
    let day = time::Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    // Day 0 is 1899-12-30; worksheets count a 29 February 1900 that never was, so days before it are one lower.
    let number = day.to_julian_day() - 2_415_019;
    Some(f64::from(if number <= 60 { number - 1 } else { number }))
}

fn clock_serial(text: &str) -> Option<f64> {
    let parts: Vec<f64> = text.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hours, minutes, seconds] = parts[..] else { return None };
    Some((hours * 3600.0 + minutes * 60.0 + seconds) / 86_400.0)
}

#[test]
fn days_are_numbered_as_worksheets_number_them() {
    for (text, number) in [("1900-01-01", 1.0), ("1900-02-28", 59.0), ("1900-03-01", 61.0), ("2026-01-01", 46_023.0)] {
        assert_eq!(serial(text), Some(number), "{text}");
    }
    assert_eq!(serial("2026-01-01 18:00:00"), Some(46_023.75));
    assert_eq!(serial("30:00:00"), Some(1.25));
}
