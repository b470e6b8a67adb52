//! The published JSON Schema and the parser must agree, both ways.

use ade::packages::{Code, Level};
use jsonschema::Validator;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use crate::manifest::set;
use crate::support::{full_manifest, least_manifest, validate_value};

/// Errors that are beyond a schema: they compare two places, or look at the instance or at the package's files. The same
/// list is in the docs.
const BEYOND_SCHEMA: [Code; 4] =
    [Code::LimitAboveCap, Code::FieldWithoutMeta, Code::FieldWithoutOrder, Code::ScriptMissing];

fn schema() -> Validator {
    let text = include_str!("../../docs/schemas/manifest.v1.0.schema.json");
    let schema: Value = serde_json::from_str(text).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).unwrap()
}

/// The errors that the schema should see too.
fn parser_errors(manifest: &Value) -> Vec<String> {
    let report = validate_value(manifest);
    let errors = report
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.level == Level::Error && !BEYOND_SCHEMA.contains(&diagnostic.code));
    errors.map(|error| format!("{} {}", error.code.as_str(), error.message)).collect()
}

/// What both have to say, when they disagree.
fn disagreement(schema: &Validator, manifest: &Value) -> Option<String> {
    let errors = parser_errors(manifest);
    let by_schema: Vec<String> = schema.iter_errors(manifest).map(|error| error.to_string()).collect();
    (errors.is_empty() != by_schema.is_empty())
        .then(|| format!("parser: {errors:#?}\nschema: {by_schema:#?}\n{manifest:#}"))
}

#[test]
fn the_schema_and_the_parser_agree_on_a_corpus() {
    let schema = schema();
    for manifest in [full_manifest(), least_manifest()] {
        assert!(schema.is_valid(&manifest) && parser_errors(&manifest).is_empty());
    }
    let valid = [
        ("/info/version", json!("2025-11")),
        ("/info/title", json!("\u{1f600}".repeat(255))),
        ("/env/_x1", json!("\u{e9}\n")),
        ("/env/A", json!("x".repeat(32_767))),
        ("/info/version", json!("1".repeat(64))),
        ("/engine/defaults/memory_mb", json!(64)),
        ("/engine/writer/unmapped_prefix", json!("a".repeat(64))),
        ("/engine/writer/output_sheet", json!("a".repeat(31))),
        ("/columns/order", json!(["a".repeat(255)])),
        ("/columns/meta/email/label", json!("a".repeat(255))),
        ("/columns/meta/email/type_hint", json!("a".repeat(64))),
        ("/columns/meta/email/synonyms", json!(["a".repeat(255)])),
        ("/env/LANGUAGE", json!("")),
        ("/env/XADE_", json!("")),
        ("/engine/defaults", json!({"allow_net": true, "min_mapping_confidence": 0})),
        ("/engine/defaults/timeout_ms", json!(1000.0)),
        ("/engine/defaults/timeout_ms", json!(1e300)),
        ("/engine/defaults/mapping_score_threshold", json!(-0.0)),
        ("/engine/writer/output_sheet", json!("it's \u{7f} fine")),
        ("/engine/writer/unmapped_prefix", json!("")),
        ("/hooks/on_activate/0/script", json!("hooks/a b/c..d.py")),
        ("/hooks/on_activate/0/script", json!("check..py")),
        ("/hooks", json!({"on_prepare": [], "after_transform": []})),
        ("/columns/order", json!([])),
        ("/columns/meta", json!({})),
        ("/columns/meta/email/allowed", json!([[{"deep": null}]])),
        ("/columns/meta/email/script", json!("columns/\u{fc} x.py")),
        ("/columns/meta/email/synonyms", json!(["a", "a"])),
    ];
    let invalid = [
        ("/config_script_api_version", json!(1)),
        ("/config_script_api_version", json!("1.0")),
        ("/$schema", json!(1)),
        ("/extra", json!(null)),
        ("/info/schema", json!("ade.manifest/v1")),
        ("/info/title", json!("")),
        ("/info/title", json!("\u{1f600}".repeat(256))),
        ("/info/description", json!(null)),
        ("/info/version", json!("1".repeat(65))),
        ("/columns/meta/email/label", json!("a".repeat(256))),
        ("/columns/meta/email/synonyms", json!(["a".repeat(256)])),
        ("/env", json!({"A-B": ""})),
        ("/env", json!({"": ""})),
        ("/env/TZ", json!("")),
        ("/env/LD_X", json!("")),
        ("/env/PYTHON", json!("")),
        ("/env/ADE_", json!("")),
        ("/env/A\n", json!("")),
        ("/env/A", json!("\0")),
        ("/env/A", json!("x".repeat(32_768))),
        ("/engine/other", json!({})),
        ("/engine/defaults/allow_net", json!(true)),
        ("/engine/defaults/min_mapping_confidence", json!(1)),
        ("/engine/defaults/timeout_ms", json!(999)),
        ("/engine/defaults/timeout_ms", json!(1000.5)),
        ("/engine/defaults/memory_mb", json!(63)),
        ("/engine/defaults/memory_mb", json!(-1e300)),
        ("/engine/defaults/mapping_score_threshold", json!(-0.1)),
        ("/engine/writer/mode", json!("fast")),
        ("/engine/writer/output_sheet", json!("history")),
        ("/engine/writer/output_sheet", json!("'x")),
        ("/engine/writer/output_sheet", json!("x'")),
        ("/engine/writer/output_sheet", json!("a\\b")),
        ("/engine/writer/output_sheet", json!("a\n")),
        ("/engine/writer/output_sheet", json!("a]b")),
        ("/engine/writer/output_sheet", json!("\u{fffe}")),
        ("/engine/writer/output_sheet", json!("")),
        ("/engine/writer/output_sheet", json!("a".repeat(32))),
        ("/engine/writer/unmapped_prefix", json!("a".repeat(65))),
        ("/hooks/on_prepare", json!([])),
        ("/hooks/after_transform", json!([])),
        ("/hooks/later", json!([])),
        ("/hooks/on_activate/0/script", json!("hooks/.a.py")),
        ("/hooks/on_activate/0/script", json!("hooks/a/../b.py")),
        ("/hooks/on_activate/0/script", json!("hooks//b.py")),
        ("/hooks/on_activate/0/script", json!("other/b.py")),
        ("/hooks/on_activate/0/script", json!(".py")),
        ("/hooks/on_activate/0/script", json!("b.py\n")),
        ("/hooks/on_activate/0/script", json!("b\u{85}.py")),
        ("/hooks/on_activate/0/enabled", json!(1)),
        ("/columns/order", json!(["email", "email"])),
        ("/columns/order", json!(["Email"])),
        ("/columns/order", json!(["email\n"])),
        ("/columns/order", json!(["a".repeat(256)])),
        ("/columns/meta/E", json!({"label": "E"})),
        ("/columns/meta/email/label", json!("")),
        ("/columns/meta/email/script", json!("columns/a/b.py")),
        ("/columns/meta/email/script", json!("b.py")),
        ("/columns/meta/email/script", json!("columns/a\\b.py")),
        ("/columns/meta/email/synonyms", json!([""])),
        ("/columns/meta/email/synonyms", json!([1])),
        ("/columns/meta/email/type_hint", json!("a".repeat(65))),
        ("/columns/meta/email/allowed", json!({})),
        ("/columns/meta/email/colour", json!({})),
    ];
    for (cases, expected) in [(&valid[..], true), (&invalid[..], false)] {
        for (pointer, value) in cases {
            let mut manifest = full_manifest();
            set(&mut manifest, pointer, value.clone());
            assert_eq!(disagreement(&schema, &manifest), None);
            assert_eq!(schema.is_valid(&manifest), expected, "{pointer} = {value}");
        }
    }
    for manifest in [json!(null), json!([]), json!({}), json!("1")] {
        assert_eq!(disagreement(&schema, &manifest), None);
    }
}

#[test]
fn only_a_sheet_name_beyond_the_basic_plane_is_longer_to_excel_than_to_the_schema() {
    let mut manifest = full_manifest();
    set(&mut manifest, "/engine/writer/output_sheet", json!("\u{1f600}".repeat(16)));
    assert!(schema().is_valid(&manifest));
    assert_eq!(parser_errors(&manifest).len(), 1);
}

/// Pointers to all values inside `value`.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    let members: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(values) => values.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (key, value) in members {
        let pointer = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        pointers(value, &pointer, out);
        out.push(pointer);
    }
}

/// Every key of the manifest and some others, to be put where they may not belong.
const KEYS: [&str; 18] = [
    "label", "script", "enabled", "order", "meta", "allow_net", "min_mapping_confidence", "on_prepare",
    "after_transform", "type_hint", "allowed", "pattern", "email", "x_1", "E", "PATH", "$schema", "",
];

fn values() -> impl Strategy<Value = Value> {
    let plain = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(63),
        json!(64),
        json!(1000),
        json!(999.5),
        json!(1e3),
        json!(""),
        json!("a"),
        json!("columns/a.py"),
        json!("hooks/a.py"),
        json!("a.py"),
        json!("email"),
        json!("History"),
        json!([]),
        json!({}),
        json!([{"script": "a.py"}]),
        json!(["email", "member_id"]),
        json!({"label": "X"}),
    ];
    prop_oneof![
        4 => select(plain),
        1 => "[a-z/.'A\\\\\\[\u{1}\u{e9}]{0,8}".prop_map(Value::from),
        1 => "(hooks|columns)/[a-z./]{0,6}\\.py".prop_map(Value::from),
        1 => (0_usize..300).prop_map(|count| "x".repeat(count).into()),
    ]
}

#[derive(Debug, Clone)]
enum Mutation {
    Replace(Index, Value),
    Remove(Index),
    Insert(Index, &'static str, Value),
    Move(Index, Index),
}

impl Mutation {
    fn apply(self, manifest: &mut Value) {
        let mut all = Vec::new();
        pointers(manifest, "", &mut all);
        if all.is_empty() {
            return;
        }
        let pick = |index: Index| all[index.index(all.len())].clone();
        match self {
            Self::Replace(at, value) => *manifest.pointer_mut(&pick(at)).unwrap() = value,
            Self::Remove(at) => {
                let at = pick(at);
                let (parent, last) = at.rsplit_once('/').unwrap();
                match manifest.pointer_mut(parent).unwrap() {
                    Value::Object(members) => drop(members.shift_remove(&last.replace("~1", "/").replace("~0", "~"))),
                    Value::Array(values) => drop(values.remove(last.parse().unwrap())),
                    _ => {}
                }
            }
            Self::Insert(at, key, value) => match manifest.pointer_mut(&pick(at)).unwrap() {
                Value::Object(members) => drop(members.insert(key.to_owned(), value)),
                Value::Array(values) => values.push(value),
                _ => {}
            },
            Self::Move(from, to) => {
                let value = manifest.pointer(&pick(from)).unwrap().clone();
                *manifest.pointer_mut(&pick(to)).unwrap() = value;
            }
        }
    }
}

fn mutations() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        3 => (any::<Index>(), values()).prop_map(|(at, value)| Mutation::Replace(at, value)),
        1 => any::<Index>().prop_map(Mutation::Remove),
        2 => (any::<Index>(), select(&KEYS[..]), values()).prop_map(|(at, key, value)| Mutation::Insert(at, key, value)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Mutation::Move(from, to)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_schema_and_the_parser_agree_on_any_mutation(
        full in any::<bool>(),
        mutations in prop::collection::vec(mutations(), 1..4),
    ) {
        thread_local!(static SCHEMA: Validator = schema());
        let mut manifest = if full { full_manifest() } else { least_manifest() };
        for mutation in mutations {
            mutation.apply(&mut manifest);
        }
        prop_assert_eq!(SCHEMA.with(|schema| disagreement(schema, &manifest)), None);
    }
}
