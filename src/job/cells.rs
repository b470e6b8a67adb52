//! Reading a result back: a container that runs nothing of a package parses the workbook, so that this program need not.

use super::request::{Ask, Parts, request};
use super::{Identity, Input, Node, container_name, host_io};
use crate::egress::Grant;
use crate::events::now;
use crate::network::Purpose;
use crate::packages::Package;
use crate::sandbox::{self, Failure, FailureKind, Outcome};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What the container brings out.
const CELLS: &str = "cells.ndjson";
/// Rows of a worksheet.
const MAX_ROWS: usize = 1_048_576;

/// A cell with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// `text`, `number`, `boolean`, `date`, `datetime`, `time` or `duration`.
    pub kind: String,
    /// Its value: ISO 8601 for days and times, `TRUE` and `FALSE`, `26:05:00` for a duration.
    pub text: String,
}

/// The cells of a workbook's first sheet.
#[derive(Debug, Clone, Default)]
pub struct Cells {
    /// Its name.
    pub sheet: String,
    /// Rows from the first one of the sheet on, blank ones too; each as long as its last value needs.
    pub rows: Vec<Vec<Option<Cell>>>,
}

/// Reads the first sheet of a workbook in a container. `package` gives the container its working directory; none of it runs.
///
/// # Errors
/// A [`Failure`] when it could not be read.
pub async fn read_cells(
    node: &Node,
    package: &Package,
    workbook: &Path,
    cancel: watch::Receiver<bool>,
) -> Result<Cells, Failure> {
    let input = Input::open(workbook)?;
    let identity = Identity::local();
    let limits = super::default_limits(node)?;
    let parts = Parts {
        identity: &identity,
        package,
        inputs: std::slice::from_ref(&input),
        limits: &limits,
        network: Value::Null,
        dependencies: Value::Null,
        lock_sha256: None,
        mounts: &[],
        egress: Grant::denied(Purpose::Run, "reading a result runs no code of a package".to_owned()),
    };
    let outputs = Arc::new(tempfile::tempdir().map_err(|error| host_io(&std::env::temp_dir(), &error))?);
    let (name, started_at) = (container_name(&identity.job_id, identity.execution), now());
    let ask =
        Ask { mode: "read", name: &name, started_at: &started_at, outputs: Arc::clone(&outputs), expected: &[CELLS] };
    let request = request(node, &parts, ask);
    let (notices, mut ignored) = mpsc::channel(64);
    let (report, ()) = tokio::join!(
        async {
            let report = sandbox::run(&node.pool, request, cancel, &notices).await;
            drop(notices);
            report
        },
        async { while ignored.recv().await.is_some() {} }
    );
    match report?.outcome {
        Outcome::Succeeded(_) => {}
        Outcome::Failed(failure) | Outcome::Cancelled(failure) => return Err(failure),
    }
    let path = outputs.path().join(CELLS);
    let parsed = tokio::task::spawn_blocking(move || parse(BufReader::new(File::open(path).ok()?)));
    let parsed = parsed.await.ok().flatten();
    parsed.ok_or_else(|| {
        Failure::new(FailureKind::OutputInvalid, "the cells that the runner read have another shape than they should")
    })
}

/// `{"sheet": name}`, then `[row number, [[kind, text] or null, …]]` in rising order.
fn parse(lines: impl BufRead) -> Option<Cells> {
    let mut lines = lines.lines();
    let head: Value = serde_json::from_str(&lines.next()?.ok()?).ok()?;
    let mut cells = Cells { sheet: head["sheet"].as_str()?.to_owned(), rows: Vec::new() };
    for line in lines {
        let (number, row): (usize, Vec<Option<(String, String)>>) = serde_json::from_str(&line.ok()?).ok()?;
        if number <= cells.rows.len() || number > MAX_ROWS {
            return None;
        }
        cells.rows.resize(number - 1, Vec::new());
        cells.rows.push(row.into_iter().map(|cell| cell.map(|(kind, text)| Cell { kind, text })).collect());
    }
    Some(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_were_left_out_are_blank_and_anything_out_of_shape_is_refused() {
        let good = "{\"sheet\":\"S\"}\n[1,[[\"text\",\"a\"]]]\n[3,[null,[\"number\",\"1\"]]]\n";
        let cells = parse(good.as_bytes()).unwrap();
        assert_eq!((cells.sheet.as_str(), cells.rows.len(), cells.rows[1].len()), ("S", 3, 0));
        let one = Cell { kind: "number".to_owned(), text: "1".to_owned() };
        assert_eq!(cells.rows[2], [None, Some(one)]);
        for bad in [
            "", "{}", "{\"sheet\":\"S\"}\n[0,[]]", "{\"sheet\":\"S\"}\n[2,[]]\n[2,[]]",
            "{\"sheet\":\"S\"}\n[99999999,[]]",
        ] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
