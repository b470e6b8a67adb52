//! The commands of package authors on their own machine.

use super::support::{Package, Upload, World, ade, run};
use super::{call, object, text};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command with `--json` to its end, and gives what it says.
#[track_caller]
fn json_of(args: &[&str], code: i32) -> Value {
    object(&call(&[args, &["--json"]].concat()), code)
}

/// A folder for packages, and a package of two fields in it whose example is as expected.
fn package(folder: &Path) -> PathBuf {
    let place = folder.join("package");
    let fee = "def transform(values, **_):\n    return {'values': [float(value) for value in values]}\n";
    Package::new()
        .column("fee", fee)
        .file("examples/two/in.csv", "Name,fee\nAda,17.50\nBo,2\nCy,3\n")
        .file("examples/two/normalized.csv", "Name,fee\nAda,17.50\nBo,2\nCy,3\n")
        .file("examples/two/expected.json", r#"{"kinds": {"Name": ["text"], "fee": ["number"]}, "issues": {}}"#)
        .write_to(&place);
    place
}

#[test]
fn a_new_package_passes_its_own_test_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("deep/club-members");
    let path = place.to_str().unwrap();
    let made = json_of(&["config", "new", path], 0);
    assert_eq!((&made["fields"], &made["example"]), (&json!(["name", "email"]), &json!("people")));
    let manifest: Value = serde_json::from_slice(&fs::read(place.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["info"]["title"], "club members");
    let checked = json_of(&["config", "validate", path], 0);
    assert_eq!(checked["diagnostics"], json!([]));
    let tested = json_of(&["config", "test", path], 0);
    assert_eq!((&tested["passed"], &tested["examples"][0]["name"]), (&json!(true), &json!("people")), "{tested}");
    let input = place.join("examples/people/people.csv");
    let out = folder.path().join("out");
    let ran = json_of(&["run", path, input.to_str().unwrap(), "--out", out.to_str().unwrap()], 0);
    assert_eq!((&ran["summary"]["rows_written"], &ran["summary"]["issues_found"]), (&json!(3), &json!(1)));
    let again = json_of(&["config", "new", path], 2);
    assert!(again["error"]["message"].as_str().unwrap().contains("is not empty"), "{again}");
    let left: Vec<_> = fs::read_dir(place.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["club-members"]);
}

#[test]
fn a_new_package_takes_its_fields_from_the_headers_that_a_job_finds() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("office");
    let path = place.to_str().unwrap();
    let workbook = project().join("tests/fixtures/samples/offset_start/office.xlsx");
    let made = json_of(&["config", "new", path, "--from", workbook.to_str().unwrap(), "--title", "Büro \"1\""], 0);
    let expected = fs::read(project().join("tests/fixtures/samples/offset_start/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let headers: Vec<String> = expected["tables"][0]["mapping"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|pair| pair[0].as_str().map(str::to_lowercase))
        .collect();
    let manifest: Value = serde_json::from_slice(&fs::read(place.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["info"]["title"], "Büro \"1\"");
    let labels: Vec<String> = manifest["columns"]["meta"]
        .as_object()
        .unwrap()
        .values()
        .map(|meta| meta["label"].as_str().unwrap().to_lowercase())
        .collect();
    assert!(labels.len() >= 3 && labels.iter().all(|label| headers.contains(label)), "{labels:?} of {headers:?}");
    assert_eq!(made["fields"].as_array().unwrap().len(), labels.len());
    assert_eq!(json_of(&["config", "validate", path], 0)["errors"], 0);
    let tested = json_of(&["config", "test", path], 0);
    assert_eq!(tested["examples"][0]["name"], "office", "{tested}");

    let none = folder.path().join("none");
    let pdf = folder.path().join("a.pdf");
    fs::write(&pdf, "%PDF-1.7 and so on").unwrap();
    let refused = json_of(&["config", "new", none.to_str().unwrap(), "--from", pdf.to_str().unwrap()], 2);
    assert_eq!(refused["error"]["kind"], "input_not_workbook");
    assert!(!none.exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half made is left");
}

#[test]
fn examples_of_the_documentation_are_as_expected() {
    let examples = project().join("docs/examples");
    let stages = fs::read_dir(examples.join("first_package")).unwrap().map(|entry| entry.unwrap().path());
    let packages = ["membership", "invoices", "price_list"].map(|name| examples.join(name)).into_iter().chain(stages);
    for package in packages {
        let tested = json_of(&["config", "test", package.to_str().unwrap()], 0);
        let listed = tested["examples"].as_array().unwrap();
        assert_eq!((listed.len(), &listed[0]["differences"]), (1, &json!([])), "{}: {tested}", package.display());
    }
}

#[test]
fn what_differs_is_told_by_cell_and_update_makes_it_the_expectation() {
    let folder = tempfile::tempdir().unwrap();
    let place = package(folder.path());
    let path = place.to_str().unwrap();
    assert_eq!(json_of(&["config", "test", path], 0)["passed"], true);

    let csv = place.join("examples/two/normalized.csv");
    fs::write(&csv, "Name,fee\nAda,17.6\nCy,3\nDee,4\n").unwrap();
    fs::write(
        place.join("examples/two/expected.json"),
        r#"{"kinds": {"fee": ["text"]}, "formats": {"in.csv": {"delimiter": ","}}}"#,
    )
    .unwrap();
    let told = json_of(&["config", "test", path], 1);
    let differences: Vec<(&str, &str)> = told["examples"][0]["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["what"].as_str().unwrap(), one["place"].as_str().unwrap()))
        .collect();
    assert_eq!(told["passed"], false);
    for wanted in [("cell", "B2 fee"), ("row", "row 4"), ("kinds", "column fee")] {
        assert!(differences.contains(&wanted), "{wanted:?}: {differences:?}");
    }
    let people = call(&["config", "test", path]);
    let said = text(&people.stdout);
    assert_eq!(people.status.code(), Some(1), "{said}");
    for word in ["differs  two", "B2 fee", "\"17.6\"", "\"17.5\"", "failed", "0 of 1"] {
        assert!(said.contains(word), "{word}: {said}");
    }

    let updated = json_of(&["config", "test", path, "--update"], 0);
    assert_eq!(updated["examples"][0]["updated"], true);
    assert_eq!(fs::read_to_string(&csv).unwrap(), "Name,fee\nAda,17.5\nBo,2\nCy,3\n");
    let written: Value = serde_json::from_slice(&fs::read(place.join("examples/two/expected.json")).unwrap()).unwrap();
    assert_eq!(written["kinds"], json!({"Name": ["text"], "fee": ["number"]}));
    assert_eq!(written["formats"], json!({"in.csv": {"delimiter": ","}}), "what only the author says stays");
    assert_eq!(json_of(&["config", "test", path], 0)["passed"], true);
    assert_eq!(json_of(&["config", "test", path, "--update"], 0)["examples"][0]["updated"], false);
}

#[test]
fn an_example_may_expect_a_failure_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let place = package(folder.path());
    let path = place.to_str().unwrap();
    fs::write(place.join("examples/two/in.csv"), "\n").unwrap();
    let told = json_of(&["config", "test", path, "--update"], 1);
    assert_eq!(told["examples"][0]["differences"][0]["what"], "job");
    let kind = told["examples"][0]["error"]["kind"].as_str().unwrap().to_owned();
    fs::write(place.join("examples/two/expected.json"), json!({"error": {"kind": kind}}).to_string()).unwrap();
    assert_eq!(json_of(&["config", "test", path], 0)["passed"], true);
    fs::write(place.join("examples/two/expected.json"), r#"{"error": {"kind": "timeout"}}"#).unwrap();
    assert_eq!(json_of(&["config", "test", path], 1)["examples"][0]["differences"][0]["expected"], "timeout");
}

#[test]
fn examples_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let place = package(folder.path());
    let path = place.to_str().unwrap();
    let refused = |args: &[&str], words: &[&str]| {
        let said = json_of(args, 2);
        assert_eq!(said["error"]["kind"], "package_invalid", "{said}");
        for word in words {
            assert!(said["error"]["message"].as_str().unwrap().contains(word), "{word}: {said}");
        }
    };
    refused(&["config", "test", path, "three"], &["three", "two"]);
    for (file, content, words) in [
        ("expected.json", r#"{"isues": {}}"#, ["expected.json", "isues"]),
        ("expected.json", r#"{"inputs": ["../../manifest.json"]}"#, ["examples/two", "inputs"]),
        ("normalized.csv", "a,b\n1\n", ["normalized.csv", "line: 2"]),
    ] {
        let file = place.join("examples/two").join(file);
        let before = fs::read(&file).unwrap();
        fs::write(&file, content).unwrap();
        refused(&["config", "test", path], &words);
        fs::write(&file, before).unwrap();
    }
    fs::remove_dir_all(place.join("examples")).unwrap();
    refused(&["config", "test", path], &["no example", "--update"]);
    let zip = World::with_file("package.zip", &Package::new().file("examples/a/in.csv", "Name\nAda\n").zip(), &[]);
    refused(&["config", "test", zip.package.to_str().unwrap(), "--update"], &["folder"]);
    let undefined = json_of(&["config", "test", zip.package.to_str().unwrap()], 1);
    assert_eq!(undefined["examples"][0]["undefined"], true);
}

#[test]
fn no_job_gets_the_examples() {
    let package = Package::attacking("import os\nassert os.listdir() and not os.path.exists('examples')")
        .file("examples/a/in.csv", "Name\nAda\n");
    run(&package, &[Upload::names()], &[]).assert_succeeded();
}

#[test]
fn every_column_is_told_with_its_scores_and_why_it_became_no_field() {
    let scores = |body: &str| format!("def detect_it(header, **_):\n    return {{'scores': {{'self': {body}}}}}\n");
    let package = Package::new()
        .column("first", &scores("{'A': 0.9, 'B': 0.7, 'C': 0.3}.get(header, 0)"))
        .column("second", &scores("0.2 if header == 'A' else 0"));
    let world = World::new(&package, &[Upload::csv("A,B,C,D\n1,2,3,4\n5,6,7,8\n")]);
    let (package, input) = (world.package.to_str().unwrap(), world.inputs[0].to_str().unwrap());
    let said = json_of(&["config", "try", package, input], 0);
    assert_eq!(said["threshold"], 0.5);
    let table = &said["tables"][0];
    let reasons: Vec<&str> =
        table["columns"].as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["mapped", "lost", "below_threshold", "not_scored"], "{said}");
    let by = json!([{"rule": "columns.first:detect_it", "delta": 0.9}]);
    assert_eq!(
        (&table["columns"][0]["contributors"], &table["columns"][0]["runner_up"]["field"]),
        (&by, &json!("second"))
    );
    assert_eq!(table["columns"][2]["runner_up"]["contributors"][0]["delta"], 0.3);
    assert_eq!(table["fields_without_column"], json!(["name", "second"]));

    let output = ade().args(["config", "try", package, input]).output().unwrap();
    let shown = text(&output.stdout);
    for words in [
        "+0.90  columns.first:detect_it",
        "first went to column A, which scored 0.90",
        "first comes nearest: 0.30 is below the threshold 0.50",
        "no detector scored it",
        "fields without a column: name, second",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}
