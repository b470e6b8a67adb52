//! Drafts from the command line.

use super::service::{Service, names, text};
use super::support::Package;
use serde_json::{Value, json};
use std::fs;

const SCRIPT: &str = "def transform(values, **_):\n    return {'values': values}\n";

/// A service with the config `members`, and a draft of it.
fn with_draft() -> Service {
    let service = Service::start();
    service.register("members", &Package::new().column("name", SCRIPT));
    let draft = service.json(&["config", "draft", "new", "members"], 0);
    assert_eq!((&draft["revision"], &draft["files"]), (&json!(1), &json!(2)));
    assert_eq!(draft["title"], "members from v1");
    service
}

fn file<'a>(shown: &'a Value, path: &str) -> &'a Value {
    shown["files"].as_array().unwrap().iter().find(|file| file["path"] == path).unwrap()
}

fn show(service: &Service) -> Value {
    service.json(&["config", "draft", "show", "members"], 0)
}

#[test]
fn a_draft_is_made_changed_looked_at_and_published() {
    let service = with_draft();
    let call = |args: &[&str], code: i32| service.json(&[&["config", "draft"], args].concat(), code);
    let root = service.root();

    call(&["get", "members", "columns/name.py", "name.py"], 0);
    assert_eq!(fs::read_to_string(root.join("name.py")).unwrap(), SCRIPT);
    assert_eq!(call(&["get", "members", "columns/name.py", "name.py"], 2)["error"]["kind"], "file_exists");
    let sha256 = file(&show(&service), "columns/name.py")["sha256"].as_str().unwrap().to_owned();

    fs::write(root.join("README.md"), "Who is in the club.").unwrap();
    let made = call(&["put", "members", "README.md", "README.md"], 0);
    assert_eq!((&made["revision"], &made["file"]["path"]), (&json!(2), &json!("README.md")));
    fs::write(root.join("name.py"), "def transform(values, **_):\n    return {'values': values\n").unwrap();
    call(&["put", "members", "columns/name.py", "name.py", "--expect", &sha256], 0);
    let invalid = call(&["validate", "members"], 2);
    assert_eq!((&invalid["valid"], &invalid["revision"]), (&json!(false), &json!(3)));
    let shown = service.call(&["config", "draft", "validate", "members"]);
    assert!(text(&shown.stderr).contains("columns/name.py:3"), "{}", text(&shown.stderr));
    assert!(text(&shown.stdout).starts_with("invalid  members@draft_"), "{}", text(&shown.stdout));
    let refused = call(&["publish", "members"], 2);
    assert_eq!(refused["error"]["kind"], "package_invalid");

    fs::write(root.join("name.py"), SCRIPT.replace("values}", "list(values)}")).unwrap();
    call(&["put", "members", "columns/name.py", "name.py", "--force"], 0);
    let valid = call(&["validate", "members"], 0);
    assert_eq!((&valid["valid"], &valid["dry_run"], &valid["revision"]), (&json!(true), &json!(true), &json!(4)));
    call(&["rm", "members", "README.md"], 0);

    let stale = call(&["publish", "members", "--revision", "4"], 2);
    assert_eq!(stale["error"]["kind"], "draft_changed");
    let said = stale["error"]["message"].as_str().unwrap();
    assert!(said.contains("at revision 5 now") && said.contains("--revision 5"), "{said}");
    let published = call(&["publish", "members", "--revision", "5"], 0);
    assert_eq!(
        (&published["published"], &published["latest_version"]["version"]),
        (&json!("new_version"), &json!("v2"))
    );
    assert_eq!(call(&["publish", "members"], 0)["published"], "unchanged");
    let shown = text(&service.call(&["config", "draft", "publish", "members"]).stderr);
    assert!(shown.contains("nothing was published: members@v2"), "{shown}");

    call(&["export", "members", "draft.zip"], 0);
    let same = service.json(&["config", "diff", "draft.zip", "members@v2"], 0);
    assert_eq!(same["same"], true);
    assert_eq!(call(&["delete", "members"], 0)["deleted"], true);
    let none = call(&["show", "members"], 2);
    assert_eq!(none["error"]["kind"], "draft_not_found");
    assert!(none["error"]["message"].as_str().unwrap().contains("ade config draft new members"), "{none}");
    assert_eq!(service.json(&["config", "get", "members"], 0)["latest_version"]["version"], "v2");
}

#[test]
fn what_another_has_written_is_not_written_over() {
    let service = with_draft();
    let root = service.root();
    let before = file(&show(&service), "columns/name.py")["sha256"].as_str().unwrap().to_owned();
    fs::write(root.join("theirs.py"), format!("{SCRIPT}# theirs\n")).unwrap();
    fs::write(root.join("ours.py"), format!("{SCRIPT}# ours\n")).unwrap();
    let path = ["members", "columns/name.py"];
    let put = |args: &[&str], code: i32| service.json(&[&["config", "draft", "put"], &path[..], args].concat(), code);
    put(&["theirs.py", "--expect", &before], 0);
    let theirs = file(&show(&service), "columns/name.py")["sha256"].as_str().unwrap().to_owned();

    // As a new file, and over what it was before.
    for args in [&["ours.py"][..], &["ours.py", "--expect", &before]] {
        let refused = put(args, 2);
        assert_eq!(refused["error"]["kind"], "precondition_failed", "{args:?}");
        let said = refused["error"]["message"].as_str().unwrap();
        for word in ["config draft get members@draft_", &format!("--expect {theirs}"), "was left as it is"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    let removed = service.json(&[&["config", "draft", "rm"], &path[..], &["--expect", &before]].concat(), 2);
    assert_eq!(removed["error"]["kind"], "precondition_failed");
    assert_eq!(file(&show(&service), "columns/name.py")["sha256"], json!(theirs), "theirs is still there");
    put(&["ours.py", "--expect", &theirs], 0);

    service.json(&[&["config", "draft", "rm"], &path[..]].concat(), 0);
    let gone = put(&["ours.py", "--expect", &theirs], 2);
    let said = gone["error"]["message"].as_str().unwrap();
    assert!(said.contains("there is no columns/name.py in the draft any more"), "{said}");
}

#[test]
fn a_file_is_edited_in_place_and_no_text_is_lost() {
    let service = with_draft();
    let edit = |editor: &str, path: &str| {
        let mut command = service.command(&["config", "draft", "edit", "members", path]);
        command.env("VISUAL", "").env("EDITOR", editor).output().unwrap()
    };
    let same = edit("true", "columns/name.py");
    assert_eq!((same.status.code(), text(&same.stderr).trim()), (Some(0), "nothing was changed"));
    let failed = edit("false", "columns/name.py");
    let said = text(&failed.stderr);
    assert_eq!(failed.status.code(), Some(3), "{said}");
    assert!(said.contains("the editor `false` ended with exit status: 1") && !said.contains("is in"), "{said}");
    let changed = edit("sed -i 's/values}/list(values)}/'", "columns/name.py");
    assert_eq!(changed.status.code(), Some(0), "{}", text(&changed.stderr));
    assert!(text(&changed.stdout).contains("is at revision 2"), "{}", text(&changed.stdout));

    // Somebody else writes while the editor is open.
    fs::write(service.root().join("theirs.py"), format!("{SCRIPT}# theirs\n")).unwrap();
    let put = format!(
        "{} config draft put members columns/name.py theirs.py --force --quiet > /dev/null && sed -i '$a # ours'",
        env!("CARGO_BIN_EXE_ade")
    );
    let stale = edit(&put, "columns/name.py");
    let said = text(&stale.stderr);
    assert_eq!(stale.status.code(), Some(2), "{said}");
    assert!(said.contains("precondition_failed") && said.contains("ade config draft get"), "{said}");
    let kept = said.split("What you have written is in ").nth(1).unwrap().lines().next().unwrap();
    let ours = fs::read_to_string(kept).unwrap();
    assert!(ours.ends_with("# ours\n") && !ours.contains("theirs"), "{ours}");
    fs::remove_dir_all(std::path::Path::new(kept).parent().unwrap()).unwrap();
    service.json(&["config", "draft", "get", "members", "columns/name.py", "now.py"], 0);
    assert!(fs::read_to_string(service.root().join("now.py")).unwrap().ends_with("# theirs\n"));
}

#[test]
fn a_draft_is_named_where_there_are_several_and_refusals_say_what_to_do() {
    let service = with_draft();
    let call = |args: &[&str], code: i32| service.json(&[&["config", "draft"], args].concat(), code);
    let empty = call(&["new", "members", "--empty", "--title", "From nothing"], 0);
    assert_eq!((&empty["files"], &empty["base_version_id"]), (&json!(0), &json!(null)));
    let of_version = call(&["new", "members@v1"], 0);
    assert!(of_version["base_version_id"].is_string());
    let all = call(&["list", "members"], 0);
    assert_eq!(all["items"].as_array().unwrap().len(), 3);
    let listed = text(&service.call(&["config", "draft", "list", "members"]).stdout);
    assert!(listed.lines().any(|line| line.contains("From nothing")), "{listed}");

    let several = call(&["show", "members"], 2);
    assert_eq!(several["error"]["kind"], "draft_required");
    let named = format!("members@{}", empty["draft_id"].as_str().unwrap());
    assert_eq!(call(&["show", &named], 0)["title"], "From nothing");
    fs::write(service.root().join("x"), "x").unwrap();
    for (args, kind) in [
        (vec!["show", "members@v1"], "draft_not_found"),
        (vec!["show", "members@draft_01JD0000000000000000000000"], "draft_not_found"),
        (vec!["show", "nobody"], "config_not_found"),
        (vec!["new", "members@v1", "--empty"], "invalid_body"),
        (vec!["get", &named, "columns/x.py", "y"], "file_not_found"),
        (vec!["rm", &named, "columns/x.py"], "file_not_found"),
        (vec!["put", &named, "../x", "x"], "package_entry_unsafe"),
        (vec!["put", &named, "..", "x"], "package_entry_unsafe"),
        (vec!["put", &named, "x", "nowhere"], "input_unreadable"),
        (vec!["publish", &named], "package_invalid"),
    ] {
        assert_eq!(call(&args, 2)["error"]["kind"], kind, "{args:?}");
    }
    assert!(!names(service.root()).contains(&"y".to_owned()), "what failed leaves nothing");
    let odd = service.call(&["config", "draft", "rm", &named, "x", "--expect", "abc"]);
    assert_eq!(odd.status.code(), Some(2), "{}", text(&odd.stderr));
}
