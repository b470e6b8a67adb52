//! Packages on their way to a service and back.

use super::service::{Service, end, names, text};
use super::support::{Package, ade};
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;
use std::time::Duration;

/// A package whose field `name` has this label, with a script and an example.
fn package(label: &str) -> Package {
    Package::new()
        .column("name", "def transform(values, **_):\n    return {'values': values}\n")
        .file("examples/one/in.csv", "Name\nAda\n")
        .manifest(json!({"columns": {"meta": {"name": {"label": label}}}}))
}

fn written(service: &Service, name: &str, package: &Package) -> String {
    let folder = service.root().join(name);
    fs::remove_dir_all(&folder).ok();
    package.write_to(&folder);
    folder.to_str().unwrap().to_owned()
}

fn versions(said: &Value) -> Vec<&str> {
    said["versions"].as_array().unwrap().iter().map(|version| version["version"].as_str().unwrap()).collect()
}

#[test]
fn a_package_is_pushed_pulled_compared_and_exported() {
    let service = Service::start();
    let folder = written(&service, "Club members", &package("Name"));
    let new = service.json(&["config", "push", &folder], 0);
    assert_eq!((&new["slug"], &new["published"]), (&json!("club-members"), &json!("new_config")));
    assert_eq!(new["latest_version"]["version"], "v1");
    let again = service.json(&["config", "push", &folder], 0);
    assert_eq!((&again["published"], &again["latest_version"]["version"]), (&json!("unchanged"), &json!("v1")));
    let older = service.json(&["config", "register", &folder, "--slug", "club-members"], 0);
    assert_eq!(older["published"], "unchanged", "its other name");
    let titled = service.json(&["config", "push", &folder, "--title", "Other"], 2);
    assert_eq!(titled["error"]["kind"], "slug_taken");
    let said = text(&service.call(&["config", "push", &folder]).stderr);
    assert!(said.contains("nothing was published: club-members@v1"), "{said}");
    assert_eq!(service.json(&["config", "diff", &folder, "club-members"], 0), json!({"same": true, "files": []}));

    let changed =
        package("Full name").file("resources/blob", [0_u8, 1, 2]).file("columns/_new.py", "x = '\u{1b}[31m'\n");
    let folder = written(&service, "Club members", &changed);
    let next = service.json(&["config", "push", &folder, "--config", "club-members"], 0);
    assert_eq!((&next["published"], &next["latest_version"]["version"]), (&json!("new_version"), &json!("v2")));

    let diff = service.json(&["config", "diff", "club-members@v1", "club-members@v2"], 1);
    let files: Vec<(&str, &str, bool)> = diff["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (file["path"].as_str().unwrap(), file["change"].as_str().unwrap(), file["diff"].is_string()))
        .collect();
    let wanted =
        [("manifest.json", "changed", true), ("columns/_new.py", "added", true), ("resources/blob", "added", false)];
    assert_eq!(files, wanted);
    let shown = service.call(&["config", "diff", "club-members@v1", &folder]);
    assert_eq!(shown.status.code(), Some(1));
    let shown = text(&shown.stdout);
    for word in
        ["changed manifest.json", "--- a/manifest.json", "+++ b/columns/_new.py", "+x = ' [31m'", "sha256 nothing → "]
    {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown:?}");

    service.json(&["config", "pull", "club-members@v1", "deep/old"], 0);
    assert_eq!(names(&service.root().join("deep")), ["old"]);
    assert_eq!(names(&service.root().join("deep/old")), ["columns", "examples", "manifest.json"]);
    assert_eq!(service.json(&["config", "diff", "deep/old", "club-members@v1"], 0)["same"], true);
    let taken = service.json(&["config", "pull", "club-members", "deep/old"], 2);
    assert_eq!(taken["error"]["kind"], "file_exists");

    let exported = service.json(&["config", "export", "club-members", "v2.zip"], 0);
    assert_eq!(exported["version"]["version"], "v2");
    assert_eq!(service.json(&["config", "export", "club-members", "v2.zip"], 2)["error"]["kind"], "file_exists");
    assert_eq!(service.json(&["config", "push", "v2.zip", "--config", "club-members"], 0)["published"], "unchanged");

    let clone = service.json(&["config", "clone", "club-members@v1", "guests", "--title", "Guests"], 0);
    assert_eq!((&clone["slug"], &clone["title"]), (&json!("guests"), &json!("Guests")));
    assert_eq!(clone["latest_version"]["package_sha256"], new["latest_version"]["package_sha256"]);
    assert_eq!(service.json(&["config", "clone", "club-members", "guests"], 2)["error"]["kind"], "slug_taken");
}

#[test]
fn versions_are_activated_rolled_back_and_archived() {
    let service = Service::start();
    for label in ["One", "Two", "Three"] {
        let folder = written(&service, "members", &package(label));
        service.json(&["config", "push", &folder], 0);
    }
    let none = service.json(&["config", "rollback", "members"], 2);
    assert_eq!(none["error"]["kind"], "no_earlier_version");
    service.json(&["config", "activate", "members@v1"], 0);
    assert_eq!(service.json(&["config", "rollback", "members"], 2)["error"]["kind"], "no_earlier_version");
    service.json(&["config", "activate", "members@v3"], 0);
    let back = service.json(&["config", "rollback", "members"], 0);
    assert_eq!(back["version"], "v1");

    let history = service.json(&["config", "history", "members"], 0);
    assert_eq!(versions(&history), ["v3", "v2", "v1"]);
    let times = |index: usize| history["versions"][index]["active_times"].as_array().unwrap().clone();
    assert_eq!((times(0).len(), times(1).len(), times(2).len()), (1, 0, 2));
    assert_eq!(times(0)[0]["until"], times(2)[1]["since"]);
    assert_eq!((&times(2)[1]["until"], &history["versions"][2]["active"]), (&json!(null), &json!(true)));
    let shown = text(&service.call(&["config", "history", "members"]).stdout);
    assert!(shown.lines().any(|line| line.starts_with("v1") && line.contains("– now by")), "{shown}");

    assert_eq!(service.json(&["config", "archive", "members@v1"], 2)["error"]["kind"], "version_active");
    assert_eq!(service.json(&["config", "archive", "members"], 2)["error"]["kind"], "version_active");
    assert!(service.json(&["config", "archive", "members@v3"], 0)["archived_at"].is_string());
    assert_eq!(service.json(&["config", "get", "members"], 0)["latest_version"]["version"], "v2");
    assert_eq!(service.json(&["config", "rollback", "members"], 2)["error"]["kind"], "config_archived");
    assert!(service.json(&["config", "restore", "members@v3"], 0)["archived_at"].is_null());

    let folder = written(&service, "guests", &package("Guest"));
    service.json(&["config", "push", &folder], 0);
    assert!(service.json(&["config", "archive", "guests"], 0)["archived_at"].is_string());
    let refused = service.json(&["config", "push", &written(&service, "guests", &package("Other"))], 2);
    assert_eq!(refused["error"]["kind"], "config_archived");
    assert!(service.json(&["config", "restore", "guests"], 0)["archived_at"].is_null());
    for (args, kind) in [
        (vec!["config", "get", "nobody"], "config_not_found"),
        (vec!["config", "activate", "members@v9"], "version_not_found"),
        (vec!["config", "diff", "./nowhere", "members"], "input_unreadable"),
    ] {
        assert_eq!(service.json(&args, 2)["error"]["kind"], kind, "{args:?}");
    }
}

/// A package whose activation runs this.
fn activating(hook: &str) -> Package {
    Package::new().hook("on_activate", hook)
}

#[test]
fn an_activation_says_what_its_hooks_did_and_one_that_fails_what_they_printed() {
    let service = Service::start();
    let good = "def run(**_):\n    print('looking around')\n    return {'rates': 3}\n";
    service.json(&["config", "push", &written(&service, "members", &activating(good))], 0);
    let shown = service.call(&["config", "activate", "members"]);
    let (said, beside) = (text(&shown.stdout), text(&shown.stderr));
    assert_eq!(shown.status.code(), Some(0), "{beside}");
    assert!(said.starts_with("active        v1 (cfgv_"), "{said}");
    assert!(said.contains("hooks/on_activate.py  ") && said.contains("returned {\"rates\":3}"), "{said}");
    assert!(beside.contains("stdout | looking around"), "{beside}");

    let bad = "def run(**_):\n    print('almost')\n    raise ValueError('the price list is a year old')\n";
    service.json(&["config", "push", &written(&service, "members", &activating(bad))], 0);
    let failed = service.json(&["config", "activate", "members@v2"], 2);
    let error = &failed["error"];
    assert_eq!(error["kind"], "activation_failed");
    assert!(error["message"].as_str().unwrap().ends_with("nothing was changed"), "{error}");
    assert_eq!(error["problem"]["error"]["script"], "hooks/on_activate.py");
    assert_eq!(error["problem"]["hook_output"]["lines"][0]["text"], "almost");
    let shown = service.call(&["config", "activate", "members@v2"]);
    let beside = text(&shown.stderr);
    assert_eq!((shown.status.code(), text(&shown.stdout).as_str()), (Some(2), ""));
    for part in ["error[activation_failed]:", "at hooks/on_activate.py:3", "stdout | almost", "request "] {
        assert!(beside.contains(part), "{part}: {beside}");
    }
    let active = |version: &str| {
        let history = service.json(&["config", "history", "members"], 0);
        let versions = history["versions"].as_array().unwrap().clone();
        versions.iter().find(|one| one["version"] == version).unwrap()["active"].clone()
    };
    assert_eq!((active("v1"), active("v2")), (json!(true), json!(false)), "the earlier version stays active");
}

#[test]
fn an_activation_that_was_overtaken_is_refused_and_so_is_what_is_not_active() {
    let service = Service::start();
    service.json(&["config", "push", &written(&service, "members", &package("One"))], 0);
    let slow = activating("import time\n\n\ndef run(**_):\n    print('begun', flush=True)\n    time.sleep(5)\n");
    service.json(&["config", "push", &written(&service, "members", &slow)], 0);
    assert_eq!(service.json(&["config", "deactivate", "members"], 2)["error"]["kind"], "version_not_active");
    service.json(&["config", "activate", "members@v1"], 0);
    let mut activate = service.command(&["config", "activate", "members@v2", "--json"]);
    let activation = activate.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Long after it has looked at what it replaces, and long before its hook ends.
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(service.json(&["config", "deactivate", "members"], 0)["active"], false);
    let (code, said, _) = end(activation);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["error"]["kind"]), (Some(2), &json!("conflict")), "{said}");
    let message = said["error"]["message"].as_str().unwrap();
    assert!(message.contains("was taken back while this one was being activated; nothing was changed"), "{message}");
    let shown = text(&service.call(&["config", "history", "members"]).stdout);
    assert!(!shown.contains("– now by"), "none is active: {shown}");
    service.json(&["config", "archive", "members@v2"], 0);
    assert_eq!(service.json(&["config", "activate", "members@v2"], 2)["error"]["kind"], "config_archived");
}

#[test]
fn two_packages_of_this_machine_are_compared_without_a_service() {
    let folder = tempfile::tempdir().unwrap();
    package("One").write_to(&folder.path().join("one"));
    fs::write(folder.path().join("two.zip"), package("Two").zip()).unwrap();
    let mut diff = ade();
    diff.args(["config", "diff", "one", "two.zip", "--server", "http://127.0.0.1:9"]).current_dir(folder.path());
    let output = diff.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.starts_with("changed manifest.json\n--- a/manifest.json"), "{shown}");
}
