//! What is said about scripts without running any of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ade::packages::{Code, Diagnostic, FunctionKind, Level, Package, validate, validate_manifest};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{CAPS, Place, open};

const COLUMN: &str = "columns/a.py";
const GOOD: &str = "def transform(values, *, header=None, mine=5, **rest):\n    return {'values': values}\n";

/// A package with these files; every `columns/<name>.py` is a field's, and every `hooks/<name>.py` one of `on_job_end`.
fn package(place: &Place, files: &[(&str, &[u8])]) -> Package {
    let name = |path: &str, folder: &str| {
        path.strip_prefix(folder)?.strip_suffix(".py").filter(|name| !name.starts_with('_')).map(str::to_owned)
    };
    let columns: Vec<String> = files.iter().filter_map(|(path, _)| name(path, "columns/")).collect();
    let hooks: Vec<Value> = files
        .iter()
        .filter_map(|(path, _)| name(path, "hooks/"))
        .map(|name| json!({"script": format!("hooks/{name}.py")}))
        .collect();
    let meta: serde_json::Map<String, Value> = columns
        .iter()
        .map(|name| (name.clone(), json!({"label": name, "script": format!("columns/{name}.py")})))
        .collect();
    let manifest = json!({
        "config_script_api_version": "1",
        "info": {"schema": "ade.manifest/v1.0", "title": "T", "version": "1.0.0"},
        "hooks": {"on_job_end": hooks},
        "columns": {"order": columns, "meta": meta},
    });
    let manifest = manifest.to_string();
    let mut all = vec![("manifest.json", manifest.as_bytes())];
    all.extend(files);
    open(&place.folder("package", &all)).unwrap()
}

fn said_of(files: &[(&str, &[u8])]) -> Vec<Diagnostic> {
    let place = Place::new();
    let report = validate(&package(&place, files), &CAPS);
    assert_eq!(report.is_ok(), report.counts.errors == 0);
    report.diagnostics.into_iter().filter(|one| one.code != Code::NoFields).collect()
}

fn said(source: impl AsRef<[u8]>) -> Vec<(Code, Option<usize>)> {
    said_of(&[(COLUMN, source.as_ref())]).into_iter().map(|one| (one.code, one.line)).collect()
}

#[test]
fn scripts_by_the_docs_and_with_positional_parameters_pass() {
    let positional = "def detect_it(header, values_sample, column_index, table, job_context, env):\n    return None\n\n\
                      def transform(values, header, column_index, table, job_context, env, /):\n    return {'values': values}\n";
    let keyword_only = "def validate(*, values, field_meta, state, **_):\n    return {'issues': []}\n";
    let rows = "def detect_it(row_index, row_values_sample, table_hint, *more, strict=False):\n    return None\n";
    let hook = "def run(*, stage, success, error, mapping, warnings, job, output, artifact, **_):\n    return {}\n";
    let found = said_of(&[
        (COLUMN, positional.as_bytes()),
        ("columns/b.py", keyword_only.as_bytes()),
        ("row_types/r.py", rows.as_bytes()),
        ("hooks/h.py", hook.as_bytes()),
        ("vendor/tool/__init__.py", b"X = 1\n"),
    ]);
    assert_eq!(found, []);
}

#[test]
fn a_fault_in_a_column_script_is_named_with_its_line() {
    let mut wrong = Vec::new();
    let deep = format!("x = {}{}\n", "(".repeat(5_000), ")".repeat(5_000));
    for (source, code, line) in [
        (&b"def transform(values:\n    pass"[..], Code::ScriptSyntax, Some(2)),
        (b"x = 1\ny = = 2\n", Code::ScriptSyntax, Some(2)),
        (b"x = 1\n\ndef transform(values, **_)\n    return values\n", Code::ScriptSyntax, Some(3)),
        (b"def transform(values):\nreturn 1\n", Code::ScriptSyntax, Some(2)),
        (b"if x:\n        a = 1\n    b = 2\n", Code::ScriptSyntax, Some(3)),
        (b"f() = 1\n", Code::ScriptSyntax, Some(1)),
        (b"print 'two'\n", Code::ScriptSyntax, Some(1)),
        (b"# caf\xe9\n", Code::ScriptNotUtf8, Some(1)),
        (b"x = 1\n\x00", Code::ScriptSyntax, Some(2)),
        (deep.as_bytes(), Code::ScriptTooDeep, None),
        (&vec![b'#'; (1 << 20) + 1], Code::ScriptTooLarge, None),
        (b"def other(): ...\n", Code::ScriptNoFunction, None),
        (b"", Code::ScriptNoFunction, None),
        (b"class transform: ...\n", Code::ScriptNoFunction, None),
        (b"def transform(values, foo): ...\n", Code::ScriptUnknownParameter, Some(1)),
        (b"\ndef detect_x(values): ...\n", Code::ScriptUnknownParameter, Some(2)),
        (b"def validate(*, foo): ...\n", Code::ScriptUnknownParameter, Some(1)),
        (b"def validate(foo, /): ...\n", Code::ScriptUnknownParameter, Some(1)),
        (b"async def transform(values): ...\n", Code::ScriptAsync, Some(1)),
        (b"def transform(values):\n    for value in values:\n        yield value\n", Code::ScriptGenerator, Some(1)),
        (b"def transform(values):\n    return (yield from values)\n", Code::ScriptGenerator, Some(1)),
        (b"if True:\n    def transform(foo): ...\n", Code::ScriptUnknownParameter, Some(2)),
        (b"def transform(values):\n    return f\"{values[\"a\"]}\"\n", Code::ScriptNewerPython, Some(2)),
        (b"type A = int\ndef transform(values): ...\n", Code::ScriptNewerPython, Some(1)),
    ] {
        let found = said(source);
        if found != [(code, line)] {
            wrong.push((String::from_utf8_lossy(&source[..source.len().min(80)]).into_owned(), found, (code, line)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_right_is_left_alone() {
    for source in [
        GOOD,
        "\u{feff}def transform(values): ...\n",
        "import functools\n@functools.lru_cache\ndef transform(foo): ...\n",
        "from columns._b import transform\n",
        "from columns._b import *\n",
        "transform = lambda values: {'values': values}\n",
        "transform, other = make()\n",
        "transform: object = make()\n",
        "try:\n    import x\nexcept ImportError:\n    def transform(values): ...\n",
        "with a:\n    pass\nmatch x:\n    case 1:\n        def transform(values): ...\n",
        "def transform(values):\n    def inner():\n        yield 1\n    return [(lambda: (yield))]\n",
        "def transform(foo): ...\ndef transform(values): ...\n",
        "def _helper(foo, bar): ...\ndef transform(values): ...\n",
        "def transform(values, foo=1, *, bar=2, **rest): ...\n",
        "try:\n    pass\nexcept* ValueError:\n    pass\ndef transform(values): ...\n",
    ] {
        let found = said_of(&[(COLUMN, source.as_bytes()), ("columns/_b.py", GOOD.as_bytes())]);
        assert_eq!(found, [], "{source}");
    }
}

#[test]
fn an_unknown_parameter_is_told_with_what_is_passed_and_what_was_meant() {
    let found = said_of(&[(COLUMN, b"def transform(value, foo): ...\n")]);
    let [value, foo] = found.as_slice() else { panic!("{found:#?}") };
    assert!(value.message.contains("\"value\"") && value.message.contains("transform"), "{value:?}");
    let hint = value.hint.as_deref().unwrap();
    assert!(hint.starts_with("Did you mean \"values\"?") && hint.contains("row_offset, sheet_name"), "{hint}");
    assert!(foo.message.contains("\"foo\"") && foo.hint.as_deref().unwrap().starts_with("Passed are"), "{foo:?}");
    let hook = said_of(&[("hooks/h.py", b"def run(values): ...\n")]);
    assert!(hook[0].hint.as_deref().unwrap().contains("mapping, output, sheet_name"), "{hook:?}");
}

#[test]
fn everything_is_said_at_once_and_a_helper_is_held_to_less() {
    let found = said_of(&[
        (COLUMN, b"async def transform(values, foo): ...\n"),
        ("columns/b.py", b"def transfrom(values): ...\n"),
        ("columns/_shared.py", b"def broken(:\n"),
        ("hooks/h.py", b"x = 1\n"),
        ("row_types/r.py", b"def detect_r(values_sample): ...\n"),
        ("row_types/s.py", b"x = 1\n"),
        ("row_types/_helper.py", b"x = 1\n"),
        ("vendor/json/__init__.py", b""),
        ("vendor/ade_runner.py", b""),
        ("vendor/old.py", b"print 'two'\n"),
        ("vendor/fast.so", b"\x7fELF"),
        ("vendor/deep/json.py", b""),
        ("python_calamine.py", b""),
    ]);
    let mut found: Vec<(&str, &str, Option<usize>)> =
        found.iter().map(|one| (one.path.as_str(), one.code.as_str(), one.line)).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("columns/_shared.py", "script_syntax", Some(1)),
            (COLUMN, "script_async", Some(1)),
            (COLUMN, "script_unknown_parameter", Some(1)),
            ("columns/b.py", "script_no_function", None),
            ("hooks/h.py", "hook_no_run", None),
            ("python_calamine.py", "module_shadowed", None),
            ("row_types/r.py", "script_unknown_parameter", Some(1)),
            ("row_types/s.py", "script_no_function", None),
            ("vendor/ade_runner.py", "module_shadowed", None),
            ("vendor/fast.so", "module_not_pure", None),
            ("vendor/json", "module_shadowed", None),
            ("vendor/old.py", "module_unreadable", Some(1)),
        ]
    );
}

#[test]
fn a_misspelt_function_is_named() {
    let found = said_of(&[(COLUMN, b"def transfrom(values): ...\n")]);
    assert!(found[0].hint.as_deref().unwrap().contains("transfrom to be \"transform\""), "{found:?}");
}

#[test]
fn scripts_are_looked_at_when_the_manifest_is_wrong_but_not_when_they_were_before() {
    let place = Place::new();
    let manifest = json!({"hooks": {"on_job_end": [{"script": "h.py"}]}, "columns": {"order": ["a"], "meta": {"a": {"script": "columns/a.py"}}}});
    let files = [
        ("manifest.json", manifest.to_string()),
        (COLUMN, "def transform(foo): ...\n".to_owned()),
        ("hooks/h.py", "x = (\n".to_owned()),
    ];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
    let package = open(&place.folder("package", &files)).unwrap();
    let codes = |diagnostics: &[Diagnostic]| -> Vec<&str> {
        diagnostics.iter().filter(|one| one.path != "manifest.json").map(|one| one.code.as_str()).collect()
    };
    assert_eq!(codes(&validate(&package, &CAPS).diagnostics), ["script_unknown_parameter", "script_syntax"]);
    assert_eq!(codes(&validate_manifest(&package, &CAPS).diagnostics), [""; 0]);
}

#[test]
fn what_is_switched_off_is_only_parsed() {
    let place = Place::new();
    let manifest = json!({
        "config_script_api_version": "1",
        "info": {"schema": "ade.manifest/v1.0", "title": "T", "version": "1.0.0"},
        "hooks": {"on_job_end": [{"script": "h.py", "enabled": false}]},
        "columns": {"order": ["a"], "meta": {"a": {"label": "A", "script": "columns/a.py", "enabled": false}}},
    });
    let manifest = manifest.to_string();
    let files =
        [("manifest.json", manifest.as_bytes()), (COLUMN, b"def transform(foo): ...\n"), ("hooks/h.py", b"x = 1\n")];
    let report = validate(&open(&place.folder("package", &files)).unwrap(), &CAPS);
    assert_eq!(report.diagnostics, []);
}

/// The runner's own table, from the runner.
#[test]
fn what_is_passed_is_what_the_runner_passes() {
    let runner = concat!(env!("CARGO_MANIFEST_DIR"), "/images/runner:", env!("OUT_DIR"));
    let ask = "import json; from ade_runner.scripts import PARAMETERS as P; print(json.dumps({k: sorted(v) for k, v in P.items()}))";
    let output = Command::new("python3").args(["-B", "-c", ask]).env("PYTHONPATH", runner).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let runners: BTreeMap<String, Vec<String>> = serde_json::from_slice(&output.stdout).unwrap();
    let ours: BTreeMap<String, Vec<String>> = FunctionKind::ALL
        .iter()
        .map(|kind| (kind.as_str().to_owned(), kind.passed().into_iter().map(str::to_owned).collect()))
        .collect();
    assert_eq!(ours, runners);
}

/// Real code: the examples, and the runner itself.
#[test]
fn real_python_is_python() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut examples = 0;
    for folder in ["docs/examples/membership", "docs/examples/invoices", "docs/examples/price_list"] {
        let report = validate(&open(&root.join(folder)).unwrap(), &CAPS);
        assert_eq!(report.diagnostics, [], "{folder}");
        examples += 1;
    }
    assert_eq!(examples, 3);
    let mut files = Vec::new();
    for folder in ["images/runner/ade_runner", "images/runner/tests", "images/runner/ade_runner/readers"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "py") {
                files.push((format!("vendor/gathered/{}.py", files.len()), std::fs::read(&path).unwrap()));
            }
        }
    }
    assert!(files.len() > 50);
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    assert_eq!(said_of(&files), []);
}

#[test]
fn nesting_however_deep_ends_in_a_diagnostic() {
    let many = |count: usize| {
        let chain = |part: &str, end: &str| format!("x = {}{end}\n", part.repeat(count));
        let pair = |open: &str, close: &str| format!("x = {}1{}\n", open.repeat(count), close.repeat(count));
        let blocks: String = (0..count.min(1_000)).map(|depth| format!("{}if x:\n", " ".repeat(depth))).collect();
        vec![
            chain("1+", "1"),
            chain("not ", "1"),
            chain("-", "1"),
            chain("1**", "1"),
            chain("await ", "x"),
            format!("x = a{}\n", ".a".repeat(count)),
            format!("x = a{}\n", "()".repeat(count)),
            format!("x = a{}\n", "[0]".repeat(count)),
            chain("lambda: ", "1"),
            chain("lambda a, b: ", "1"),
            chain("1 if 1 else ", "1"),
            chain("a := ", "1"),
            chain("x = ", "1"),
            chain("*", "x"),
            pair("(", ")"),
            pair("[", "]"),
            pair("{", "}"),
            pair("f(", ")"),
            pair("a[", "]"),
            pair("(a, ", ")"),
            pair("{1: ", "}"),
            pair("(lambda a, b: ", ")"),
            pair("[x for x in ", "]"),
            pair("1+(", ")"),
            format!("x = {}", "(".repeat(count)),
            format!("x = {}", "(]".repeat(count)),
            format!("x = {}", "f'{".repeat(count)),
            format!("x = {}{}\n", "f'{f\"{".repeat(count), "}\"}'".repeat(count)),
            format!("match x:\n    case {}y{}: pass\n", "(".repeat(count), ")".repeat(count)),
            format!("match x:\n    case {}0{}:\n        pass\n", "{".repeat(count), ": 0}".repeat(count)),
            format!("{blocks}{}pass\n", " ".repeat(count.min(1_000))),
            format!("{}pass\n", "if x: ".repeat(count)),
            format!("def f{}(): ...\n", "[T: ".repeat(count)),
            format!("@{}\ndef f(): ...\n", "(".repeat(count)),
            format!("x: {}\n", "a[".repeat(count)),
        ]
    };
    for source in [many(2_900), many(60_000)].concat() {
        let source = &source[..source.len().min(1 << 20)];
        for (code, _) in said(source) {
            let known = [Code::ScriptSyntax, Code::ScriptTooDeep, Code::ScriptNoFunction, Code::ScriptNewerPython];
            assert!(known.contains(&code), "{code:?} of {}", &source[..source.len().min(40)]);
        }
    }
}

#[test]
fn two_hundred_scripts_take_less_than_a_second() {
    let source =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/membership/columns/joined_on.py"));
    let source = source.unwrap();
    let names: Vec<String> = (0..200).map(|number| format!("columns/f{number}.py")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), source.as_slice())).collect();
    let place = Place::new();
    let package = package(&place, &files);
    let began = Instant::now();
    assert_eq!(validate(&package, &CAPS).diagnostics, []);
    // Of a debug build on a busy machine.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Pieces of Python that parsers stumble over, in any order.
fn soup() -> impl Strategy<Value = String> {
    let words = [
        "def ", "async ", "class ", "lambda ", "if ", "else", ":", "\n", "\n    ", "\n        ", "\t", "(", ")", "[",
        "]", "{", "}", ",", "=", ":=", "*", "**", "->", "f'", "f\"\"\"", "'", "\"\"\"", "rb'", "\\", "\\\n", "x",
        "transform", "values", "1", "0x", "1e", "yield ", "from ", "import ", "match ", "case ", "_", "type ", "try:",
        "except* ", "#", "@", "!", "?", "$", "\u{feff}", "\0", "é", "\u{202e}", "\u{2028}", "…", "\r", "\x0c", "...",
        "{x!r:>{y}}", "t'", "print ",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..80).prop_map(|words| words.concat())
}

fn looked_at(bytes: &[u8]) {
    for one in said_of(&[(COLUMN, bytes), ("vendor/x.py", bytes)]) {
        assert_eq!(one.level, one.code.level());
        assert_ne!(one.code, Code::ScriptNotChecked, "the parser panicked: {one:?}");
        assert!(!one.message.chars().any(char::is_control), "{:?}", one.message);
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
        assert!(one.line.is_none_or(|line| (1..=lines).contains(&line)), "{one:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        looked_at(&bytes);
    }

    #[test]
    fn any_text_is_looked_at(text in "\\PC{0,200}") {
        looked_at(text.as_bytes());
    }

    #[test]
    fn any_soup_of_python_is_looked_at(text in soup()) {
        looked_at(text.as_bytes());
    }
}

#[test]
fn only_what_stops_a_job_is_an_error() {
    for code in [Code::ScriptNoFunction, Code::ModuleUnreadable, Code::ModuleNotPure, Code::ScriptNewerPython] {
        assert_eq!(code.level(), Level::Warning);
    }
}
