//! What every job leaves in writing, checked against what is published about it.

use crate::support::{Package, Run, Running, Upload, World};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The folder of the project.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The config package in a folder of the project, in memory.
pub fn package_at(folder: &Path) -> Package {
    let mut package = Package::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(&current).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                if !name.ends_with("__pycache__") {
                    folders.push(path);
                }
            } else {
                package = package.file(&name, std::fs::read(&path).unwrap());
            }
        }
    }
    package
}

/// Files of the project as inputs, under their own names.
pub fn uploads(paths: &[PathBuf]) -> Vec<Upload> {
    paths
        .iter()
        .map(|path| Upload::new(path.file_name().unwrap().to_str().unwrap(), std::fs::read(path).unwrap()))
        .collect()
}

/// A workbook of the runner's own fixtures.
pub fn runner_fixture(name: &str) -> Vec<u8> {
    std::fs::read(project().join("images/runner/tests/data").join(name)).unwrap()
}

/// Runs a package that is a zip file over inputs.
pub fn run_zip(package: &Package, uploads: &[Upload], args: &[&str]) -> Run {
    Running::start(World::with_file("package.zip", &package.zip(), uploads), args, |_| {}).wait()
}

/// The artifact of a job, which is valid by the published schema, whatever became of the job.
#[track_caller]
pub fn artifact(run: &Run) -> &Value {
    static SCHEMA: OnceLock<jsonschema::Validator> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        let text = std::fs::read(project().join("docs/schemas/artifact.v1.2.schema.json")).unwrap();
        jsonschema::validator_for(&serde_json::from_slice(&text).unwrap()).unwrap()
    });
    let artifact = run.artifact.as_ref().unwrap_or_else(|| panic!("no artifact: {} {}", run.stdout, run.stderr));
    let errors: Vec<String> =
        schema.iter_errors(artifact).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "artifact.json is not valid: {errors:#?}");
    assert_eq!(artifact["job"]["status"], run.json["status"]);
    assert_eq!(artifact["job"]["job_id"], run.json["job_id"]);
    assert_eq!(artifact["job"]["error"], run.json["error"]);
    artifact
}

/// The diagnostic of a code; panics with the others when there is none.
#[track_caller]
pub fn diagnostic<'a>(run: &'a Run, code: &str) -> &'a Value {
    let all = artifact(run)["diagnostics"].as_array().unwrap();
    all.iter().find(|one| one["code"] == code).unwrap_or_else(|| panic!("no {code} among {all:#?}"))
}

/// The names of the passes that were completed.
pub fn passes(run: &Run) -> Vec<&str> {
    let history = artifact(run)["pass_history"].as_array().unwrap();
    history.iter().map(|pass| pass["name"].as_str().unwrap()).collect()
}

/// The same without what no two jobs share: ids, times, durations.
pub fn timeless(artifact: &Value) -> Value {
    match artifact {
        Value::Object(members) => members
            .iter()
            .filter(|(key, _)| {
                !matches!(
                    key.as_str(),
                    "job_id" | "trace_id" | "started_at" | "completed_at" | "annotated_at" | "duration_ms"
                )
            })
            .map(|(key, value)| (key.clone(), timeless(value)))
            .collect(),
        Value::Array(items) => items.iter().map(timeless).collect(),
        other => other.clone(),
    }
}
