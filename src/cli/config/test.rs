//! `ade config test`: what a package makes of its own examples, against what is expected.

use super::examples::{Difference, EXPECTED, Example, Expectation, Found, NORMALIZED, compare, examples, to_text};
use super::local::{Checked, Local};
use crate::cli::progress::Screen;
use crate::cli::style::{BAD, DIM, GOOD, STRONG, WARN, paint, seconds};
use crate::cli::{Exit, Output, fail, style};
use crate::packages::EXAMPLES;
use crate::sandbox::{Failure, FailureKind};
use crate::settings::Settings;
use crate::text::plain;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Differences of one example that are shown to people.
const SHOWN: usize = 40;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Config package: a folder, or a zip of one
    package: PathBuf,
    /// Examples to run, by the names of their folders [default: all]
    #[arg(value_name = "EXAMPLE")]
    names: Vec<String>,
    /// Write what comes out as what is expected; look at the changes before you commit them
    #[arg(long)]
    update: bool,
}

/// What became of one example.
struct Tested {
    name: String,
    differences: Vec<Difference>,
    total: usize,
    /// Why the job failed, when that was not expected.
    failure: Option<Failure>,
    updated: bool,
    /// Nothing is expected of it, and nothing was written.
    undefined: bool,
    took_ms: u64,
}

impl Tested {
    fn passed(&self) -> bool {
        self.total == 0 && self.failure.is_none() && !self.undefined
    }
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let checked = match Checked::open(&args.package, settings).await {
        Ok(checked) => checked,
        Err(refusal) => return fail(&refusal.failure, &refusal.diagnostics, output),
    };
    let title = plain(&checked.manifest.info.title, 80);
    let mut screen = Screen::new(output.quiet || output.json);
    let result = run(&args, checked, settings, &mut screen, output).await;
    screen.close();
    match result {
        Err(failure) => fail(&failure, &[], output),
        Ok(tested) => report(&tested, &title, output),
    }
}

async fn run(
    args: &Args,
    checked: Checked,
    settings: &Settings,
    screen: &mut Screen,
    output: Output,
) -> Result<Vec<Tested>, Failure> {
    let invalid = |message: String| Failure::new(FailureKind::PackageInvalid, message);
    if args.update && !args.package.is_dir() {
        return Err(invalid("--update writes into the package: give its folder, not a zip".to_owned()));
    }
    let mut chosen = examples(&checked.package)?;
    if let Some(unknown) = args.names.iter().find(|name| !chosen.iter().any(|one| one.name == **name)) {
        let known: Vec<String> = chosen.iter().map(|one| plain(&one.name, 80)).collect();
        return Err(invalid(format!("there is no example {unknown:?}; there are: {}", known.join(", "))));
    }
    chosen.retain(|one| args.names.is_empty() || args.names.contains(&one.name));
    if chosen.is_empty() {
        return Err(invalid(format!(
            "the package has no example: make a folder {EXAMPLES}/NAME with a workbook in it, and run this with --update"
        )));
    }
    let local = checked.ready(settings, screen).await?;
    let mut tested = Vec::new();
    for example in chosen {
        screen.say(&format!("example {}", plain(&example.name, 80)));
        let one = test(&local, example, args, screen).await?;
        if !output.json {
            screen.pause(|| print(&one));
        }
        tested.push(one);
    }
    Ok(tested)
}

async fn test(local: &Local, example: Example, args: &Args, screen: &mut Screen) -> Result<Tested, Failure> {
    let started = Instant::now();
    let folder = tempfile::Builder::new().prefix("ade-").tempdir().map_err(|error| unwritable("inputs", &error))?;
    let mut inputs = Vec::new();
    for (name, content) in &example.inputs {
        let path = folder.path().join(name);
        std::fs::write(&path, content).map_err(|error| unwritable(name, &error))?;
        inputs.push(path);
    }
    let done = local.run(inputs, screen).await?;
    let mut tested = Tested {
        name: example.name.clone(),
        differences: Vec::new(),
        total: 0,
        failure: None,
        updated: false,
        undefined: false,
        took_ms: 0,
    };
    let failure = done.report.outcome.failure();
    if let Some(failure) = failure.filter(|failure| failure.kind.fault() == crate::sandbox::Fault::Environment) {
        return Err(failure.clone());
    }
    match (failure, &example.expectation.error) {
        (Some(failure), Some(expected)) if failure.kind.as_str() == expected.kind => {}
        (Some(failure), expected) => {
            let expected = expected.as_ref().map(|error| error.kind.clone());
            let expected = expected.unwrap_or_else(|| "the job succeeds".to_owned());
            let found = format!("{}: {}", failure.kind, failure.message);
            tested.differences.push(Difference {
                what: "job",
                place: "job".to_owned(),
                expected: Some(expected),
                found: Some(found),
            });
            tested.total = 1;
            tested.failure = Some(failure.clone());
        }
        (None, Some(expected)) if !args.update => {
            let (expected, found) = (Some(expected.kind.clone()), Some("the job succeeds".to_owned()));
            tested.differences.push(Difference { what: "job", place: "job".to_owned(), expected, found });
            tested.total = 1;
        }
        (None, _) => {
            let found = Found::new(&done.artifact, local.cells(&done).await?);
            if args.update {
                tested.updated = update(&args.package, &example, found)?;
            } else {
                (tested.differences, tested.total) = compare(&example.expectation, example.sheet.as_ref(), &found);
                tested.undefined = !example.expects();
            }
        }
    }
    tested.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(tested)
}

/// Writes what was found, beside what only the author can know; says whether anything changed.
fn update(package: &Path, example: &Example, found: Found) -> Result<bool, Failure> {
    let folder = package.join(EXAMPLES).join(&example.name);
    let sheet = found.sheet.to_csv();
    let Expectation { annotations, formats, .. } = example.expectation.clone();
    let expectation = Expectation { annotations, formats, ..found.expectation };
    let value = serde_json::to_value(&expectation).map_err(|error| unwritable(EXPECTED, &error))?;
    let mut changed = false;
    for (name, content) in [(NORMALIZED, sheet), (EXPECTED, to_text(&value).into_bytes())] {
        let path = folder.join(name);
        if std::fs::read(&path).is_ok_and(|before| before == content) {
            continue;
        }
        changed = true;
        std::fs::write(&path, content).map_err(|error| unwritable(&path.display().to_string(), &error))?;
    }
    Ok(changed)
}

fn unwritable(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::HostIo, format!("cannot write {}: {error}", plain(what, 300)))
}

fn print(one: &Tested) {
    let name = paint(STRONG, plain(&one.name, 80));
    let took = paint(DIM, seconds(one.took_ms));
    if one.updated {
        anstream::println!("{}  {name}  {took}", paint(WARN, "updated"));
    } else if one.undefined {
        let how = "nothing is expected of it; --update writes what comes out";
        anstream::println!("{}  {name}  {took}  {how}", paint(BAD, "differs"));
    } else if one.passed() {
        anstream::println!("{}   {name}  {took}", paint(GOOD, "passed"));
    } else {
        let count = if one.total == 1 { "1 difference".to_owned() } else { format!("{} differences", one.total) };
        anstream::println!("{}  {name}  {took}  {count}", paint(BAD, "differs"));
    }
    let shown = &one.differences[..one.differences.len().min(SHOWN)];
    let place = |one: &Difference| plain(&one.place, 60);
    let width = shown.iter().map(|one| place(one).chars().count()).max().unwrap_or_default();
    for difference in shown {
        let side = |text: &Option<String>| match text {
            Some(text) if difference.what == "cell" || difference.what == "row" => format!("{:?}", plain(text, 200)),
            Some(text) => plain(text, 500),
            None => "nothing".to_owned(),
        };
        let (at, pad) = (place(difference), width - place(difference).chars().count());
        anstream::println!(
            "  {at}{:pad$}  {} {}  {} {}",
            "",
            paint(DIM, "expected"),
            side(&difference.expected),
            paint(DIM, "got"),
            side(&difference.found)
        );
    }
    if one.total > shown.len() {
        anstream::println!("  {}", paint(DIM, format!("and {} more", one.total - shown.len())));
    }
    if let Some(failure) = &one.failure {
        style::place(failure);
    }
}

fn report(tested: &[Tested], title: &str, output: Output) -> ExitCode {
    let passed = tested.iter().filter(|one| one.passed()).count();
    let all = passed == tested.len();
    if output.json {
        let examples: Vec<Value> = tested
            .iter()
            .map(|one| {
                json!({
                    "name": one.name, "passed": one.passed(), "updated": one.updated, "differences": one.differences,
                    "differences_total": one.total, "undefined": one.undefined, "error": one.failure,
                    "duration_ms": one.took_ms,
                })
            })
            .collect();
        println!("{}", json!({"passed": all, "examples": examples}));
    } else if !output.quiet {
        let verdict = if all { paint(GOOD, "passed") } else { paint(BAD, "failed") };
        anstream::println!("\n{verdict}  {title}  {passed} of {} examples", tested.len());
    }
    if all { Exit::Success } else { Exit::JobFailed }.into()
}
