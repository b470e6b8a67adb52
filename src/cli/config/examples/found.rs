//! What a job gave, in the terms of an expectation.

use super::expectation::{Expectation, ExpectedTable, Issues, Sheet};
use crate::job::{Cell, Cells};
use indexmap::IndexMap;
use serde_json::Value;
use std::collections::BTreeSet;

/// What a job gave: its artifact, and the cells of its workbook.
#[derive(Debug)]
pub struct Found {
    /// All but the cells; complete, save what hooks said and what inputs are.
    pub expectation: Expectation,
    /// The cells as text.
    pub sheet: Sheet,
    /// Which of them are numbers, which may be spelled in several ways.
    numbers: Vec<Vec<bool>>,
    /// What hooks left.
    pub annotations: Vec<Value>,
    /// The inputs, and what was found out about them.
    pub inputs: Vec<Value>,
}

impl Found {
    /// Takes what can be compared out of an artifact and the cells of the workbook.
    pub fn new(artifact: &Value, cells: Cells) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let inputs = list(&artifact["inputs"]);
        let (tables, issues) = tables(artifact, &inputs);
        let mut rows = cells.rows.into_iter();
        let text = |cell: Option<Cell>| cell.map(|cell| cell.text).unwrap_or_default();
        let headers: Vec<String> = rows.next().unwrap_or_default().into_iter().map(text).collect();
        let mut kinds: Vec<BTreeSet<String>> = vec![BTreeSet::new(); headers.len()];
        let (mut sheet, mut numbers) = (Sheet::default(), Vec::new());
        for mut row in rows {
            row.resize(headers.len(), None);
            for (kinds, cell) in kinds.iter_mut().zip(&row) {
                kinds.extend(cell.as_ref().map(|cell| cell.kind.clone()));
            }
            numbers.push(row.iter().map(|cell| cell.as_ref().is_some_and(|cell| cell.kind == "number")).collect());
            sheet.rows.push(row.into_iter().map(text).collect());
        }
        // Rows at the end that hold nothing are in no workbook: the artifact knows how many were written.
        let written = artifact["summary"]["rows_written"].as_u64().and_then(|rows| usize::try_from(rows).ok());
        let blank = written.unwrap_or_default().min(1_048_576).max(sheet.rows.len());
        sheet.rows.resize(blank, vec![String::new(); headers.len()]);
        let kinds: IndexMap<String, Vec<String>> =
            headers.iter().cloned().zip(kinds.into_iter().map(|kinds| kinds.into_iter().collect())).collect();
        sheet.headers = headers;
        let expectation = Expectation {
            inputs: inputs.iter().filter_map(|input| input["name"].as_str().map(str::to_owned)).collect(),
            sheet: Some(cells.sheet),
            kinds: Some(kinds),
            tables: Some(tables),
            issues: Some(issues),
            ..Expectation::default()
        };
        Self { expectation, sheet, numbers, annotations: list(&artifact["annotations"]), inputs }
    }

    /// Whether a cell is a number.
    pub fn is_number(&self, row: usize, column: usize) -> bool {
        self.numbers.get(row).and_then(|row| row.get(column)).copied().unwrap_or_default()
    }
}

fn tables(artifact: &Value, inputs: &[Value]) -> (Vec<ExpectedTable>, Issues) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let some = |value: &Value| value.as_str().map(str::to_owned);
    let (mut tables, mut issues) = (Vec::new(), Issues::new());
    for sheet in artifact["sheets"].as_array().into_iter().flatten() {
        let input = sheet["input"].as_u64().and_then(|number| usize::try_from(number).ok()?.checked_sub(1));
        let input = input.and_then(|index| inputs.get(index)).map(|input| text(&input["name"]));
        for table in sheet["tables"].as_array().into_iter().flatten() {
            let mapping = table["mapping"].as_array().into_iter().flatten();
            tables.push(ExpectedTable {
                input: input.clone().unwrap_or_default(),
                sheet: text(&sheet["name"]),
                range: text(&table["range"]),
                header: text(&table["header"]["kind"]),
                mapping: mapping.map(|one| (some(&one["raw"]["header"]), some(&one["target_field"]))).collect(),
            });
            for (field, summary) in table["validation"]["summary_by_field"].as_object().into_iter().flatten() {
                for (code, count) in summary["by_code"].as_object().into_iter().flatten() {
                    *issues.entry(field.clone()).or_default().entry(code.clone()).or_default() +=
                        count.as_u64().unwrap_or_default();
                }
            }
        }
    }
    (tables, issues)
}
