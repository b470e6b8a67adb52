//! The examples and samples come out as their authors wrote down, however they are given and however often.

use crate::records::{artifact, package_at, project, run_zip, timeless, uploads};
use crate::support::{Package, Run, Running, Upload, World, run};
use crate::workbook;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn examples() -> PathBuf {
    project().join("docs/examples")
}

/// Folders below a folder, by name.
fn folders(parent: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    found.sort();
    assert!(!found.is_empty(), "nothing in {}", parent.display());
    found
}

fn expectation(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap()
}

/// The inputs that an expectation names, relative to a folder.
fn inputs_of(expected: &Value, folder: &Path) -> Vec<Upload> {
    let names = expected["inputs"].as_array().unwrap().iter();
    uploads(&names.map(|name| folder.join(name.as_str().unwrap())).collect::<Vec<_>>())
}

/// An example: its package, its inputs, and the folder of its expectation.
fn example(folder: &Path) -> (Package, Vec<Upload>, PathBuf) {
    let example = folders(&folder.join("examples")).remove(0);
    (package_at(folder), inputs_of(&expectation(&example), &example), example)
}

/// Asserts everything that `expected.json` and `normalized.csv` in a folder say about a job.
#[track_caller]
fn assert_as_expected(run: &Run, folder: &Path) {
    let expected = expectation(folder);
    let name = folder.display();
    let artifact = artifact(run);
    if let Some(kind) = expected["error"]["kind"].as_str() {
        assert_eq!((run.kind(), run.code), (kind, Some(2)), "{name}: {}", run.message());
        return;
    }
    run.assert_succeeded();

    let inputs: Vec<&str> =
        artifact["inputs"].as_array().unwrap().iter().map(|input| input["name"].as_str().unwrap()).collect();
    let mut tables = Vec::new();
    let mut issues: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for sheet in artifact["sheets"].as_array().unwrap() {
        for table in sheet["tables"].as_array().unwrap() {
            let mapping: Vec<Value> = table["mapping"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| json!([one["raw"]["header"], one["target_field"]]))
                .collect();
            let input = inputs[usize::try_from(sheet["input"].as_u64().unwrap()).unwrap() - 1];
            tables.push(json!({
                "input": input, "sheet": sheet["name"], "range": table["range"], "header": table["header"]["kind"],
                "mapping": mapping,
            }));
            for (field, summary) in table["validation"]["summary_by_field"].as_object().unwrap() {
                for (code, count) in summary["by_code"].as_object().unwrap() {
                    *issues.entry(field.clone()).or_default().entry(code.clone()).or_default() +=
                        count.as_u64().unwrap();
                }
            }
        }
    }
    let wanted: Vec<Value> = expected["tables"].as_array().unwrap().clone();
    assert_eq!(tables, wanted, "{name}");
    assert_eq!(json!(issues), expected["issues"], "{name}");

    let sheet = workbook::read(run);
    assert_eq!(sheet.name, expected["sheet"].as_str().unwrap(), "{name}");
    let mut wanted = csv::ReaderBuilder::new().from_path(folder.join("normalized.csv")).unwrap();
    assert_eq!(sheet.headers, wanted.headers().unwrap().iter().collect::<Vec<_>>(), "{name}");
    let wanted: Vec<csv::StringRecord> = wanted.records().map(Result::unwrap).collect();
    for (number, (row, wanted)) in sheet.rows.iter().zip(&wanted).enumerate() {
        for (column, (cell, text)) in row.iter().zip(wanted).enumerate() {
            let header = &sheet.headers[column];
            assert!(workbook::is(cell, text), "{name}: row {} of {header}: {cell:?} is not {text:?}", number + 1);
        }
    }
    let rows = sheet.rows.len() as u64;
    assert_eq!(rows, wanted.len() as u64, "{name}");
    for (header, kinds) in sheet.kinds() {
        let wanted: BTreeSet<&str> = expected["kinds"][header]
            .as_array()
            .unwrap()
            .iter()
            .map(|kind| match kind.as_str().unwrap() {
                "datetime" | "time" | "duration" => "date",
                other => other,
            })
            .collect();
        assert_eq!(kinds, wanted, "{name}: {header}");
    }

    let total: u64 = issues.values().flat_map(BTreeMap::values).sum();
    for summary in [&run.json["summary"], &artifact["summary"]] {
        assert_eq!(
            (&summary["rows_written"], &summary["columns_written"], &summary["issues_found"]),
            (&json!(rows), &json!(sheet.headers.len()), &json!(total)),
            "{name}"
        );
    }
    for annotation in expected["annotations"].as_array().into_iter().flatten() {
        let found = artifact["annotations"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| annotation.as_object().unwrap().iter().all(|(key, value)| one[key] == *value));
        assert!(found, "{name}: {annotation} is not among {}", artifact["annotations"]);
    }
    for (input, looks) in expected["formats"].as_object().into_iter().flatten() {
        let found = artifact["inputs"].as_array().unwrap().iter().find(|one| one["name"] == **input).unwrap();
        for (key, value) in looks.as_object().unwrap() {
            assert_eq!(found[key], *value, "{name}: {input} {key}");
        }
    }
    let faults: Vec<&Value> =
        artifact["diagnostics"].as_array().unwrap().iter().filter(|one| one["level"] == "error").collect();
    assert!(faults.is_empty(), "{name}: {faults:?}");
}

#[test]
fn an_example_comes_out_as_expected_and_the_same_bytes_from_a_folder_a_zip_and_a_second_time() {
    let complete: Vec<PathBuf> =
        folders(&examples()).into_iter().filter(|folder| folder.join("manifest.json").exists()).collect();
    assert_eq!(complete.len(), 3, "membership, invoices and price_list");
    for folder in complete {
        let (package, inputs, expected) = example(&folder);
        let first = run(&package, &inputs, &[]);
        assert_as_expected(&first, &expected);
        let output = std::fs::read(first.out.join("normalized.xlsx")).unwrap();
        for again in [run_zip(&package, &inputs, &[]), run(&package, &inputs, &[])] {
            again.assert_succeeded();
            assert!(std::fs::read(again.out.join("normalized.xlsx")).unwrap() == output, "{}", folder.display());
            assert_eq!(timeless(artifact(&again)), timeless(artifact(&first)), "{}", folder.display());
            assert_ne!(again.job_id(), first.job_id());
            let of = |run: &Run| request(run)["config"].clone();
            assert_eq!(of(&again), of(&first), "a folder and a zip of it are the same package");
        }
    }
}

#[test]
fn every_stage_of_the_first_package_comes_out_as_the_guide_says() {
    for folder in folders(&examples().join("first_package")) {
        let (package, inputs, expected) = example(&folder);
        assert_as_expected(&run(&package, &inputs, &[]), &expected);
    }
}

#[test]
fn every_sample_comes_out_as_a_person_would_have_made_it() {
    let fixtures = project().join("tests/fixtures");
    for folder in folders(&fixtures.join("samples")) {
        let expected = expectation(&folder);
        let package = package_at(&fixtures.join("packages").join(expected["package"].as_str().unwrap()));
        assert_as_expected(&run(&package, &inputs_of(&expected, &folder), &[]), &folder);
    }
}

fn request(run: &Run) -> Value {
    serde_json::from_slice(&std::fs::read(run.out.join("run-request.json")).unwrap()).unwrap()
}

#[test]
fn the_run_request_has_the_right_hashes_and_neither_a_host_path_nor_anything_of_the_environment() {
    const SECRET: &str = "nobody-shall-see-this-7c1f";
    let (package, inputs, _) = example(&examples().join("invoices"));
    let world = World::new(&package, &inputs);
    let opened = ade::packages::Package::open(&world.package, &ade::packages::PackageCaps::default()).unwrap();
    let run = Running::start(world, &[], |command| {
        command.env("ADE_TEST_SECRET", SECRET).env("AWS_SECRET_ACCESS_KEY", SECRET);
    })
    .wait();
    run.assert_succeeded();
    let request = request(&run);
    assert_eq!(request["schema"], "ade.run_request/v1");
    assert_eq!(request["workspace_id"], "local");
    assert_eq!(request["config"]["package_sha256"], opened.package_sha256());
    assert_eq!(request["config"]["manifest_sha256"].as_str().map(str::to_owned), opened.manifest_sha256());
    let listed = request["inputs"].as_array().unwrap();
    assert_eq!(listed.len(), inputs.len());
    for (listed, upload) in listed.iter().zip(&inputs) {
        assert_eq!(listed["filename"], upload.name.as_str());
        assert_eq!(listed["bytes"], upload.content.len());
        assert_eq!(listed["sha256"], format!("{:x}", Sha256::digest(&upload.content)));
    }
    let recorded = &artifact(&run)["inputs"];
    for (one, listed) in recorded.as_array().unwrap().iter().zip(listed) {
        assert_eq!(
            (&one["name"], &one["sha256"], &one["bytes"]),
            (&listed["filename"], &listed["sha256"], &listed["bytes"])
        );
    }
    assert!(request["image_digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(request["image_digest"], artifact(&run)["runtime"]["image_digest"]);
    assert_eq!(request["limits"], artifact(&run)["runtime"]["limits"]);

    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
    for name in ["run-request.json", "artifact.json", "events.ndjson"] {
        let text = std::fs::read_to_string(run.out.join(name)).unwrap();
        for word in [SECRET, "ADE_TEST_SECRET", run.world.root().to_str().unwrap(), &format!("{home}/")] {
            assert!(!text.contains(word), "{word} is in {name}");
        }
    }
}

#[test]
fn the_event_log_goes_from_enqueue_to_exit_with_known_names_in_order() {
    let (package, inputs, _) = example(&examples().join("membership"));
    let run = run(&package, &inputs, &[]);
    run.assert_succeeded();
    let names: Vec<&str> = run.events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((names.first(), names.last()), (Some(&"enqueue"), Some(&"exit")));
    let catalogue: BTreeSet<&str> = ade::events::EVENTS.iter().map(|event| event.name).collect();
    assert!(names.iter().all(|name| catalogue.contains(name)), "{names:?}");
    let spine: Vec<&str> = names.iter().filter(|name| !name.starts_with("hook.") && **name != "log").copied().collect();
    let passes = ["pass.start", "pass.exit"].repeat(5);
    let wanted =
        [&["enqueue", "start", "network.decision", "worker.spawn"][..], &passes, &["worker.exit", "collect", "exit"]];
    assert_eq!(spine, wanted.concat());

    let times: Vec<&str> = run.events.iter().map(|event| event["ts"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let states: Vec<&str> = run.events.iter().filter_map(|event| event["state"].as_str()).collect();
    assert_eq!(states, ["queued", "running", "succeeded"]);
    for event in &run.events {
        assert_eq!((&event["attempt"], &event["execution"]), (&json!(1), &json!(1)), "{event}");
        let moment = event["ts"].as_str().unwrap();
        assert!(moment.len() == 24 && moment.ends_with('Z'), "{moment} is not UTC with milliseconds");
    }
    for detail in run.events_named("pass.exit") {
        assert!(detail["stats"].is_object() && detail["pass"].is_string(), "{detail}");
    }
    let files: Vec<&str> =
        run.events_named("collect")[0]["files"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(files, ["normalized.xlsx", "artifact.json", "events.ndjson", "run-request.json"]);
}
