//! `ade deps`: the sets of a machine, listed, shown and removed.

use crate::index::Index;
use crate::sharing::heavy;
use crate::site::{Site, asking, block, text};
use crate::wheel::Wheel;
use serde_json::{Value, json};

fn ids(said: &Value) -> Vec<&str> {
    said["items"].as_array().unwrap().iter().map(|item| item["set_id"].as_str().unwrap()).collect()
}

#[test]
fn sets_are_listed_by_their_last_use_and_shown_with_all_that_is_in_them() {
    let index = Index::start().with(&[Wheel::new("alpha", "1.0").requires("beta"), Wheel::new("beta", "2.1")]);
    let site = Site::of(&index);
    assert_eq!(site.json(&["deps", "list"], 0), json!({"items": []}));
    assert!(site.told(&["deps", "list"], 0).contains("no dependency sets yet"));

    let first = site.install(&asking("alpha\n", "import alpha"));
    let second = site.install(&asking("beta==2.1\n", "import beta"));
    let id = |run| block(run)["set_id"].as_str().unwrap().to_owned();
    let (first_id, second_id) = (id(&first), id(&second));
    let listed = site.json(&["deps", "list"], 0);
    assert_eq!(ids(&listed), [&second_id, &first_id]);
    let item = &listed["items"][1];
    assert_eq!((&item["workspace_id"], &item["requirements"]), (&json!("local"), &json!(["alpha"])));
    assert_eq!((&item["packages"], &item["source"], &item["volume"]), (&json!(2), &json!("index"), &item["volume"]));
    assert!(
        item["bytes"].as_u64() > Some(0) && site.sets.volumes().contains(&item["volume"].as_str().unwrap().to_owned())
    );
    assert!(item.get("lock").is_none(), "that is for `show`: {item}");
    // A use counts, not only an install.
    site.run(&asking("alpha\n", "import alpha"), &["--network", "deny"]).assert_succeeded();
    assert_eq!(ids(&site.json(&["deps", "list"], 0)), [&first_id, &second_id]);
    let told = site.told(&["deps", "list"], 0);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("REQUIREMENTS") && lines[1].starts_with(&first_id[..16]), "{told}");
    assert!(lines[1].ends_with("alpha") && lines[2].ends_with("beta==2.1") && lines[3].ends_with("in all"), "{told}");

    let shown = site.json(&["deps", "show", &first_id[..12]], 0);
    assert_eq!((&shown["set_id"], &shown["tool"]), (&json!(first_id), &json!("uv")));
    let list = first.text("packages.txt");
    assert!(list.ends_with(shown["lock"].as_str().unwrap()), "{shown}");
    assert_eq!(shown["lock_sha256"], block(&first)["lock_sha256"]);
    let packages = shown["packages"].as_array().unwrap();
    let named: Vec<(&Value, &Value)> = packages.iter().map(|one| (&one["name"], &one["requested"])).collect();
    assert_eq!(named, [(&json!("alpha"), &json!(true)), (&json!("beta"), &json!(false))]);
    assert!(shown["last_used"].as_str().unwrap() >= shown["created_at"].as_str().unwrap()[..19].to_owned().as_str());
    assert_eq!(site.told(&["deps", "show", &first_id, "--lock"], 0), shown["lock"].as_str().unwrap());
    assert_eq!(site.told(&["deps", "show", &first_id, "--log"], 0), first.text("install.log"));
    let told = site.told(&["deps", "show", &first_id], 0);
    for part in [&first_id, "local", "uv ", "index", "alpha", "requested", "beta", "2.1"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn a_set_that_is_not_meant_or_not_there_is_named_with_the_way_out() {
    let index = Index::start().with(&[Wheel::new("alpha", "1.0"), Wheel::new("beta", "1.0")]);
    let site = Site::of(&index);
    site.install(&asking("alpha", "pass")).assert_succeeded();
    site.install(&asking("beta", "pass")).assert_succeeded();
    for command in ["show", "prune"] {
        for (id, parts) in [
            ("set_zzz", &["set_zzz", "ade deps list"][..]),
            ("set_", &["set_", "more than one set"]),
            ("", &["no set", "ade deps list"]),
        ] {
            let said = site.json(&["deps", command, id], 2);
            let message = said["error"]["message"].as_str().unwrap();
            assert_eq!(said["error"]["kind"], "input_missing", "{command} {id:?}: {message}");
            assert!(parts.iter().all(|part| message.contains(part)), "{command} {id:?}: {message}");
        }
    }
    for (args, words) in [
        (&["show", "x", "--lock", "--log"][..], &["--lock", "cannot be used with", "--log"][..]),
        (&["show"], &["<SET>", "required"]),
        (&["prune", "x", "--all"], &["cannot be used with", "--all"]),
        (&["prune", "--all", "--unused-days", "3"], &["cannot be used with", "--unused-days"]),
        (&["prune", "--unused-days", "many"], &["--unused-days", "many"]),
    ] {
        let said = site.call(&[&["deps"], args].concat());
        let stderr = text(&said.stderr);
        assert_eq!((said.status.code(), text(&said.stdout)), (Some(2), String::new()), "{args:?}: {stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{args:?}: {stderr}");
    }
    let away = site.clone().with("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    assert_eq!(away.json(&["deps", "prune", "--all"], 3)["error"]["kind"], "engine_unavailable");
    assert_eq!(ids(&away.json(&["deps", "list"], 0)).len(), 2, "a list is of records, and needs no engine");
    assert_eq!(site.sets.records().len(), 2, "nothing was removed");
}

#[test]
fn prune_removes_what_is_over_the_budget_or_was_named_and_never_what_is_in_use() {
    let names = ["one", "two", "three", "four"];
    let index = Index::start().with(&names.map(|name| heavy(name, 4)));
    let site = Site::of(&index);
    let mut of = std::collections::BTreeMap::new();
    for name in names {
        let run = site.install(&asking(name, &format!("import {name}")));
        run.assert_succeeded();
        of.insert(name, block(&run)["set_id"].as_str().unwrap().to_owned());
    }
    // All four are within the budget as it is.
    assert_eq!(site.json(&["deps", "prune"], 0), json!({"removed": [], "in_use": [], "freed_bytes": 0}));

    // The least recently used one is in use.
    let busy = asking("one", "time.sleep(15)\nimport one\nsay('size', os.path.getsize('/deps/site/one_data.bin'))");
    let running = site.start(&busy, &["--network", "deny"]);
    running.container();
    site.start(&asking("two", "import two"), &["--network", "deny"]).wait().assert_succeeded();
    let tight = site.clone().with("ADE_DEPS_BUDGET_MB", "10");
    let said = tight.json(&["deps", "prune"], 0);
    let mut removed: Vec<&str> = said["removed"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    removed.sort_unstable();
    let mut wanted = [of["three"].as_str(), of["four"].as_str()];
    wanted.sort_unstable();
    assert_eq!(removed, wanted, "{said}: neither what was used last nor what is in use");
    assert!(said["freed_bytes"].as_u64() > Some(8 << 20), "{said}");

    // Named or not, it stays while it is used, and the answer says so.
    for args in [&["--all"][..], &[&of["one"]], &["--unused-days", "0"]] {
        let said = tight.json(&[&["deps", "prune"], args].concat(), 0);
        assert_eq!(said["in_use"], json!([of["one"]]), "{args:?}: {said}");
    }
    assert!(site.told(&["deps", "prune", "--all"], 0).contains(&format!("{} is in use and stays", of["one"])));
    let run = running.wait();
    run.assert_succeeded();
    assert_eq!(run.finding("size"), (4 << 20).to_string());
    site.sets.assert_at_rest();
    assert_eq!(ids(&site.json(&["deps", "list"], 0)), [&of["one"]]);

    assert_eq!(site.json(&["deps", "prune", "--unused-days", "1"], 0)["removed"], json!([]));
    assert_eq!(site.json(&["deps", "prune", &of["one"][..12]], 0)["removed"], json!([of["one"]]));
    assert!(site.sets.records().is_empty() && site.sets.volumes().is_empty());
    // What a crash left goes as well: a volume without a record.
    let run = site.install(&asking("one", "import one"));
    run.assert_succeeded();
    let record = std::fs::read_dir(site.sets.folder().join("local")).unwrap().flatten();
    for file in record.filter(|file| file.path().extension().is_some_and(|kind| kind == "json")) {
        std::fs::remove_file(file.path()).unwrap();
    }
    assert_eq!(site.sets.volumes().len(), 1);
    site.told(&["deps", "prune"], 0);
    assert!(site.sets.volumes().is_empty());
}
