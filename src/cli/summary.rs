//! What a person reads after a job: columns with scores, issues, time, files. Read from the artifact, which is the record.

use super::Output;
use super::style::{self, BAD, DIM, GOOD, STRONG, WARN, bytes, paint, seconds, thousands};
use crate::ids::JobId;
use crate::sandbox::Failure;
use crate::sandbox::protocol::ContainerUsage;
use crate::text::plain;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tables whose columns are listed; the artifact has all.
const SHOWN_TABLES: usize = 6;
/// Columns listed per table.
const SHOWN_COLUMNS: usize = 40;

/// The parts of an artifact that a summary needs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Summary {
    summary: Option<Totals>,
    inputs: Vec<Input>,
    sheets: Vec<Sheet>,
    diagnostics: Vec<Diagnostic>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, Serialize)]
#[serde(default)]
struct Totals {
    rows_written: u64,
    columns_written: u64,
    issues_found: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Input {
    name: String,
    format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sheet {
    name: String,
    tables: Vec<Table>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Table {
    id: String,
    range: String,
    mapping: Vec<Mapping>,
    validation: Option<Validation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mapping {
    raw: Raw,
    target_field: Option<String>,
    score: f64,
}

/// A column of a source table, as the artifact names it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Raw {
    pub(super) column: String,
    pub(super) header: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Validation {
    summary_by_field: BTreeMap<String, FieldIssues>,
}

#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default)]
struct FieldIssues {
    errors: u64,
    warnings: u64,
    info: u64,
    by_code: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Diagnostic {
    level: String,
    code: String,
    message: String,
    script: Option<String>,
    line: Option<u64>,
    count: Option<u64>,
}

impl Diagnostic {
    /// Script and line, as far as there are any.
    fn whereabouts(&self) -> String {
        match (&self.script, self.line) {
            (Some(script), Some(line)) => format!("{}:{line}", plain(script, 120)),
            (Some(script), None) => plain(script, 120),
            _ => String::new(),
        }
    }
}

impl Summary {
    /// Reads an artifact; `None` when there is none or it is of another shape.
    pub fn read(artifact: &Path) -> Option<Self> {
        serde_json::from_reader(std::io::BufReader::new(std::fs::File::open(artifact).ok()?)).ok()
    }

    fn issues(&self) -> BTreeMap<&str, FieldIssues> {
        let mut fields: BTreeMap<&str, FieldIssues> = BTreeMap::new();
        let tables = self.sheets.iter().flat_map(|sheet| &sheet.tables);
        for (field, found) in
            tables.filter_map(|table| table.validation.as_ref()).flat_map(|validation| &validation.summary_by_field)
        {
            let sum = fields.entry(field).or_default();
            sum.errors += found.errors;
            sum.warnings += found.warnings;
            sum.info += found.info;
            for (code, count) in &found.by_code {
                *sum.by_code.entry(code.clone()).or_default() += count;
            }
        }
        fields.retain(|_, found| found.errors + found.warnings + found.info > 0);
        fields
    }

    /// What is worth knowing besides how the job ended, as sentences: what was written, issues, and diagnostics.
    pub fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        if let Some(totals) = self.summary.filter(|totals| totals.columns_written > 0) {
            let (rows, issues) = (thousands(totals.rows_written), thousands(totals.issues_found));
            findings
                .push(format!("It wrote {rows} rows and {} columns, with {issues} issues.", totals.columns_written));
        }
        for (place, one) in self.worth_a_look().enumerate() {
            if place == 5 {
                findings.push("There are more diagnostics in artifact.json.".into());
                break;
            }
            let at = one.whereabouts();
            let at = if at.is_empty() { at } else { format!(" ({at})") };
            findings.push(format!("{}: {}{at}", plain(&one.code, 80), plain(&one.message, 300)));
        }
        findings
    }

    fn worth_a_look(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.level != "info")
    }

    /// The summary for programs.
    pub fn to_json(&self) -> Value {
        let columns: Vec<Value> = self
            .sheets
            .iter()
            .flat_map(|sheet| sheet.tables.iter().map(move |table| (sheet, table)))
            .flat_map(|(sheet, table)| {
                table.mapping.iter().map(move |mapping| {
                    json!({
                        "sheet": sheet.name, "table": table.id, "column": mapping.raw.column, "header": mapping.raw.header,
                        "target_field": mapping.target_field, "score": mapping.score,
                    })
                })
            })
            .collect();
        let totals = self.summary.unwrap_or_default();
        json!({
            "rows_written": totals.rows_written,
            "columns_written": totals.columns_written,
            "issues_found": totals.issues_found,
            "columns": columns,
            "issues_by_field": self.issues(),
            "diagnostics": self.diagnostics.len(),
        })
    }
}

/// A job that has ended, here or on a service.
pub struct Ended<'a> {
    /// `succeeded`, `failed` or `cancelled`.
    pub state: &'a str,
    /// Its id.
    pub id: &'a JobId,
    /// Title of what it ran.
    pub title: &'a str,
    /// Version of that.
    pub version: &'a str,
    /// Why it did not succeed.
    pub failure: Option<&'a Failure>,
    /// What it used.
    pub usage: &'a ContainerUsage,
    /// Time by phase.
    pub timings: &'a Value,
    /// Its files, and where they are.
    pub files: Vec<(String, PathBuf)>,
    /// What became of a container that Docker did not remove.
    pub left_behind: Option<&'a str>,
}

/// Tells how a job ended: as JSON, or the result on stdout and what went wrong on stderr.
pub fn tell(job: &Ended<'_>, summary: Option<&Summary>, output: Output) {
    let diagnostics = job.failure.and_then(|failure| failure.detail.as_ref()?.get("diagnostics"));
    if output.json {
        let files: serde_json::Map<String, Value> =
            job.files.iter().map(|(name, path)| (name.clone(), path.display().to_string().into())).collect();
        let mut said = json!({
            "status": job.state,
            "job_id": job.id,
            "error": job.failure,
            "files": files,
            "summary": summary.map(Summary::to_json),
            "usage": {"cpu_ms": job.usage.cpu_ms, "peak_memory_bytes": job.usage.peak_memory_bytes},
            "timings": job.timings,
            "diagnostics": diagnostics.cloned().unwrap_or_else(|| json!([])),
        });
        if let Some(left_behind) = job.left_behind {
            said["left_behind"] = left_behind.into();
        }
        println!("{said}");
        return;
    }
    style::diagnostics(diagnostics.and_then(Value::as_array).map_or(&[], Vec::as_slice));
    print(job, summary, output.quiet);
    if let Some(failure) = job.failure {
        style::failure(failure);
    }
    if let Some(left_behind) = job.left_behind {
        style::warning(left_behind);
    }
}

fn print(job: &Ended<'_>, summary: Option<&Summary>, quiet: bool) {
    let timings = job.timings;
    let style = style::state(job.state);
    let totals = summary.and_then(|summary| summary.summary).unwrap_or_default();
    let took = seconds(timings["total_ms"].as_u64().unwrap_or_default());
    let rows = if job.failure.is_none() && summary.is_some() {
        format!("{} rows × {} columns in ", thousands(totals.rows_written), totals.columns_written)
    } else {
        String::from("after ")
    };
    anstream::println!(
        "{}  {} {}  {rows}{took}",
        paint(style, job.state),
        paint(STRONG, plain(job.title, 80)),
        paint(DIM, plain(job.version, 64))
    );
    if quiet {
        return;
    }
    if let Some(summary) = summary {
        print_columns(summary);
        print_issues(summary);
        print_diagnostics(summary);
    }
    let ms = |key: &str| timings[key].as_u64().unwrap_or_default();
    let time = |key: &str| seconds(ms(key));
    // A service queues, a command prepares.
    let first = match timings.get("queue_ms") {
        Some(_) => format!("queue {}", time("queue_ms")),
        None => format!("prepare {}", time("prepare_ms")),
    };
    let memory = job.usage.peak_memory_bytes.map(|peak| format!(", peak memory {}", bytes(peak))).unwrap_or_default();
    let cpu = job.usage.cpu_ms.map(|cpu| format!("  ({} CPU{memory})", seconds(cpu))).unwrap_or_default();
    anstream::println!(
        "\n{}  {first}, start {}, run {}, collect {}{}",
        paint(STRONG, "Time"),
        seconds(ms("create_ms") + ms("start_ms")),
        time("run_ms"),
        time("collect_ms"),
        paint(DIM, cpu)
    );
    if !job.files.is_empty() {
        anstream::println!("{}", paint(STRONG, "Files"));
    }
    for (_, path) in &job.files {
        anstream::println!("  {}", path.display());
    }
}

fn print_columns(summary: &Summary) {
    let names: Vec<String> = summary
        .inputs
        .iter()
        .map(|input| {
            input
                .format
                .as_ref()
                .map_or_else(|| plain(&input.name, 60), |format| format!("{} ({format})", plain(&input.name, 60)))
        })
        .collect();
    let tables: Vec<(&Sheet, &Table)> =
        summary.sheets.iter().flat_map(|sheet| sheet.tables.iter().map(move |table| (sheet, table))).collect();
    if tables.is_empty() {
        return;
    }
    anstream::println!("\n{}  {}", paint(STRONG, "Columns"), paint(DIM, names.join(", ")));
    for (sheet, table) in tables.iter().take(SHOWN_TABLES) {
        anstream::println!("  {} {}", plain(&sheet.name, 60), paint(DIM, &table.range));
        let header = |mapping: &Mapping| plain(mapping.raw.header.as_deref().unwrap_or("(no header)"), 40);
        let width = table.mapping.iter().map(|mapping| header(mapping).chars().count()).max().unwrap_or_default();
        for mapping in table.mapping.iter().take(SHOWN_COLUMNS) {
            let (from, pad) = (header(mapping), width - header(mapping).chars().count());
            match &mapping.target_field {
                Some(field) => anstream::println!(
                    "    {from}{:pad$}  → {}  {}",
                    "",
                    paint(GOOD, field),
                    paint(DIM, format!("{:.2}", mapping.score))
                ),
                None => anstream::println!(
                    "    {from}{:pad$}  {}  {}",
                    "",
                    paint(WARN, "· unmapped"),
                    paint(DIM, format!("{:.2}", mapping.score))
                ),
            }
        }
        if table.mapping.len() > SHOWN_COLUMNS {
            anstream::println!(
                "    {}",
                paint(DIM, format!("and {} more columns", table.mapping.len() - SHOWN_COLUMNS))
            );
        }
    }
    if tables.len() > SHOWN_TABLES {
        anstream::println!(
            "  {}",
            paint(DIM, format!("and {} more tables in artifact.json", tables.len() - SHOWN_TABLES))
        );
    }
}

fn print_issues(summary: &Summary) {
    let issues = summary.issues();
    let sum = |count: fn(&FieldIssues) -> u64| issues.values().map(count).sum::<u64>();
    let (errors, warnings, infos) = (sum(|found| found.errors), sum(|found| found.warnings), sum(|found| found.info));
    if errors + warnings + infos == 0 {
        anstream::println!("\n{}  none", paint(STRONG, "Issues"));
        return;
    }
    anstream::println!(
        "\n{}  {} {}",
        paint(STRONG, "Issues"),
        paint(if errors > 0 { BAD } else { DIM }, format!("{} errors", thousands(errors))),
        paint(
            if warnings > 0 { WARN } else { DIM },
            format!("{} warnings, {} notes", thousands(warnings), thousands(infos))
        )
    );
    let width = issues.keys().map(|field| field.chars().count()).max().unwrap_or_default();
    for (field, found) in issues {
        let codes: Vec<String> =
            found.by_code.iter().map(|(code, count)| format!("{} {}", plain(code, 60), thousands(*count))).collect();
        anstream::println!("    {field:width$}  {}", codes.join(", "));
    }
}

fn print_diagnostics(summary: &Summary) {
    let worth: Vec<&Diagnostic> = summary.worth_a_look().collect();
    if worth.is_empty() {
        return;
    }
    anstream::println!("\n{}", paint(STRONG, "Diagnostics"));
    for diagnostic in worth.iter().take(10) {
        let style = if diagnostic.level == "error" { BAD } else { WARN };
        let place = diagnostic.whereabouts();
        let place = if place.is_empty() { place } else { format!(" {place}") };
        let times = diagnostic
            .count
            .filter(|count| *count > 1)
            .map(|count| format!(" (×{})", thousands(count)))
            .unwrap_or_default();
        anstream::println!(
            "    {}{place} {}{times}",
            paint(style, plain(&diagnostic.code, 80)),
            plain(&diagnostic.message, 300)
        );
    }
    if worth.len() > 10 {
        anstream::println!("    {}", paint(DIM, format!("and {} more in artifact.json", worth.len() - 10)));
    }
}
