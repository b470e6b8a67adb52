//! How a result differs from what was expected, place by place.

use super::expectation::{Expectation, ExpectedTable, Issues, Sheet};
use super::found::Found;
use serde::Serialize;
use serde_json::{Map, Value};
use similar::{Algorithm, capture_diff_slices_deadline};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Differences of one example that are kept; more are counted only.
const KEPT: usize = 1_000;
/// After so long, rows are paired as they come.
const PATIENCE: Duration = Duration::from_secs(3);

/// One place where a result differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `job`, `sheet`, `columns`, `cell`, `row`, `kinds`, `tables`, `mapping`, `issues`, `annotations` or `formats`.
    pub what: &'static str,
    /// Where: a cell and its column, a row, a table, a field.
    pub place: String,
    /// What was expected; none for nothing.
    pub expected: Option<String>,
    /// What was found; none for nothing.
    pub found: Option<String>,
}

/// Collects differences, bounded.
#[derive(Debug, Default)]
struct Differences {
    kept: Vec<Difference>,
    total: usize,
}

impl Differences {
    fn add(&mut self, what: &'static str, place: impl Into<String>, expected: Option<String>, found: Option<String>) {
        self.total += 1;
        if self.kept.len() < KEPT {
            self.kept.push(Difference { what, place: place.into(), expected, found });
        }
    }
}

/// All differences, the first 1,000 of them in words.
pub fn compare(expectation: &Expectation, sheet: Option<&Sheet>, found: &Found) -> (Vec<Difference>, usize) {
    let mut differences = Differences::default();
    let all = &mut differences;
    let of = &found.expectation;
    if let (Some(wanted), Some(have)) = (&expectation.sheet, &of.sheet)
        && wanted != have
    {
        all.add("sheet", "name of the output sheet", Some(wanted.clone()), Some(have.clone()));
    }
    if let Some(sheet) = sheet {
        cells(sheet, found, all);
    }
    if let (Some(wanted), Some(have)) = (&expectation.kinds, &of.kinds) {
        for (header, kinds) in wanted {
            let have = have.get(header).cloned().unwrap_or_default();
            if *kinds != have {
                all.add("kinds", format!("column {header}"), Some(kinds.join(", ")), Some(have.join(", ")));
            }
        }
    }
    if let (Some(wanted), Some(have)) = (&expectation.tables, &of.tables) {
        tables(wanted, have, all);
    }
    if let (Some(wanted), Some(have)) = (&expectation.issues, &of.issues) {
        issues(wanted, have, all);
    }
    for wanted in expectation.annotations.iter().flatten() {
        if !found.annotations.iter().any(|have| holds(have, wanted)) {
            let stage = wanted.get("stage").and_then(Value::as_str).unwrap_or_default();
            let of_stage: Vec<&Value> = found.annotations.iter().filter(|have| have["stage"] == *stage).collect();
            let have = (!of_stage.is_empty()).then(|| serde_json::json!(of_stage).to_string());
            all.add("annotations", stage, Some(Value::Object(wanted.clone()).to_string()), have);
        }
    }
    for (name, wanted) in expectation.formats.iter().flatten() {
        let have = found.inputs.iter().find(|input| input["name"] == **name);
        for (key, value) in wanted {
            let have = have.map(|input| &input[key]);
            if have != Some(value) {
                all.add("formats", format!("{key} of {name}"), Some(value.to_string()), have.map(ToString::to_string));
            }
        }
    }
    (differences.kept, differences.total)
}

fn holds(have: &Value, wanted: &Map<String, Value>) -> bool {
    wanted.iter().all(|(key, value)| have[key] == *value)
}

/// Compares columns of the same header, and rows that belong together.
fn cells(wanted: &Sheet, found: &Found, all: &mut Differences) {
    let have = &found.sheet;
    if wanted.headers != have.headers {
        all.add("columns", "headers of the output", Some(wanted.headers.join(", ")), Some(have.headers.join(", ")));
    }
    // The nth column of a header is the nth of the same header.
    let mut used = BTreeSet::new();
    let columns: Vec<(usize, usize)> = wanted
        .headers
        .iter()
        .enumerate()
        .filter_map(|(at, header)| {
            let place =
                (0..have.headers.len()).find(|other| have.headers[*other] == *header && !used.contains(other))?;
            used.insert(place);
            Some((at, place))
        })
        .collect();
    let keys = |sheet: &Sheet, side: fn(&(usize, usize)) -> usize| -> Vec<Vec<String>> {
        let key = |row: &Vec<String>| columns.iter().map(|pair| spelled(&row[side(pair)])).collect();
        sheet.rows.iter().map(key).collect()
    };
    let (before, after) = (keys(wanted, |pair| pair.0), keys(have, |pair| pair.1));
    let deadline = Some(Instant::now() + PATIENCE);
    for op in capture_diff_slices_deadline(Algorithm::Myers, &before, &after, deadline) {
        // Rows in the place of others are compared one by one; what is left of either side is missing, or new.
        let (old, new) = (op.old_range(), op.new_range());
        let paired = old.len().min(new.len());
        for (expected, got) in old.clone().zip(new.clone()) {
            for (at, place) in &columns {
                let (text, cell) = (&wanted.rows[expected][*at], &have.rows[got][*place]);
                if !same(text, cell, found.is_number(got, *place)) {
                    let place = format!("{}{} {}", letters(*place), got + 2, have.headers[*place]);
                    all.add("cell", place, Some(text.clone()), Some(cell.clone()));
                }
            }
        }
        for row in old.skip(paired) {
            all.add("row", format!("row {}", row + 2), Some(wanted.rows[row].join(", ")), None);
        }
        for row in new.skip(paired) {
            all.add("row", format!("row {}", row + 2), None, Some(have.rows[row].join(", ")));
        }
    }
}

/// Numbers in one spelling, for finding rows that belong together.
fn spelled(text: &str) -> String {
    text.parse::<f64>()
        .ok()
        .filter(|number| number.is_finite())
        .map_or_else(|| text.to_owned(), |number| number.to_string())
}

/// Whether a cell is what the text says: of a number, in any spelling.
fn same(text: &str, cell: &str, number: bool) -> bool {
    text == cell
        || number
            && matches!((text.trim().parse::<f64>(), cell.parse::<f64>()), (Ok(wanted), Ok(have)) if wanted.to_bits() == have.to_bits())
}

fn letters(index: usize) -> String {
    let (mut rest, mut text) = (index + 1, Vec::new());
    while rest > 0 {
        text.push(b'A' + u8::try_from((rest - 1) % 26).unwrap_or_default());
        rest = (rest - 1) / 26;
    }
    text.into_iter().rev().map(char::from).collect()
}

fn tables(wanted: &[ExpectedTable], have: &[ExpectedTable], all: &mut Differences) {
    let place = |table: &ExpectedTable| format!("{} {} {}", table.input, table.sheet, table.range);
    let shown = |table: &ExpectedTable| format!("{}, header {}", place(table), table.header);
    let field = |field: Option<&(Option<String>, Option<String>)>| {
        field.map(|(_, field)| field.clone().unwrap_or_else(|| "no field".to_owned()))
    };
    for index in 0..wanted.len().max(have.len()) {
        let (wanted, have) = (wanted.get(index), have.get(index));
        let number = format!("table {}", index + 1);
        if wanted.map(shown) != have.map(shown) {
            all.add("tables", number, wanted.map(shown), have.map(shown));
        }
        let (Some(wanted), Some(have)) = (wanted, have) else { continue };
        for column in 0..wanted.mapping.len().max(have.mapping.len()) {
            let (wanted, have) = (wanted.mapping.get(column), have.mapping.get(column));
            if wanted == have {
                continue;
            }
            let header = |side: Option<&(Option<String>, Option<String>)>| side.and_then(|(header, _)| header.clone());
            let (before, after) = (header(wanted), header(have));
            let name = before.clone().or_else(|| after.clone()).unwrap_or_else(|| "(no header)".to_owned());
            let at = format!("table {}, column {} {name}", index + 1, column + 1);
            if before == after || wanted.is_none() || have.is_none() {
                all.add("mapping", at, field(wanted), field(have));
            } else {
                all.add("mapping", at, before, after);
            }
        }
    }
}

fn issues(wanted: &Issues, have: &Issues, all: &mut Differences) {
    let keys = |issues: &Issues| -> Vec<(String, String)> {
        issues.iter().flat_map(|(field, codes)| codes.keys().map(move |code| (field.clone(), code.clone()))).collect()
    };
    let both: BTreeSet<(String, String)> = keys(wanted).into_iter().chain(keys(have)).collect();
    for (field, code) in both {
        let count =
            |issues: &Issues| issues.get(&field).and_then(|codes| codes.get(&code)).copied().unwrap_or_default();
        let (wanted, have) = (count(wanted), count(have));
        if wanted != have {
            all.add("issues", format!("{field} {code}"), Some(wanted.to_string()), Some(have.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Cell, Cells};
    use serde_json::json;

    fn cell(text: &str) -> Option<Cell> {
        let kind = if text.parse::<f64>().is_ok() { "number" } else { "text" };
        (!text.is_empty()).then(|| Cell { kind: kind.to_owned(), text: text.to_owned() })
    }

    fn found(csv: &str) -> Found {
        let sheet = Sheet::parse(csv.as_bytes()).unwrap();
        let rows = std::iter::once(&sheet.headers).chain(&sheet.rows);
        let rows = rows.map(|row| row.iter().map(|text| cell(text)).collect()).collect();
        let artifact = json!({
            "inputs": [{"name": "in.csv", "format": "csv"}],
            "summary": {"rows_written": sheet.rows.len()},
            "sheets": [{"name": "in", "input": 1, "tables": [{
                "range": "A1:B3", "header": {"kind": "raw"},
                "mapping": [{"raw": {"header": "N"}, "target_field": "name"}, {"raw": {"header": "X"}, "target_field": null}],
                "validation": {"summary_by_field": {"name": {"by_code": {"required_missing": 2}}}},
            }]}],
            "annotations": [{"stage": "on_job_end", "ready": true, "more": 1}],
        });
        Found::new(&artifact, Cells { sheet: "Out".to_owned(), rows })
    }

    fn told(wanted: &str, have: &str) -> Vec<(String, Option<String>, Option<String>)> {
        let sheet = Sheet::parse(wanted.as_bytes()).unwrap();
        let (all, total) = compare(&Expectation::default(), Some(&sheet), &found(have));
        assert_eq!(all.len(), total);
        all.into_iter().map(|one| (one.place, one.expected, one.found)).collect()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_cell_is_named_by_its_place_and_its_header() {
        assert_eq!(
            told("Name,Fee\nAda,35\nBo,1\n", "Name,Fee\nAda,35\nBo,2\n"),
            [("B3 Fee".to_owned(), some("1"), some("2"))]
        );
        assert_eq!(told("Name,Fee\nAda,17.50\n", "Name,Fee\nAda,17.5\n"), [], "a number in another spelling");
        assert_eq!(told("Name\n0012\n", "Name\n12\n").len(), 0, "kinds tell text from numbers");
    }

    #[test]
    fn a_row_that_is_missing_or_new_is_one_difference() {
        let whole = "Name,Fee\nAda,1\nBo,2\nCy,3\n";
        assert_eq!(told(whole, "Name,Fee\nAda,1\nCy,3\n"), [("row 3".to_owned(), some("Bo, 2"), None)]);
        assert_eq!(told("Name,Fee\nBo,2\nCy,3\n", whole), [("row 2".to_owned(), None, some("Ada, 1"))]);
    }

    #[test]
    fn columns_in_another_order_are_said_once_and_compared_by_header() {
        let told = told("Name,Fee\nAda,1\n", "Fee,Name\n1,Ada\n");
        assert_eq!(told, [("headers of the output".to_owned(), some("Name, Fee"), some("Fee, Name"))]);
    }

    #[test]
    fn all_else_is_compared_as_far_as_it_is_given() {
        let have = found("Name\nAda\n");
        let compared = |expectation: Value| {
            let expectation = Expectation::parse(expectation.to_string().as_bytes()).unwrap();
            compare(&expectation, None, &have).0.into_iter().map(|one| (one.what, one.place)).collect::<Vec<_>>()
        };
        assert_eq!(compared(serde_json::to_value(&have.expectation).unwrap()), []);
        assert_eq!(
            compared(
                json!({"annotations": [{"stage": "on_job_end", "ready": true}], "formats": {"in.csv": {"format": "csv"}}})
            ),
            []
        );
        for (wrong, what, place) in [
            (json!({"sheet": "Other"}), "sheet", "name of the output sheet"),
            (json!({"kinds": {"Name": ["number"]}}), "kinds", "column Name"),
            (json!({"tables": []}), "tables", "table 1"),
            (json!({"issues": {}}), "issues", "name required_missing"),
            (json!({"annotations": [{"stage": "on_job_end", "ready": false}]}), "annotations", "on_job_end"),
            (json!({"formats": {"in.csv": {"format": "xlsx"}}}), "formats", "format of in.csv"),
        ] {
            assert_eq!(compared(wrong), [(what, place.to_owned())]);
        }
        let mut other = serde_json::to_value(&have.expectation).unwrap();
        other["tables"][0]["mapping"][1][1] = json!("email");
        assert_eq!(compared(other), [("mapping", "table 1, column 2 X".to_owned())]);
    }
}
