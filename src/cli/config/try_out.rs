//! `ade config try`: which column became which field, and why. Read from the artifact, which is the record.

use super::local::Checked;
use crate::cli::progress::Screen;
use crate::cli::style::{BAD, DIM, GOOD, STRONG, WARN, paint};
use crate::cli::summary::Raw;
use crate::cli::{Exit, Output, fail, style};
use crate::packages::Manifest;
use crate::sandbox::Failure;
use crate::settings::Settings;
use crate::text::plain;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

/// The threshold of a manifest that sets none.
const THRESHOLD: f64 = 0.5;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Config package: a folder, or a zip of one
    package: PathBuf,
    /// Workbooks: xlsx, xlsm, xlsb, xls, ods, csv or tsv
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
}

/// The parts of an artifact that tell how columns were mapped.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Artifact {
    inputs: Vec<Input>,
    sheets: Vec<Sheet>,
    diagnostics: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Input {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sheet {
    name: String,
    input: usize,
    tables: Vec<Table>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Table {
    id: String,
    range: String,
    header: Header,
    columns: Vec<SourceColumn>,
    mapping: Vec<Mapping>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Header {
    kind: String,
    row_index: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SourceColumn {
    column_id: String,
    column: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mapping {
    raw: Raw,
    target_field: Option<String>,
    score: f64,
    contributors: Vec<Contributor>,
    wanted_field: Option<String>,
    lost_to: Option<String>,
    runner_up: Option<RunnerUp>,
}

#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default)]
struct Contributor {
    rule: String,
    delta: f64,
}

#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default)]
struct RunnerUp {
    field: String,
    score: f64,
    contributors: Vec<Contributor>,
}

/// What became of a column, and why.
#[derive(Debug, Serialize)]
struct Told {
    /// Letter of the column in its sheet.
    column: String,
    header: Option<String>,
    field: Option<String>,
    score: f64,
    /// `mapped`, `below_threshold`, `lost` or `not_scored`.
    reason: &'static str,
    why: String,
    contributors: Vec<Contributor>,
    runner_up: Option<RunnerUp>,
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let checked = match Checked::open(&args.package, settings).await {
        Ok(checked) => checked,
        Err(refusal) => return fail(&refusal.failure, &refusal.diagnostics, output),
    };
    let manifest = checked.manifest.clone();
    let mut screen = Screen::new(output.quiet || output.json);
    let result = async {
        let local = checked.ready(settings, &screen).await?;
        local.run(args.inputs, &mut screen).await
    }
    .await;
    screen.close();
    match result {
        Err(failure) => fail(&failure, &[], output),
        Ok(done) => {
            let artifact = Artifact::deserialize(done.artifact).unwrap_or_default();
            report(&artifact, &manifest, done.report.outcome.failure(), output)
        }
    }
}

fn report(artifact: &Artifact, manifest: &Manifest, failure: Option<&Failure>, output: Output) -> ExitCode {
    let threshold = manifest.defaults.mapping_score_threshold.unwrap_or(THRESHOLD);
    let tables: Vec<(&Sheet, &Table, Vec<Told>)> = artifact
        .sheets
        .iter()
        .flat_map(|sheet| sheet.tables.iter().map(move |table| (sheet, table, tell(table, threshold))))
        .collect();
    if output.json {
        let tables: Vec<Value> = tables
            .iter()
            .map(|(sheet, table, told)| {
                json!({
                    "input": input(artifact, sheet), "sheet": sheet.name, "table": table.id, "range": table.range,
                    "header": table.header.kind, "header_row": table.header.row_index, "columns": told,
                    "fields_without_column": unfilled(manifest, told),
                })
            })
            .collect();
        println!(
            "{}",
            json!({
                "status": if failure.is_some() { "failed" } else { "succeeded" }, "error": failure, "threshold": threshold,
                "tables": tables, "diagnostics": artifact.diagnostics,
            })
        );
    } else {
        for (sheet, table, told) in &tables {
            print(artifact, sheet, table, told, threshold, manifest);
        }
        if tables.is_empty() && failure.is_none() {
            style::warning(
                "no table was found in any sheet; row_classification in artifact.json of `ade run` tells why",
            );
        }
        diagnostics(&artifact.diagnostics);
        if let Some(failure) = failure {
            style::failure(failure);
        }
    }
    failure.map_or(Exit::Success, Exit::from).into()
}

fn input<'a>(artifact: &'a Artifact, sheet: &Sheet) -> &'a str {
    sheet.input.checked_sub(1).and_then(|index| artifact.inputs.get(index)).map_or("", |input| &input.name)
}

/// Enabled fields that no column of the table became.
fn unfilled<'a>(manifest: &'a Manifest, told: &[Told]) -> Vec<&'a str> {
    let filled: BTreeSet<&str> = told.iter().filter_map(|one| one.field.as_deref()).collect();
    let fields = manifest.columns.iter().filter(|column| column.enabled).map(|column| column.field.as_str());
    fields.filter(|field| !filled.contains(field)).collect()
}

fn tell(table: &Table, threshold: f64) -> Vec<Told> {
    let letter = |id: &str| {
        let column = table.columns.iter().find(|column| column.column_id == id);
        column.map_or_else(|| plain(id, 60), |column| plain(&column.column, 4))
    };
    let rival = |id: &str| table.mapping.iter().find(|other| other.raw.column == id);
    table
        .mapping
        .iter()
        .map(|one| {
            let (reason, why) = match (&one.target_field, &one.wanted_field, &one.runner_up) {
                (Some(_), ..) => ("mapped", String::new()),
                (None, Some(wanted), _) => {
                    let to = one.lost_to.as_deref().unwrap_or_default();
                    let score = rival(to).map(|other| other.score).unwrap_or_default();
                    let how = if score > one.score { "scored" } else { "stands further left with" };
                    ("lost", format!("{} went to column {}, which {how} {score:.2}", plain(wanted, 60), letter(to)))
                }
                (None, None, Some(near)) => (
                    "below_threshold",
                    format!(
                        "{} comes nearest: {:.2} is below the threshold {threshold:.2}",
                        plain(&near.field, 60),
                        near.score
                    ),
                ),
                (None, None, None) => ("not_scored", "no detector scored it for any field".to_owned()),
            };
            Told {
                column: letter(&one.raw.column),
                header: one.raw.header.clone(),
                field: one.target_field.clone(),
                score: one.score,
                reason,
                why,
                contributors: one.contributors.clone(),
                runner_up: one.runner_up.clone(),
            }
        })
        .collect()
}

fn print(artifact: &Artifact, sheet: &Sheet, table: &Table, told: &[Told], threshold: f64, manifest: &Manifest) {
    let header = match (table.header.kind.as_str(), table.header.row_index) {
        ("raw", Some(row)) => format!("header in row {row}"),
        (kind, _) => format!("{} header", plain(kind, 20)),
    };
    anstream::println!(
        "{}  {}  {}",
        paint(STRONG, plain(input(artifact, sheet), 80)),
        plain(&sheet.name, 60),
        paint(DIM, format!("{}, {header}, threshold {threshold:.2}", plain(&table.range, 30)))
    );
    let mut rows: Vec<[String; 5]> = Vec::new();
    for one in told {
        let field = one.field.as_deref().map_or_else(|| "· unmapped".to_owned(), |field| plain(field, 60));
        let name = one.header.as_deref().map_or_else(|| "(no header)".to_owned(), |header| plain(header, 40));
        let mut reasons: Vec<String> = Vec::new();
        reasons.extend((!one.why.is_empty()).then(|| one.why.clone()));
        reasons.extend(one.contributors.iter().map(|by| format!("{:+.2}  {}", by.delta, plain(&by.rule, 120))));
        if let Some(next) = &one.runner_up {
            if one.reason != "below_threshold" {
                reasons.push(format!("next best: {} {:.2}", plain(&next.field, 60), next.score));
            }
            let by = next.contributors.iter();
            reasons.extend(
                by.map(|by| format!("{:+.2}  {} for {}", by.delta, plain(&by.rule, 120), plain(&next.field, 60))),
            );
        }
        let mut reasons = reasons.into_iter();
        rows.push([one.column.clone(), name, field, format!("{:.2}", one.score), reasons.next().unwrap_or_default()]);
        rows.extend(reasons.map(|reason| [String::new(), String::new(), String::new(), String::new(), reason]));
    }
    style::table(["COLUMN", "HEADER", "FIELD", "SCORE", "WHY"], &rows);
    let without = unfilled(manifest, told);
    if without.is_empty() {
        anstream::println!("{}", paint(GOOD, "every field has a column"));
    } else {
        anstream::println!("{} {}", paint(WARN, "fields without a column:"), without.join(", "));
    }
    anstream::println!();
}

/// What scripts did wrong on the way: a detector that raised has no say in a score.
fn diagnostics(diagnostics: &[Value]) {
    for one in diagnostics.iter().filter(|one| one["level"] != "info") {
        let text = |key: &str| plain(one[key].as_str().unwrap_or_default(), 500);
        let line = one["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
        let script = text("script");
        let place = if script.is_empty() { String::new() } else { format!(" {script}{line}:") };
        let style = if one["level"] == "error" { BAD } else { WARN };
        anstream::eprintln!(
            "{}{place} {}",
            paint(style, format!("{}[{}]", text("level"), text("code"))),
            text("message")
        );
    }
}
