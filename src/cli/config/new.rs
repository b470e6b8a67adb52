//! `ade config new`: a package that works at once, to be changed.

use super::examples::{EXPECTED, Expectation, Found, NORMALIZED, to_text};
use super::local::Checked;
use crate::cli::progress::Screen;
use crate::cli::style::{GOOD, STRONG, paint};
use crate::cli::{Exit, Output, fail, style};
use crate::job::Refusal;
use crate::packages::{EXAMPLES, MANIFEST};
use crate::sandbox::{Failure, FailureKind};
use crate::settings::Settings;
use crate::text::plain;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EMAIL: &str = include_str!("scaffold/columns/email.py");
const FIRST_FIELD: &str = include_str!("scaffold/columns/first_field.py");
const ROWS: &str = include_str!("scaffold/row_types/rows.py");
const README: &str = include_str!("scaffold/README.md");
const PEOPLE: [(&str, &str); 3] = [
    ("people.csv", include_str!("scaffold/examples/people/people.csv")),
    (EXPECTED, include_str!("scaffold/examples/people/expected.json")),
    (NORMALIZED, include_str!("scaffold/examples/people/normalized.csv")),
];
/// Columns of a workbook that become fields.
const MAX_FIELDS: usize = 500;
/// Characters of a field id that is made of a header.
const MAX_ID: usize = 60;
/// A workbook up to this size becomes the first example.
const MAX_EXAMPLE: u64 = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to make
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Title of the package [default: made of the folder's name]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Take the fields from the headers of this workbook, and the workbook as the first example
    #[arg(long, value_name = "SPREADSHEET")]
    from: Option<PathBuf>,
}

/// What was made.
struct Made {
    fields: Vec<String>,
    example: Option<String>,
    /// The example is somebody's own workbook.
    own: bool,
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let mut screen = Screen::new(output.quiet || output.json);
    let result = make(&args, settings, &mut screen).await;
    screen.close();
    let made = match result {
        Ok(made) => made,
        Err(refusal) => return fail(&refusal.failure, &refusal.diagnostics, output),
    };
    let folder = args.folder.display();
    if output.json {
        println!("{}", json!({"package": args.folder, "fields": made.fields, "example": made.example}));
        return Exit::Success.into();
    }
    anstream::println!("{}  {folder}  {} fields", paint(GOOD, "made"), made.fields.len());
    if !output.quiet {
        if made.own {
            let example = made.example.as_deref().unwrap_or_default();
            style::warning(&format!(
                "{EXAMPLES}/{} holds your workbook, and what comes of it now: check that it is right, and put in invented data before you publish the package",
                plain(example, 80)
            ));
        } else if made.example.is_none() {
            style::warning(&format!(
                "the workbook has more than {}, so it is no example of the package; make one of a few rows",
                style::bytes(MAX_EXAMPLE)
            ));
        }
        anstream::println!("\n{}", paint(STRONG, "Next"));
        anstream::println!("  ade config test {folder}");
        anstream::println!("  ade config try {folder} WORKBOOK");
    }
    Exit::Success.into()
}

async fn make(args: &Args, settings: &Settings, screen: &mut Screen) -> Result<Made, Refusal> {
    let exists = fs::read_dir(&args.folder).map(|mut entries| entries.next().is_some());
    match exists {
        Ok(true) => {
            return Err(invalid(format!("{} is not empty; choose another folder", args.folder.display())).into());
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(&args.folder, &error).into()),
        Ok(false) | Err(_) => {}
    }
    let name = args.folder.file_name().map(|name| name.to_string_lossy().replace(['-', '_'], " "));
    let title = args.title.clone().or(name).unwrap_or_default();
    let title = plain(title.trim(), 255);
    let title = if title.is_empty() { "New package".to_owned() } else { title };

    // Beside its place, so that the folder appears whole or not at all.
    let parent = args.folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| unwritable(parent, &error))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    let staging = tempfile::Builder::new().prefix(".ade-").permissions(mode).tempdir_in(parent);
    let staging = staging.map_err(|error| unwritable(parent, &error))?;
    let made = match &args.from {
        None => plain_package(staging.path(), &title, settings).await?,
        Some(workbook) => package_of(staging.path(), &title, workbook, settings, screen).await?,
    };
    let place = || -> io::Result<()> {
        if args.folder.is_dir() {
            fs::remove_dir(&args.folder)?;
        }
        fs::rename(staging.path(), &args.folder)
    };
    place().map_err(|error| unwritable(&args.folder, &error))?;
    drop(staging.keep());
    Ok(made)
}

async fn plain_package(folder: &Path, title: &str, settings: &Settings) -> Result<Made, Refusal> {
    let meta = json!({
        "name": {"label": "Name", "synonyms": ["Full name", "Who"]},
        "email": {"label": "E-mail", "script": "columns/email.py", "synonyms": ["Mail", "Mail address", "Contact"]},
    });
    let mut files = vec![
        (MANIFEST.to_owned(), manifest(title, &["name", "email"], &meta)),
        ("columns/email.py".to_owned(), EMAIL.to_owned()),
        ("row_types/rows.py".to_owned(), ROWS.to_owned()),
        ("README.md".to_owned(), readme(title)),
    ];
    files.extend(PEOPLE.map(|(name, content)| (format!("{EXAMPLES}/people/{name}"), content.to_owned())));
    write(folder, &files)?;
    Checked::open(folder, settings).await?;
    Ok(Made { fields: vec!["name".to_owned(), "email".to_owned()], example: Some("people".to_owned()), own: false })
}

/// A package whose fields are the headers that a job without fields finds in a workbook.
async fn package_of(
    folder: &Path,
    title: &str,
    workbook: &Path,
    settings: &Settings,
    screen: &mut Screen,
) -> Result<Made, Refusal> {
    write(folder, &[(MANIFEST.to_owned(), manifest(title, &[], &json!({})))])?;
    let local = Checked::open(folder, settings).await?.ready(settings, screen).await?;
    let done = local.run(vec![workbook.to_owned()], screen).await?;
    if let Some(failure) = done.report.outcome.failure() {
        return Err(failure.clone().into());
    }
    let labels = headers(&done.artifact);
    if labels.is_empty() {
        let what =
            format!("no table with a header row was found in {}; make the package without --from", workbook.display());
        return Err(Failure::new(FailureKind::InputNoData, what).into());
    }
    let mut meta = Map::new();
    for label in labels {
        let id = field_id(&label, &meta);
        meta.insert(id, json!({"label": label, "synonyms": []}));
    }
    let fields: Vec<String> = meta.keys().cloned().collect();
    let first = &fields[0];
    let script = format!("columns/{first}.py");
    meta[first]["script"] = script.as_str().into();
    let order: Vec<&str> = fields.iter().map(String::as_str).collect();
    write(
        folder,
        &[
            (MANIFEST.to_owned(), manifest(title, &order, &Value::Object(meta))),
            (script, FIRST_FIELD.to_owned()),
            ("README.md".to_owned(), readme(title)),
        ],
    )?;

    let bytes = fs::metadata(workbook).map_err(|error| unwritable(workbook, &error))?.len();
    let name = workbook.file_name().and_then(|name| name.to_str()).filter(|_| bytes <= MAX_EXAMPLE);
    let Some(name) = name else {
        Checked::open(folder, settings).await?;
        return Ok(Made { fields, example: None, own: false });
    };
    let example = slug(workbook);
    let place = folder.join(EXAMPLES).join(&example);
    fs::create_dir_all(&place).map_err(|error| unwritable(&place, &error))?;
    fs::copy(workbook, place.join(name)).map_err(|error| unwritable(&place, &error))?;
    let local = local.with(Checked::open(folder, settings).await?);
    let done = local.run(vec![place.join(name)], screen).await?;
    if let Some(failure) = done.report.outcome.failure() {
        return Err(failure.clone().into());
    }
    let found = Found::new(&done.artifact, local.cells(&done).await?);
    let expectation = Expectation { formats: None, ..found.expectation };
    let expected = serde_json::to_value(&expectation).map_err(|error| unwritable(&place, &error))?;
    fs::write(place.join(EXPECTED), to_text(&expected)).map_err(|error| unwritable(&place, &error))?;
    fs::write(place.join(NORMALIZED), found.sheet.to_csv()).map_err(|error| unwritable(&place, &error))?;
    Checked::open(folder, settings).await?;
    Ok(Made { fields, example: Some(example), own: true })
}

/// The headers of all tables that have some, each once.
fn headers(artifact: &Value) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let tables = artifact["sheets"].as_array().into_iter().flatten().flat_map(|sheet| sheet["tables"].as_array());
    let headed = tables.flatten().filter(|table| table["header"]["kind"] != "synthetic");
    headed
        .flat_map(|table| table["header"]["source_header"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .map(|header| plain(header, 255).trim().to_owned())
        .filter(|header| !header.is_empty() && seen.insert(header.to_lowercase()))
        .take(MAX_FIELDS)
        .collect()
}

/// `Start Date (local)` as `start_date_local`: what a field id may be, and none that is taken.
fn field_id(label: &str, taken: &Map<String, Value>) -> String {
    let words = label.to_lowercase();
    let words = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut id: String = words.collect::<Vec<_>>().join("_").chars().take(MAX_ID).collect();
    // `self` means a script's own field.
    if !id.starts_with(|c: char| c.is_ascii_lowercase()) || id == "self" {
        id = format!("field_{id}").trim_end_matches('_').to_owned();
    }
    let mut free = id.clone();
    let mut number = 2;
    while taken.contains_key(&free) {
        free = format!("{id}_{number}");
        number += 1;
    }
    free
}

/// The name of an example that is made of a file's name.
fn slug(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let words = stem.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug: String = words.collect::<Vec<_>>().join("-").chars().take(MAX_ID).collect();
    if slug.is_empty() { "first".to_owned() } else { slug }
}

fn manifest(title: &str, order: &[&str], meta: &Value) -> String {
    to_text(&json!({
        "config_script_api_version": "1",
        "info": {"schema": "ade.manifest/v1.0", "title": title, "version": "0.1.0"},
        "columns": {"order": order, "meta": meta},
    }))
}

fn readme(title: &str) -> String {
    README.replacen("TITLE", title, 1)
}

fn write(folder: &Path, files: &[(String, String)]) -> Result<(), Failure> {
    for (name, content) in files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, content))
            .map_err(|error| unwritable(&path, &error))?;
    }
    Ok(())
}

fn invalid(message: String) -> Failure {
    Failure::new(FailureKind::PackageInvalid, message)
}

fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::HostIo, format!("cannot write {}: {error}; choose another folder", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_field_ids_of_their_own() {
        let mut taken = Map::new();
        let mut ids = Vec::new();
        for label in ["Start Date (local)", "start date local", "2024", "Straße", "self", "日本", "日本語"] {
            let id = field_id(label, &taken);
            taken.insert(id.clone(), Value::Null);
            ids.push(id);
        }
        let wanted =
            ["start_date_local", "start_date_local_2", "field_2024", "stra_e", "field_self", "field", "field_2"];
        assert_eq!(ids, wanted);
    }

    #[test]
    fn headers_are_taken_once_and_only_where_a_table_has_some() {
        let table = |kind: &str, headers: Value| json!({"header": {"kind": kind, "source_header": headers}});
        let artifact = json!({"sheets": [
            {"tables": [table("raw", json!(["Name", null, " Fee "])), table("synthetic", json!(["Column 1"]))]},
            {"tables": [table("raw", json!(["NAME", "Town", ""]))]},
        ]});
        assert_eq!(headers(&artifact), ["Name", "Fee", "Town"]);
    }
}
