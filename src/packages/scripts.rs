//! The scripts of a package: whether they are Python, and define what the runtime calls, in a way that it can call.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use ruff_python_stdlib::sys::is_known_standard_library;

use super::diagnostic::{Code, Diagnostics};
use super::package::{MANIFEST, Package};
use super::parse::{ScriptRef, meant};
use super::python::{self, Defined, Fault, Function, Looked, Module};
use super::text::{quoted, shown};

/// A kind of function that the runtime calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionKind {
    /// `detect_*` in `row_types/*.py`.
    RowDetector,
    /// `detect_*` in a field's script.
    ColumnDetector,
    /// `transform` in a field's script.
    Transform,
    /// `validate` in a field's script.
    Validator,
    /// `run` in a hook.
    Hook,
}

const COMMON: [&str; 7] = ["job_id", "source_file", "sheet_name", "manifest", "env", "artifact", "job_context"];
const COLUMN: [&str; 8] =
    ["header", "values_sample", "column_index", "table_id", "table", "field_name", "field_meta", "state"];

impl FunctionKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::RowDetector, Self::ColumnDetector, Self::Transform, Self::Validator, Self::Hook];

    /// The name that the runner has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RowDetector => "row_detector",
            Self::ColumnDetector => "column_detector",
            Self::Transform => "transform",
            Self::Validator => "validator",
            Self::Hook => "hook",
        }
    }

    /// The arguments that the runtime passes to functions of this kind, by name, when their signature asks for them.
    #[must_use]
    pub fn passed(self) -> BTreeSet<&'static str> {
        let more: &[&[&str]] = match self {
            Self::RowDetector => &[&["row_index", "row_values_sample", "table_hint", "state"]],
            Self::ColumnDetector => &[&COLUMN],
            Self::Transform | Self::Validator => &[&COLUMN, &["values", "row_offset"]],
            Self::Hook => &[&["stage", "success", "error", "mapping", "warnings", "job", "output"]],
        };
        COMMON.iter().chain(more.iter().copied().flatten()).copied().collect()
    }

    const fn for_people(self) -> &'static str {
        match self {
            Self::RowDetector => "row detector",
            Self::ColumnDetector => "column detector",
            Self::Transform => "transform",
            Self::Validator => "validator",
            Self::Hook => "hook",
        }
    }
}

/// What a script is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// `row_types/*.py`.
    RowType,
    /// A field's.
    Column,
    /// A hook.
    Hook,
}

impl Role {
    /// The kind of function that `name` is in a script of this role.
    fn kind(self, name: &str) -> Option<FunctionKind> {
        match (self, name) {
            (Self::Hook, "run") => Some(FunctionKind::Hook),
            (Self::RowType, _) if name.starts_with("detect_") => Some(FunctionKind::RowDetector),
            (Self::Column, _) if name.starts_with("detect_") => Some(FunctionKind::ColumnDetector),
            (Self::Column, "transform") => Some(FunctionKind::Transform),
            (Self::Column, "validate") => Some(FunctionKind::Validator),
            _ => None,
        }
    }
}

/// Top-level modules that the runner itself imports, besides the standard library.
const RUNNER: [&str; 2] = ["ade_runner", "python_calamine"];

/// Checks every Python file of `package`; `named` are the scripts that its manifest names.
pub(super) fn check(package: &Package, named: &[ScriptRef], diagnostics: &mut Diagnostics) {
    let mut roles: BTreeMap<&str, BTreeSet<Role>> = BTreeMap::new();
    for script in named.iter().filter(|script| script.enabled) {
        roles.entry(&script.path).or_default().insert(script.role);
    }
    for (path, _) in package.files() {
        let name = path.strip_prefix("row_types/").filter(|name| !name.contains('/') && !name.starts_with('_'));
        if name.is_some_and(|name| name.ends_with(".py")) {
            roles.entry(path).or_default().insert(Role::RowType);
        }
    }
    let checked = thread::scope(|scope| {
        let work = || {
            for (path, contents) in package.files().filter(|(path, _)| path.ends_with(".py")) {
                check_file(path, contents, roles.get(path), diagnostics);
            }
        };
        let thread = thread::Builder::new().name("scripts".to_owned()).stack_size(python::STACK);
        thread.spawn_scoped(scope, work).is_ok_and(|thread| thread.join().is_ok())
    });
    if !checked {
        let message = "The scripts were not looked at: this machine has no memory for it now.".to_owned();
        diagnostics.file(MANIFEST, None, Code::ScriptNotChecked, message, Some("Validate again.".to_owned()));
    }
    check_names(package, diagnostics);
}

fn check_file(path: &str, contents: &[u8], roles: Option<&BTreeSet<Role>>, diagnostics: &mut Diagnostics) {
    match python::look(contents) {
        Looked::Fault(fault) => {
            let (line, code, message, hint) = describe(&fault, contents.len());
            // A file that no script imports does no harm: a vendored library may bring along some for another Python.
            let is_script = ["columns/", "row_types/", "hooks/"].iter().any(|folder| path.starts_with(folder));
            let code = if is_script { code } else { Code::ModuleUnreadable };
            diagnostics.file(path, line, code, message, hint.map(str::to_owned));
        }
        Looked::Module(module) => {
            if let Some((line, said)) = &module.newer {
                let way_out =
                    "Write it in a way that Python 3.11 knows; it works where the base image has a newer one.";
                let message = format!("Python 3.11 does not know this: {said}.");
                diagnostics.file(path, Some(*line), Code::ScriptNewerPython, message, Some(way_out.to_owned()));
            }
            for role in roles.into_iter().flatten() {
                check_role(path, *role, &module, diagnostics);
            }
        }
    }
}

fn describe(fault: &Fault, bytes: usize) -> (Option<usize>, Code, String, Option<&'static str>) {
    match fault {
        Fault::TooLarge => (
            None,
            Code::ScriptTooLarge,
            format!("The file has {bytes} bytes; the limit is {}.", python::MAX_SCRIPT),
            Some("Move data into files in resources/ and read them in scripts."),
        ),
        Fault::NotUtf8 { line } => (
            Some(*line),
            Code::ScriptNotUtf8,
            format!("The file is not UTF-8, from line {line} on."),
            Some("Save it as UTF-8."),
        ),
        Fault::TooDeep => (
            None,
            Code::ScriptTooDeep,
            "Expressions or blocks are nested too deeply, or a bracket is never closed.".to_owned(),
            Some("Close all brackets; split long chains into several statements."),
        ),
        Fault::Syntax { line, said } => (
            Some(*line),
            Code::ScriptSyntax,
            format!("This is not valid Python: {}.", said.trim_end_matches('.')),
            None,
        ),
        Fault::Unknown => (
            None,
            Code::ScriptNotChecked,
            "Nothing can be said about this file; Python itself will tell.".to_owned(),
            Some("Run it once, with `ade config validate` or `ade run`."),
        ),
    }
}

fn check_role(path: &str, role: Role, module: &Module, diagnostics: &mut Diagnostics) {
    let mut called = 0;
    for (name, defined) in &module.names {
        let Some(kind) = role.kind(name) else { continue };
        match defined {
            Defined::Function(function) => check_function(path, name, kind, function, diagnostics),
            Defined::Perhaps => {}
            Defined::Class => continue,
        }
        called += 1;
    }
    if called > 0 || !module.complete {
        return;
    }
    let near = |wanted: &[&'static str], diagnostics: &Diagnostics| {
        let functions = module.names.iter().filter(|(_, defined)| matches!(defined, Defined::Function(_)));
        functions.into_iter().find_map(|(name, _)| {
            let meant = diagnostics.suggest(name, wanted.iter().copied())?;
            Some(format!("Did you mean {} to be {}?", shown(name), quoted(meant)))
        })
    };
    let (code, message, wanted, way_out): (_, _, &[&'static str], _) = match role {
        Role::Hook => (Code::HookNoRun, "The hook does not define run.", &["run"], "Write def run(**_): ..."),
        Role::RowType => (
            Code::ScriptNoFunction,
            "No function of this script is ever called: it defines no detect_*.",
            &[],
            "Write def detect_something(row_values_sample, **_): ..., or name the file _name.py if other scripts import it.",
        ),
        Role::Column => (
            Code::ScriptNoFunction,
            "No function of this script is ever called: it defines none of detect_*, transform and validate.",
            &["transform", "validate"],
            "Write one of them, or take the script out of the manifest.",
        ),
    };
    let hint = near(wanted, diagnostics).unwrap_or_else(|| way_out.to_owned());
    diagnostics.file(path, None, code, message.to_owned(), Some(hint));
}

fn check_function(path: &str, name: &str, kind: FunctionKind, function: &Function, diagnostics: &mut Diagnostics) {
    let line = Some(function.line);
    let name = shown(name);
    if function.is_async {
        let way_out = Some("Write def without async.".to_owned());
        let message = format!("{name} is async; scripts are called without an event loop.");
        diagnostics.file(path, line, Code::ScriptAsync, message, way_out);
    } else if function.is_generator {
        let way_out = Some("Return the whole result instead of yielding parts of it.".to_owned());
        let message = format!("{name} has a yield in it, so that a call gives a generator and no result.");
        diagnostics.file(path, line, Code::ScriptGenerator, message, way_out);
    }
    let passed = kind.passed();
    for parameter in function.required.iter().filter(|parameter| !passed.contains(parameter.as_str())) {
        let near = diagnostics.suggest(parameter, passed.iter().copied());
        let message =
            format!("{name} requires the parameter {}, which no {} is given.", quoted(parameter), kind.for_people());
        let list = passed.iter().copied().collect::<Vec<_>>().join(", ");
        let all = format!("Passed are {list}; a parameter with a default may have any name.");
        let hint = meant(near).map_or_else(|| all.clone(), |near| format!("{near} {all}"));
        diagnostics.file(path, line, Code::ScriptUnknownParameter, message, Some(hint));
    }
}

/// Top-level modules of the package and of `vendor/` that nobody could import, or that would not work.
fn check_names(package: &Package, diagnostics: &mut Diagnostics) {
    let mut seen = BTreeSet::new();
    for (path, _) in package.files() {
        let (folder, inner) = path.strip_prefix("vendor/").map_or(("", path), |inner| ("vendor/", inner));
        let is_module = |name: &str| name.ends_with(".py") || name.ends_with(".so");
        let (top, rest) = inner.split_once('/').map_or((inner, None), |(top, rest)| (top, Some(rest)));
        if rest.is_none() && top.ends_with(".so") {
            let message = "Compiled code in a package is for one machine only.".to_owned();
            let way_out = Some("List the library in requirements.txt.".to_owned());
            diagnostics.file(path, None, Code::ModuleNotPure, message, way_out);
        }
        let is_module = rest.map_or_else(|| is_module(top), |rest| !rest.contains('/') && rest.ends_with(".py"));
        let name = top.split('.').next().unwrap_or(top);
        let taken = RUNNER.contains(&name) || is_known_standard_library(11, name);
        if is_module && taken && seen.insert((folder, top)) {
            let message = format!("{} is the name of a module of the standard library or of the runner.", shown(name));
            let way_out = Some("Rename it: the other one would be imported in its place.".to_owned());
            diagnostics.file(&format!("{folder}{top}"), None, Code::ModuleShadowed, message, way_out);
        }
    }
}
