//! Everything that can be known about a package without running any of it.

use std::collections::HashSet;

use super::caps::{Caps, MAX_MANIFEST_BYTES};
use super::diagnostic::{Code, Counts, Diagnostic, Diagnostics};
use super::json::{self, Fault, MAX_DEPTH};
use super::manifest::Manifest;
use super::package::{MANIFEST, Package};
use super::parse::{self, ScriptRef, meant_or};
use super::requirements;
use super::scripts;
use super::text::shown;

/// The outcome of [`validate`].
#[derive(Debug, Clone)]
pub struct Report {
    /// What there is to say, errors first; at most 200, and then one that says how many more.
    pub diagnostics: Vec<Diagnostic>,
    /// How many there are of each level, listed or not.
    pub counts: Counts,
    /// The manifest, exactly when there is no error.
    pub manifest: Option<Manifest>,
}

impl Report {
    /// Whether the package can run.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.manifest.is_some()
    }
}

/// Checks the manifest of `package` against its rules and `caps`, and its scripts, without running any. Takes milliseconds for
/// hundreds of scripts, and longer for large ones: call it where blocking is fine.
#[must_use]
pub fn validate(package: &Package, caps: &Caps) -> Report {
    report(package, caps, true)
}

/// [`validate`] without a look into the scripts, for packages that have passed it before.
#[must_use]
pub fn validate_manifest(package: &Package, caps: &Caps) -> Report {
    report(package, caps, false)
}

fn report(package: &Package, caps: &Caps, with_scripts: bool) -> Report {
    let mut diagnostics = Diagnostics::default();
    let (manifest, named) = read_manifest(package, caps, &mut diagnostics);
    if let Some(bytes) = package.file(requirements::REQUIREMENTS) {
        requirements::read(bytes, &mut diagnostics);
    }
    if with_scripts {
        scripts::check(package, &named, &mut diagnostics);
    }
    let manifest = manifest.filter(|_| !diagnostics.has_errors());
    let (diagnostics, counts) = diagnostics.finish();
    Report { diagnostics, counts, manifest }
}

fn read_manifest(package: &Package, caps: &Caps, diagnostics: &mut Diagnostics) -> (Option<Manifest>, Vec<ScriptRef>) {
    let bytes = package.manifest();
    if bytes.len() > MAX_MANIFEST_BYTES {
        let message = format!("manifest.json has {} bytes; the limit is {MAX_MANIFEST_BYTES}.", bytes.len());
        let way_out = Some("Move data into files in resources/ and read them in scripts.".to_owned());
        diagnostics.file(MANIFEST, None, Code::ManifestTooLarge, message, way_out);
        return (None, Vec::new());
    }
    let document = match json::parse(bytes) {
        Ok(document) => document,
        Err(fault) => {
            let (line, code, message, hint) = describe(fault);
            diagnostics.file(MANIFEST, Some(line), code, message, hint.map(str::to_owned));
            return (None, Vec::new());
        }
    };
    if document.had_bom {
        let message = "manifest.json begins with a byte order mark.".to_owned();
        let way_out = Some("Save it as UTF-8 without BOM: many tools stumble over the mark.".to_owned());
        diagnostics.file(MANIFEST, Some(1), Code::ManifestBom, message, way_out);
    }
    for at in &document.repeated {
        let message = format!("{} occurs more than once; which of them is meant?", at.dotted());
        let way_out = Some("Keep one of them.".to_owned());
        diagnostics.manifest(at, Code::DuplicateKey, message, way_out);
    }
    let parsed = parse::parse(&document, caps, diagnostics);
    scripts_exist(package, &parsed.scripts, diagnostics);
    scripts_are_used(package, &parsed.scripts, diagnostics);
    diagnostics.locate(document.text);
    (parsed.manifest, parsed.scripts)
}

fn describe(fault: Fault) -> (usize, Code, String, Option<&'static str>) {
    match fault {
        Fault::NotUtf8 { line } => (
            line,
            Code::ManifestNotUtf8,
            format!("manifest.json is not UTF-8, from line {line} on."),
            Some("Save it as UTF-8."),
        ),
        Fault::Syntax { line, column, detail } => (
            line,
            Code::ManifestSyntax,
            format!("manifest.json is not valid JSON at line {line}, column {column}: {}.", shown(&detail)),
            None,
        ),
        Fault::TooDeep { line } => (
            line,
            Code::ManifestTooDeep,
            format!("manifest.json is nested more than {MAX_DEPTH} levels deep."),
            Some("Move data into files in resources/ and read them in scripts."),
        ),
    }
}

fn scripts_exist(package: &Package, scripts: &[ScriptRef], diagnostics: &mut Diagnostics) {
    for ScriptRef { at, path, .. } in scripts.iter().filter(|script| package.file(&script.path).is_none()) {
        let near = split_script(path).and_then(|(folder, name)| {
            let scripts = package.files().filter_map(|(file, _)| split_script(file));
            let names = scripts.filter(|(other, _)| *other == folder).map(|(_, name)| name);
            Some(format!("{folder}/{}.py", diagnostics.suggest(name, names)?))
        });
        let message = format!("The script {} is not in the package.", shown(path));
        let hint = meant_or(near.as_deref(), "Add the file, or take it out of the manifest.");
        diagnostics.manifest(at, Code::ScriptMissing, message, hint);
    }
}

/// `columns/email.py` as `columns` and `email`: the parts that are worth comparing.
fn split_script(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix(".py")?.split_once('/')
}

/// Scripts in `columns/` that nothing refers to are most likely forgotten. A leading underscore marks a module that other
/// scripts import.
fn scripts_are_used(package: &Package, scripts: &[ScriptRef], diagnostics: &mut Diagnostics) {
    let used: HashSet<&str> = scripts.iter().map(|script| script.path.as_str()).collect();
    for (path, _) in package.files() {
        let Some(name) = path.strip_prefix("columns/").filter(|name| !name.contains('/')) else {
            continue;
        };
        let Some(stem) = name.strip_suffix(".py") else {
            continue;
        };
        if stem.starts_with('_') || used.contains(path) {
            continue;
        }
        let message = format!("No field of the manifest uses {}.", shown(path));
        let way_out = format!(
            "Set \"script\": \"{path}\" in columns.meta, or name it columns/_{stem}.py if other scripts import it."
        );
        diagnostics.file(path, None, Code::ScriptUnused, message, Some(way_out));
    }
}
