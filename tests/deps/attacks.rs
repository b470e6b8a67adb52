//! Attacks 58 to 65: what a requirements file, a package index and the packages on it try.

use crate::index::Index;
use crate::install::wheelhouse;
use crate::site::{Site, TOOLS, asking, block, shown};
use crate::support::server::{Database, Server, holds};
use crate::support::{Docker, World, ade};
use crate::wheel::Wheel;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A source archive whose build runs code: it brings its own build backend, so that nothing else is needed to build it.
fn source(name: &str, code: &str) -> Wheel {
    let backend = format!(
        r#"
import os, zipfile

def note():
{code}

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("{name}.py", "FACTS = " + repr(note()) + "\n")
        wheel.writestr("{name}-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr("{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("{name}-1.0.dist-info/RECORD", "{name}.py,,\n{name}-1.0.dist-info/METADATA,,\n{name}-1.0.dist-info/WHEEL,,\n{name}-1.0.dist-info/RECORD,,\n")
    return name
"#
    );
    Wheel::empty(name, "1.0")
        .file("backend.py", backend)
        .file("setup.py", "print('setup.py runs')\nraise SystemExit('setup.py runs')\n")
        .file("pyproject.toml", "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n")
}

const NOTE: &str = r#"    print("the build runs", flush=True)
    facts = {"job": sorted(os.listdir("/job")), "in": sorted(n for n in os.listdir("/job/in") if not n.startswith("marked")), "uid": os.getuid()}
    facts["secrets"] = [name for name in os.environ if "KEY" in name or "TOKEN" in name or "DATABASE" in name]
    facts["marked"] = []
    for folder in ("/job/tmp", "/job/out", "/job/in", "/tmp", "/dev/shm", "/deps"):
        try:
            open(folder + "/marked-by-the-build", "w").close()
            facts["marked"].append(folder)
        except OSError:
            pass
    return facts"#;

#[test]
fn a58_a_source_archive_is_not_built_unless_an_admin_allowed_it_and_the_message_says_so() {
    for tool in TOOLS {
        let index = Index::start();
        index.add_source(&source("alpha", NOTE));
        let run = Site::of(&index).with("ADE_INSTALLER", tool).install(&asking("alpha", "import alpha"));
        run.assert_failed("dependency_unavailable", &["alpha", "source archive", "--source-builds on", "wheelhouse"]);
        assert_eq!(run.json["error"]["detail"]["code"], "no_wheel", "{tool}");
        for text in [run.stdout.clone(), run.text("install.log"), run.text("events.ndjson")] {
            assert!(!text.contains("the build runs") && !text.contains("setup.py runs"), "{tool}: {text}");
        }
    }
}

#[test]
fn a58_a_build_that_an_admin_allowed_runs_in_the_installer_and_sees_nothing_of_a_job() {
    for tool in TOOLS {
        let index = Index::start();
        index.add_source(&source("alpha", NOTE));
        let site = Site::of(&index).with("ADE_INSTALLER", tool);
        let server = Server::start_on(Database::Sqlite, &[], &site.environment());
        let tenant = server.tenant();
        let look = "import alpha\nsay('facts', json.dumps(alpha.FACTS))\nsay('marks', [os.path.join(f, n) for f in ('/job/tmp', '/job/out', '/job/in', '/tmp', '/dev/shm', '/deps') if os.path.isdir(f) for n in os.listdir(f) if n.startswith('marked')])\nsay('uid', os.getuid())";
        let config = tenant.config(&asking("alpha", look));
        let network = tenant.path(&format!("/configs/{}/network", config.config));
        tenant.admin.put(&network).json(&json!({"access": "install_only"})).send().expect(200);
        let refused = tenant.end(&tenant.job(&config, &tenant.names()));
        assert_eq!(refused["error"]["detail"]["code"], "no_wheel", "{refused:#}");
        tenant.owner.put(&network).json(&json!({"source_builds": true})).send().problem(403, "forbidden");

        tenant.admin.put(&network).json(&json!({"source_builds": true})).send().expect(200);
        let job = tenant.job(&config, &tenant.names());
        let record = tenant.end(&job);
        assert_eq!(record["status"], "succeeded", "{tool}: {record:#}");
        let events = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/events"))).send().expect(200).text();
        let said = |name: &str| -> String {
            let lines = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut texts = lines.filter_map(|event| event["detail"]["text"].as_str().map(str::to_owned));
            texts.find_map(|text| text.strip_prefix(&format!("{name}: ")).map(str::to_owned)).unwrap_or_default()
        };
        let facts: Value = serde_json::from_str(&said("facts")).unwrap_or_else(|_| panic!("{tool}: {events}"));
        assert_eq!(facts["in"], json!(["requirements.txt"]), "{tool}: {facts}");
        assert_eq!(facts["secrets"], json!([]), "{tool}");
        assert!(facts["marked"].as_array().unwrap().contains(&json!("/job/tmp")), "{tool}: {facts}");
        assert_eq!(said("marks"), "[]", "{tool}: nothing that the build wrote is in the job");
        assert_ne!(said("uid"), facts["uid"].to_string());
    }
}

#[test]
fn a58_a_build_that_fills_the_disk_is_stopped_while_it_goes_on() {
    // Later than any look at the beginning would see, and long before there is an end to look at.
    const FILL: &str = r#"    import time
    time.sleep(3)
    for number in range(4):
        with open(os.path.join(os.environ["TMPDIR"], f"fill-{number}"), "wb") as file:
            file.write(bytes(24 << 20))
    time.sleep(90)
    return {}"#;
    let index = Index::start();
    index.add_source(&source("alpha", FILL));
    let site = Site::of(&index).with("ADE_DEPS_MAX_SET_MB", "40");
    let server = Server::start_on(Database::Sqlite, &[], &site.environment());
    let tenant = server.tenant();
    let config = tenant.config(&asking("alpha", "import alpha"));
    let network = tenant.path(&format!("/configs/{}/network", config.config));
    let policy = json!({"access": "install_only", "source_builds": true});
    tenant.admin.put(&network).json(&policy).send().expect(200);
    let began = Instant::now();
    let record = tenant.end(&tenant.job(&config, &tenant.names()));
    let error = &record["error"];
    assert_eq!(
        (&error["kind"], &error["detail"]["code"]),
        (&json!("dependency_install_failed"), &json!("set_too_large"))
    );
    for part in ["40 MB", "ADE_DEPS_MAX_SET_MB"] {
        assert!(error["message"].as_str().unwrap().contains(part), "{part}: {record:#}");
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let deps = server.data().join("deps");
    assert!(crate::support::sets::records_in(&deps).is_empty() && crate::support::sets::volumes_of(&deps).is_empty());
}

#[test]
fn a59_every_option_and_every_place_in_requirements_is_refused_with_its_line() {
    let index = Index::start().with(&[Wheel::new("alpha", "1.0")]);
    let site = Site::of(&index);
    for (line, code) in [
        ("--extra-index-url https://evil.example/simple", "requirement_option"),
        ("-i https://evil.example/simple", "requirement_option"),
        ("-r /etc/passwd", "requirement_option"),
        ("-e .", "requirement_option"),
        ("alpha --global-option=x", "requirement_option"),
        ("alpha @ https://evil.example/alpha.whl", "requirement_source"),
        ("git+https://evil.example/alpha.git", "requirement_source"),
        ("./vendor/alpha", "requirement_source"),
        ("alpha==", "requirement_syntax"),
        ("alpha --hash=md5:d41d8cd98f00b204e9800998ecf8427e", "requirement_hash"),
    ] {
        let package = asking(&format!("# one\r\nalpha\r\n{line}\r\n"), "pass");
        let run = site.install(&package);
        run.assert_failed("requirements_invalid", &["ade config validate"]);
        assert_eq!((run.code, run.job_id()), (Some(2), None), "{line}");
        let diagnostics = run.json["diagnostics"].as_array().unwrap();
        let said = diagnostics.iter().find(|one| one["code"] == code);
        let said = said.unwrap_or_else(|| panic!("{line}: {diagnostics:#?}"));
        assert_eq!((&said["path"], &said["line"]), (&"requirements.txt".into(), &3.into()), "{line}");
        let world = World::new(&package, &[]);
        let checked = ade().args(["config", "validate", "--json", "--static"]).arg(&world.package).output().unwrap();
        let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
        let listed = checked["diagnostics"].as_array().unwrap();
        assert!(listed.iter().any(|one| one["code"] == code && one["line"] == 3), "{line}: {checked:#}");
    }
    assert_eq!(index.asked(), Vec::<String>::new());
}

#[test]
fn a60_a_name_on_the_own_index_is_never_taken_from_the_public_one() {
    let public = Index::start().with(&[Wheel::new("alpha", "9.9"), Wheel::new("beta", "1.0")]);
    let own = Index::start().with(&[Wheel::new("alpha", "1.0")]);
    let site = Site::of(&public).with("ADE_EXTRA_INDEX_URLS", &own.url());
    let package = asking("alpha\nbeta", "import alpha, beta; say('version', alpha.VERSION)");
    let run = site.install(&package);
    run.assert_succeeded();
    assert_eq!(run.finding("version"), "1.0");
    assert_eq!(public.downloads("alpha-9.9-py3-none-any.whl"), 0);
    // Not even when the own index has no such version.
    let run = site.install(&asking("alpha>=2", "import alpha"));
    run.assert_failed("dependency_unavailable", &["alpha>=2", "1.0"]);
    assert_eq!(run.json["error"]["detail"]["code"], "no_matching_version");

    let asked = own.asked().len() + public.asked().len();
    let run = site.with("ADE_INSTALLER", "pip").install(&asking("alpha\nbeta ", "import alpha"));
    run.assert_failed("dependency_unavailable", &["pip", "ADE_INSTALLER=uv", "ADE_EXTRA_INDEX_URLS"]);
    assert_eq!(run.json["error"]["detail"]["code"], "pip_mixes_indexes");
    assert_eq!(own.asked().len() + public.asked().len(), asked, "nothing is asked");
}

#[test]
fn a61_the_job_after_an_install_has_no_network() {
    let index = Index::start().with(&[Wheel::new("alpha", "1.0")]);
    let body = format!(
        r#"
        import alpha, urllib.request
        say('interfaces', sorted(line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line))
        attempt('index', lambda: urllib.request.urlopen('{0}/alpha/', timeout=3))
        def through():
            with socket.create_connection(('127.0.0.1', int(os.environ['HTTP_PROXY'].rpartition(':')[2])), 3) as end:
                end.sendall(b'GET {0}/alpha/ HTTP/1.1\r\nHost: {1}\r\n\r\n')
                say('answer', end.recv(100).split(b' ')[1].decode())
        through()
        attempt('public', lambda: socket.create_connection(('1.1.1.1', 443), 3))
        attempt('dns', lambda: socket.getaddrinfo('pypi.org', 443))
        "#,
        index.url(),
        index.host()
    );
    let run = Site::of(&index).install(&asking("alpha", &body));
    run.assert_succeeded();
    assert_eq!((run.finding("interfaces"), run.finding("public")), ("['lo']", "ENETUNREACH"));
    // What is left of the way to the index says who denied it.
    assert_eq!(run.finding("answer"), "403");
    let denied = run.events_named("egress.denied");
    assert!(
        !denied.is_empty() && denied.iter().all(|event| event["purpose"] == "run" && event["code"] == "network_denied")
    );
    assert!(run.events_named("egress.connect").iter().all(|event| event["purpose"] == "install"));
    assert!(run.finding("index") != "allowed" && run.finding("dns") != "allowed");
    let decision = run.events_named("network.decision")[0];
    assert_eq!((&decision["install"], &decision["run"]), (&true.into(), &false.into()));
}

#[test]
fn a62_a_set_is_of_one_workspace_and_no_job_can_change_it() {
    let index = Index::start().with(&[Wheel::new("alpha", "1.0")]);
    let server = Server::start_on(Database::Sqlite, &[], &Site::of(&index).environment());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let tenant = server.tenant();
        tenant.admin.put(tenant.path("/network")).json(&json!({"access": "install_only"})).send().expect(200);
        for number in 0..2 {
            // Two packages with one set of requirements.
            let package = asking("alpha", &format!("import alpha; say('number', {number})"));
            let job = tenant.job(&tenant.config(&package), &tenant.names());
            let record = tenant.end(&job);
            assert_eq!(record["status"], "succeeded", "{record:#}");
        }
        ids.push(tenant.id);
    }
    let records = crate::support::sets::records_in(&server.data().join("deps"));
    assert_eq!(records.len(), 2, "one for each workspace, whatever the package: {records:#?}");
    for id in &ids {
        let own: Vec<_> = records.iter().filter(|record| record["workspace_id"] == id.as_str()).collect();
        assert_eq!(own.len(), 1);
        let volumes = Docker::connect().volumes_with(&format!("dev.ade.workspace={id}"));
        assert_eq!(volumes, [own[0]["volume"].as_str().unwrap()]);
    }
    assert_ne!(records[0]["set_id"], records[1]["set_id"]);
    drop(server);

    let site = Site::of(&index);
    let body = r#"
        import alpha, shutil
        path = alpha.__file__
        attempt('change', lambda: open(path, 'w'))
        attempt('append', lambda: open(path, 'a'))
        attempt('add', lambda: open('/deps/site/evil.py', 'w'))
        attempt('beside', lambda: open('/deps/evil', 'w'))
        attempt('remove', lambda: os.unlink(path))
        attempt('rename', lambda: os.rename(path, path + 'x'))
        attempt('mode', lambda: os.chmod(path, 0o777))
        attempt('link', lambda: os.link(path, '/deps/site/evil.py'))
        attempt('touch', lambda: os.utime(path))
        attempt('tree', lambda: shutil.rmtree('/deps/site'))
        say('version', alpha.VERSION)
        "#;
    for expected in ["installed", "cached"] {
        let run = site.install(&asking("alpha", body));
        run.assert_succeeded();
        assert_eq!((block(&run)["status"].as_str(), run.finding("version")), (Some(expected), "1.0"));
        for name in ["change", "append", "add", "beside", "remove", "rename", "mode", "link", "touch", "tree"] {
            let value = run.finding(name);
            assert!(["EROFS", "EPERM", "EXDEV", "EACCES"].contains(&value), "{name}: {value}");
        }
    }
}

#[test]
fn a63_planted_pth_files_and_customize_modules_are_inert() {
    let evil = "import os, sys\nprint('planted code runs', flush=True)\nopen('/job/tmp/planted', 'w').close()\n";
    let line = "import sys; print('planted code runs'); open('/job/tmp/planted', 'w').close()\n";
    let planted = Wheel::new("alpha", "1.0")
        .file("evil.pth", line)
        .file("distutils-precedence.pth", line)
        .file("sitecustomize.py", evil)
        .file("usercustomize.py", evil)
        .file("site.py", evil)
        .file("pip/__init__.py", evil)
        .file("packaging/__init__.py", evil);
    let body = r#"
        import alpha, subprocess
        say('planted', [name for name in ('sitecustomize', 'usercustomize', 'evil') if name in sys.modules])
        say('file', os.path.exists('/job/tmp/planted'))
        out = subprocess.run([sys.executable, '-c', 'print("child")'], capture_output=True, text=True)
        say('child', out.stdout.strip())
        import multiprocessing
        say('pool', multiprocessing.get_context('fork').Pool(1).map(abs, [-1]))
        "#;
    for tool in TOOLS {
        let index = Index::start().with(&[planted.clone(), Wheel::new("beta", "1.0")]);
        let site = Site::of(&index).with("ADE_INSTALLER", tool);
        let run = site.install(&asking("alpha\nbeta", body));
        run.assert_succeeded();
        assert_eq!((run.finding("planted"), run.finding("file"), run.finding("child")), ("[]", "False", "child"));
        for name in ["install.log", "events.ndjson"] {
            assert!(!run.text(name).contains("planted code runs"), "{tool}: {}", run.text(name));
        }
    }
}

#[test]
fn a63_a_wheel_that_leaves_its_folder_leaves_nothing_outside() {
    for path in
        ["../../job/tmp/outside.py", "/deps/outside.py", "../outside.py", "alpha-1.0.data/data/../../../outside.py"]
    {
        for tool in TOOLS {
            let index = Index::start().with(&[Wheel::new("alpha", "1.0").file(path, "outside = 1\n")]);
            let body = "say('outside', [os.path.join(f, n) for f in ('/deps', '/job/tmp', '/') for n in os.listdir(f) if 'outside' in n])";
            let run = Site::of(&index).with("ADE_INSTALLER", tool).install(&asking("alpha", body));
            if run.status() == "failed" {
                run.assert_failed("dependency_install_failed", &[]);
            } else {
                assert_eq!(run.finding("outside"), "[]", "{tool}: {path}");
            }
        }
    }
}

const SECRET: &str = "c4n4ry-d1e2f3";

/// Every spelling of the secret: as it is, and as it is sent.
fn assert_secret_free(what: &str, text: &str) {
    use base64::Engine as _;
    let sent = base64::engine::general_purpose::STANDARD.encode(format!("ann:{SECRET}"));
    for spelling in [SECRET, sent.as_str()] {
        assert!(!text.contains(spelling), "{what} tells the credentials of the index: {text}");
    }
}

#[test]
fn a64_credentials_of_an_index_appear_nowhere() {
    for tool in TOOLS {
        let index = Index::start().with(&[Wheel::new("alpha", "1.0")]);
        index.demand(&format!("ann:{SECRET}"));
        let url = index.url().replace("http://", &format!("http://ann:{SECRET}@"));
        let site = Site::of(&index).with("ADE_INSTALLER", tool).with("ADE_INDEX_URL", &url);

        let running = site.start(&asking("alpha", "import alpha; time.sleep(4)"), &["--network", "install_only"]);
        let container = running.container();
        let inspected = format!("{:?}", Docker::connect().inspect(&container));
        assert_secret_free("docker inspect", &inspected);
        let run = running.wait();
        run.assert_succeeded();
        let wrong = site.clone().with("ADE_INDEX_URL", &url.replace("ann:", "bob:"));
        let denied = wrong.install(&asking("alpha\n", "import alpha"));
        denied.assert_failed("dependency_install_failed", &["alpha", "401", "ADE_INDEX_URL"]);
        let missing = site.install(&asking("alpha==2", "import alpha"));
        missing.assert_failed("dependency_unavailable", &["alpha==2"]);
        for run in [&run, &denied, &missing] {
            assert_secret_free("stdout", &run.stdout);
            assert_secret_free("stderr", &run.stderr);
            assert_eq!(holds(&run.out, SECRET), None, "{tool}");
        }
        assert_eq!(holds(site.sets.folder(), SECRET), None, "{tool}: records of sets");
        let settings = ade().args(["settings", "--json"]).envs(site.environment()).output().unwrap();
        assert_secret_free("ade settings", &String::from_utf8_lossy(&settings.stdout));

        let mut environment = site.environment();
        environment.push(("RUST_LOG", "debug"));
        let server = Server::start_on(Database::Sqlite, &[], &environment);
        let tenant = server.tenant();
        tenant.admin.put(tenant.path("/network")).json(&json!({"access": "install_only"})).send().expect(200);
        for requirement in ["alpha", "alpha==2"] {
            let job = tenant.job(&tenant.config(&asking(requirement, "import alpha")), &tenant.names());
            let record = tenant.end(&job);
            assert_eq!(record["status"] == "succeeded", requirement == "alpha", "{record:#}");
            assert_secret_free("the job's record", &record.to_string());
            let events = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/events"))).send().expect(200).text();
            assert_secret_free("events", &events);
        }
        assert_secret_free("status", &server.status().to_string());
        assert_secret_free("the log of the service", &server.log());
        assert_eq!(holds(&server.data(), SECRET), None, "{tool}: the data folder");
    }
}

#[test]
fn a65_an_installed_package_shadows_neither_the_standard_library_nor_the_runner() {
    let evil = "print('evil was imported')\nraise RuntimeError('evil')\n";
    let mut wheel = Wheel::new("alpha", "1.0");
    for name in ["json", "os", "re", "zipfile", "site", "decimal", "wave", "hello_vendored"] {
        wheel = wheel.file(&format!("{name}.py"), evil);
    }
    for name in ["ade_runner", "python_calamine", "encodings", "collections", "importlib", "packaging"] {
        wheel = wheel.file(&format!("{name}/__init__.py"), evil).file(&format!("{name}/pipeline.py"), evil);
    }
    let package = asking(
        "alpha",
        "import alpha, json, wave, encodings, python_calamine, ade_runner, hello_vendored\nfor module in (json, wave, encodings, python_calamine, ade_runner, hello_vendored): say(module.__name__, module.__file__)",
    )
    .file("vendor/hello_vendored.py", "");
    let house = wheelhouse(&[wheel]);
    let run = Site::default().run(&package, &["--wheelhouse", shown(house.path())]);
    run.assert_succeeded();
    assert!(!run.log().contains(&"evil was imported"));
    for name in ["json", "wave", "encodings", "python_calamine", "ade_runner", "hello_vendored"] {
        assert!(!run.finding(name).starts_with("/deps/"), "{name}: {}", run.finding(name));
    }
    assert_eq!(run.artifact.as_ref().unwrap()["summary"]["rows_written"], 2);
}
