//! The docs against the code.

use std::collections::BTreeSet;

use ade::packages::{Code, PackageError, Stage};
use serde_json::Value;

const MANIFEST_MD: &str = include_str!("../../docs/developers/manifest.md");

/// The rows of the table under a heading, each as its cells without backquotes.
fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = MANIFEST_MD
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no {heading:?}"));
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().replace('`', ""))
            .collect()
    })
    .collect()
}

#[test]
fn every_diagnostic_code_is_documented_with_its_level_and_no_other() {
    let documented: Vec<(String, String)> = table("## Diagnostics")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let level = |code: &Code| format!("{:?}", code.level()).to_lowercase();
    let coded: Vec<(String, String)> = Code::ALL
        .iter()
        .map(|code| (code.as_str().to_owned(), level(code)))
        .collect();
    assert_eq!(documented, coded);
}

#[test]
fn every_package_error_is_documented_and_no_other() {
    let documented: Vec<String> = table("## Package errors")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(documented, PackageError::CODES);
}

#[test]
fn every_key_of_the_schema_is_documented_and_no_other() {
    let schema: Value =
        serde_json::from_str(include_str!("../../docs/schemas/manifest.v1.0.schema.json")).unwrap();
    let mut keys = BTreeSet::new();
    collect(&schema, &schema, "", &mut keys);
    let documented: BTreeSet<String> = table("## Keys")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(documented, keys);
    for stage in Stage::ALL {
        assert!(documented.contains(&format!("hooks.{}", stage.as_str())));
    }
}

/// Leaves of the schema as dotted keys. All stages have the same entries: they are documented once.
fn collect(root: &Value, schema: &Value, at: &str, keys: &mut BTreeSet<String>) {
    let schema = schema
        .get("$ref")
        .and_then(Value::as_str)
        .map_or(schema, |at| root.pointer(&at[1..]).unwrap());
    let join = |key: &str| {
        if at.is_empty() {
            key.to_owned()
        } else {
            format!("{at}.{key}")
        }
    };
    match (
        schema.get("properties").and_then(Value::as_object),
        schema.get("additionalProperties"),
    ) {
        (Some(properties), _) => {
            for (key, value) in properties {
                collect(root, value, &join(key), keys);
            }
        }
        (None, Some(Value::Object(_))) => {
            let name = if at == "env" { "<NAME>" } else { "<field>" };
            collect(root, &schema["additionalProperties"], &join(name), keys);
        }
        _ if at.starts_with("hooks.") => {
            keys.insert(at.to_owned());
            for key in root["$defs"]["hooks"]["items"]["properties"]
                .as_object()
                .unwrap()
                .keys()
            {
                keys.insert(format!("hooks.<stage>[].{key}"));
            }
        }
        _ => drop(keys.insert(at.to_owned())),
    }
}

#[test]
fn the_example_in_the_docs_is_valid() {
    let (_, example) = MANIFEST_MD.split_once("```json\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let report = crate::support::validate_text(example.as_bytes());
    assert!(report.is_ok(), "{:#?}", report.diagnostics);
}
