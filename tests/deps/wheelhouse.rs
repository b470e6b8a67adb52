//! `ade wheelhouse`: wheels fetched where there is network, checked and installed where there is none.

use crate::index::Index;
use crate::install::{Volume, wheelhouse};
use crate::site::{Site, TOOLS, asking, block, shown, text};
use crate::support::{Package, World};
use crate::wheel::Wheel;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const IMPORTS: &str = "import alpha, beta, native; say('versions', alpha.VERSION + ' ' + beta.VERSION)";

/// An index on which the wheels that fit are not the only ones, and not always the newest.
fn index() -> (Index, Vec<Wheel>) {
    let fitting = vec![
        Wheel::new("alpha", "1.2").requires("beta>=2"),
        Wheel::new("beta", "2.1"),
        Wheel::new("native", "1.0").tag("py3-none-manylinux2014_x86_64.manylinux2014_aarch64"),
    ];
    let index = Index::start().with(&fitting).with(&[
        Wheel::new("alpha", "1.0"),
        Wheel::new("beta", "1.0"),
        Wheel::new("native", "1.0").tag("cp311-cp311-win_amd64"),
        Wheel::new("unasked", "1.0"),
    ]);
    index.add_file(
        "beta",
        "beta-3.0-py3-none-any.whl",
        Wheel::new("beta", "3.0").python(">=3.99").build(),
        Some(">=3.99"),
    );
    (index, fitting)
}

/// A site whose installs can reach nothing.
fn closed() -> Site {
    Site::default().with("ADE_RUNTIME_NETWORK_ACCESS", "off").with("ADE_INDEX_URL", "http://127.0.0.1:1/simple")
}

/// Files of a folder with their content.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

fn folder_of(package: &Package) -> World {
    World::new(package, &[])
}

#[test]
fn what_add_fetches_is_enough_for_a_run_without_network() {
    for tool in TOOLS {
        let (index, fitting) = index();
        index.demand("ann:s3cr3t");
        let site = Site::of(&index)
            .with("ADE_INSTALLER", tool)
            .with("ADE_INDEX_URL", &index.url().replace("http://", "http://ann:s3cr3t@"));
        let package = asking("# comment\nAlpha>=1.1\nnative\n", IMPORTS);
        let world = folder_of(&package);
        let root = tempfile::tempdir().unwrap();
        // A folder that is made on the way, with the requirements as a file, then with those of a package.
        let house = root.path().join("new").join("wheels");
        let list = root.path().join("list.txt");
        std::fs::write(&list, "Alpha>=1.1\nnative\n").unwrap();
        let add = ["wheelhouse", "add", "-r", shown(&list), "--wheelhouse", shown(&house)];
        let said = site.json(&add, 0);
        let wanted: BTreeMap<String, Vec<u8>> = fitting.iter().map(|wheel| (wheel.filename(), wheel.build())).collect();
        assert_eq!(names(&said["wheels"]), wanted.keys().map(String::as_str).collect::<Vec<_>>(), "{tool}");
        assert_eq!((&said["fetched"], &said["wheelhouse"]), (&said["wheels"], &json!(house)), "{tool}");
        assert_eq!(files(&house), wanted, "{tool}: these and no others, byte for byte");
        for name in wanted.keys() {
            let mode = std::fs::metadata(house.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o644, "an installer has another uid");
        }

        // What is there stays; what is damaged is fetched again.
        let damaged = fitting[1].filename();
        std::fs::write(house.join(&damaged), "damaged").unwrap();
        let add = ["wheelhouse", "add", "--package", shown(&world.package), "--wheelhouse", shown(&house)];
        let told = site.told(&add, 0);
        assert!(told.contains(&damaged) && told.contains("1 wheels fetched, 2 were there"), "{tool}: {told}");
        assert!(!told.contains("s3cr3t"), "{told}");
        assert_eq!(files(&house), wanted, "{tool}");
        assert_eq!(site.json(&add, 0)["fetched"], json!([]), "{tool}");

        let asked = index.asked().len();
        let closed = closed().with("ADE_INSTALLER", tool);
        let said = closed.json(&["wheelhouse", "check", shown(&world.package), "--wheelhouse", shown(&house)], 0);
        assert_eq!((&said["complete"], names(&said["wheels"]).len()), (&json!(true), 3), "{tool}: {said}");
        let run = closed.run(&package, &["--wheelhouse", shown(&house)]);
        run.assert_succeeded();
        assert_eq!((run.finding("versions"), &block(&run)["source"]), ("1.2 2.1", &json!("wheelhouse")), "{tool}");
        assert_eq!(index.asked().len(), asked, "{tool}: nobody asked the index again");
        assert!(site.sets.records().is_empty() && site.sets.volumes().is_empty(), "nothing was installed by `add`");
    }
}

#[test]
fn check_names_exactly_what_this_image_lacks_and_exits_with_2() {
    let wheels = [
        Wheel::new("alpha", "1.0"),
        Wheel::new("elsewhere", "1.0").tag("cp311-cp311-win_amd64"),
        Wheel::new("future", "3.0").python(">=3.99"),
        Wheel::new("needy", "1.0").requires("nowhere>=1"),
    ];
    let house = wheelhouse(&wheels);
    let volume = Volume::of(&wheels);
    for tool in TOOLS {
        let (index, _) = index();
        // Network that is there is not used: the question is what the wheelhouse has.
        let site = Site::of(&index).with("ADE_INSTALLER", tool);
        let check = |requirements: &str, house: &str, code: i32| {
            let world = folder_of(&asking(requirements, "pass"));
            let args = ["wheelhouse", "check", shown(&world.package), "--wheelhouse", house];
            let told = site.told(&args, code);
            (site.json(&args, code), told)
        };
        for house in [shown(house.path()), &volume.0] {
            let (said, told) = check("alpha\nelsewhere\nalpha>=2\nabsent[extra]==1.5", house, 2);
            assert_eq!((&said["complete"], &said["wheels"]), (&json!(false), &json!([])), "{tool}: {said}");
            let missing: Vec<&str> = said["missing"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert_eq!(missing.len(), 3, "{tool}: {missing:#?}");
            for (line, parts) in missing.iter().zip([
                ["elsewhere", "the wheelhouse has elsewhere 1.0 only", "no wheel that fits this Python and platform"],
                ["alpha>=2", "the wheelhouse has alpha 1.0 only", "alpha>=2 cannot be installed"],
                ["absent[extra]==1.5", "the wheelhouse has no absent", "absent"],
            ]) {
                assert!(parts.iter().all(|part| line.contains(part)), "{tool}: {parts:?}: {line}");
            }
            assert_eq!(told.lines().count(), 4, "{told}");
            assert!(told.contains("incomplete  `ade wheelhouse add` fetches"), "{told}");
            assert!(!told.contains("network"), "how network could be had is not the question: {told}");

            let (said, _) = check("needy", house, 2);
            let missing = names(&said["missing"]);
            assert!(missing.len() == 1 && missing[0].starts_with("nowhere"), "{tool}: {missing:?}");
            let (said, told) = check("future\nneedy", house, 2);
            let missing = names(&said["missing"]);
            assert_eq!(missing.len(), 1, "{tool}: {missing:?}");
            for part in ["the wheelhouse has future 3.0 only", "needs Python >=3.99", "the image has 3."] {
                assert!(missing[0].contains(part) && told.contains(part), "{tool}: {part}: {missing:?} {told}");
            }

            let (said, told) = check("alpha", house, 0);
            assert_eq!(said, json!({"complete": true, "wheels": ["alpha-1.0-py3-none-any.whl"], "missing": []}));
            assert!(told.contains("complete  the wheelhouse has all") && told.contains("1 wheels"), "{told}");
        }
        let world = folder_of(&asking("alpha", "pass"));
        let said = site.json(&["wheelhouse", "check", shown(&world.package)], 2);
        assert!(names(&said["missing"])[0].contains("no wheelhouse is set up"), "{tool}: {said}");
        assert_eq!(index.asked(), Vec::<String>::new(), "{tool}");
        assert!(site.sets.records().is_empty() && site.sets.volumes().is_empty(), "{tool}");
    }
}

#[test]
fn without_requirements_there_is_nothing_to_fetch_and_nothing_missing() {
    let site = closed();
    let world = folder_of(&Package::new());
    let house = wheelhouse(&[]);
    let args = ["wheelhouse", "check", shown(&world.package), "--wheelhouse", shown(house.path())];
    assert_eq!(site.json(&args, 0), json!({"complete": true, "wheels": [], "missing": []}));
    let args = ["wheelhouse", "add", "--package", shown(&world.package), "--wheelhouse", shown(house.path())];
    assert_eq!(site.json(&args, 0), json!({"wheelhouse": house.path(), "wheels": [], "fetched": []}));
    assert!(site.told(&args, 0).contains("nothing to fetch"));
}

#[test]
fn what_add_cannot_fetch_is_named_and_leaves_the_folder_as_it_was() {
    let (index, _) = index();
    let root = tempfile::tempdir().unwrap();
    let list = root.path().join("list.txt");
    let house = wheelhouse(&[Wheel::new("kept", "1.0")]);
    let before = files(house.path());
    let site = Site::of(&index).with("ADE_WHEELHOUSE", shown(house.path()));
    let refused = |site: &Site, requirements: &str, code: i32, kind: &str, parts: &[&str]| {
        std::fs::write(&list, requirements).unwrap();
        let said = site.json(&["wheelhouse", "add", "-r", shown(&list)], code);
        let message = said["error"]["message"].as_str().unwrap();
        assert_eq!(said["error"]["kind"], kind, "{said}");
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?}: {message}");
        assert_eq!(files(house.path()), before);
        said
    };
    let said = refused(&site, "alpha\nalpha==9.9\n", 2, "dependency_unavailable", &["alpha==9.9", "latest 1.2"]);
    assert_eq!(said["error"]["detail"]["code"], "no_matching_version");
    // One that is only in the wheelhouse is not on the index.
    refused(&site, "kept", 2, "dependency_unavailable", &["kept", "the index has no package"]);
    let said = refused(&site, "alpha\n-e .\n", 2, "requirements_invalid", &["-e"]);
    assert_eq!((&said["error"]["script"], &said["error"]["line"]), (&json!("requirements.txt"), &json!(2)));
    let off = site.clone().with("ADE_RUNTIME_NETWORK_ACCESS", "off");
    refused(&off, "alpha", 2, "dependency_network_denied", &["alpha", "ADE_RUNTIME_NETWORK_ACCESS"]);
    // The right name and version, and other bytes than were announced.
    index.falsify("unasked", &Wheel::new("unasked", "1.0").file("more.py", "more = 1\n").build());
    let said = refused(&site, "unasked", 3, "dependency_install_failed", &["unasked", "hash mismatch"]);
    assert!(!said["error"]["message"].as_str().unwrap().contains("more"), "{said}");
    drop(index);
    refused(&site, "alpha", 3, "dependency_install_failed", &["alpha", "could not be asked"]);
}

#[test]
fn wrong_arguments_are_named_with_the_way_out() {
    let site = closed();
    let root = tempfile::tempdir().unwrap();
    let list = root.path().join("list.txt");
    std::fs::write(&list, "alpha\n").unwrap();
    let world = folder_of(&asking("alpha", "pass"));
    let (file, package) = (shown(&list), shown(&world.package));
    for (args, words) in [
        (&["add"][..], &["--requirements", "required"][..]),
        (&["add", "-r", file, "--package", package], &["--package", "cannot be used with", "--requirements"]),
        (&["check"], &["<PACKAGE>", "required"]),
        (&["check", package, "--wheelhouse", "a b"], &["a b", "neither a path", "Docker volume"]),
    ] {
        let said = site.call(&[&["wheelhouse"], args].concat());
        let stderr = text(&said.stderr);
        assert_eq!((said.status.code(), text(&said.stdout)), (Some(2), String::new()), "{args:?}: {stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{args:?}: {stderr}");
    }
    let blocked = list.join("wheels");
    for (args, code, kind, words) in [
        (&["add", "-r", file][..], 2, "input_missing", &["--wheelhouse DIR", "ADE_WHEELHOUSE"][..]),
        (&["add", "-r", file, "--wheelhouse", "volume"], 2, "input_missing", &["--wheelhouse DIR", "slash"]),
        (
            &["add", "-r", "/nonexistent/list.txt", "--wheelhouse", "./w"],
            2,
            "input_missing",
            &["/nonexistent/list.txt"],
        ),
        (&["add", "-r", file, "--wheelhouse", shown(&blocked)], 3, "host_io", &["list.txt/wheels"]),
        (&["check", "/nonexistent/package", "--wheelhouse", "/"], 2, "package_invalid", &["/nonexistent/package"]),
    ] {
        let said = site.json(&[&["wheelhouse"], args].concat(), code);
        let message = said["error"]["message"].as_str().unwrap();
        assert_eq!(said["error"]["kind"], kind, "{args:?}: {message}");
        assert!(words.iter().all(|word| message.contains(word)), "{args:?}: {message}");
    }
    let away = site.with("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let said = away.json(&["wheelhouse", "check", package], 3);
    assert_eq!(said["error"]["kind"], "engine_unavailable", "{said}");
}
