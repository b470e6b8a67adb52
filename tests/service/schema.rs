//! Answers against what is published about them.

use serde_json::{Value, json};
use std::path::Path;
use std::sync::OnceLock;

/// The published OpenAPI document.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    })
}

/// Asserts that a value is what the document says of a schema.
#[track_caller]
pub fn assert_valid(schema: &str, value: &Value) {
    let mut whole = json!({"$ref": format!("#/components/schemas/{schema}")});
    whole["components"] = document()["components"].clone();
    check(&jsonschema::validator_for(&whole).unwrap(), value);
}

/// Asserts that an artifact is valid by its published schema.
#[track_caller]
pub fn assert_artifact(artifact: &Value) {
    static SCHEMA: OnceLock<jsonschema::Validator> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas/artifact.v1.2.schema.json");
        jsonschema::validator_for(&serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).unwrap()
    });
    check(schema, artifact);
}

#[track_caller]
fn check(schema: &jsonschema::Validator, value: &Value) {
    let errors: Vec<String> =
        schema.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?} in {value:#}");
}
