//! The command line as people and programs meet it: what is printed where, exit codes, files, interrupts.

mod config;
#[path = "../support/mod.rs"]
mod support;

use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use support::{Package, Running, Upload, World, ade, run, start};

const NO_DOCKER: &str = "unix:///nonexistent/docker.sock";
const COMMANDS: [&str; 13] = [
    "run", "config", "image", "doctor", "serve", "jobs", "documents", "workspaces", "keys", "system", "bench",
    "settings", "completions",
];

/// Runs `ade` with these arguments to its end.
fn call(args: &[&str]) -> Output {
    ade().args(args).output().expect("ade starts")
}

/// Runs `ade run` for people, not programs, over a world; further arguments come first.
fn run_for_people(world: &World, args: &[&str]) -> Output {
    let mut command = ade();
    command.arg("run").args(args).arg("--out").arg(world.out()).arg(&world.package).args(&world.inputs);
    command.env("TMPDIR", world.root().join("tmp")).output().expect("ade starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The one JSON object on stdout; stderr is empty.
#[track_caller]
fn object(output: &Output, code: i32) -> Value {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stdout} {stderr}");
    assert_eq!(stderr, "", "with --json nothing is said beside it");
    assert!(stdout.ends_with('\n') && stdout.lines().count() == 1, "one line: {stdout}");
    let value: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert!(value.is_object(), "{stdout}");
    value
}

/// Keys of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn json_is_one_object_on_stdout_whatever_becomes_of_the_job() {
    let good = Package::new();
    let raises = Package::attacking("raise ValueError");
    let invalid = Package::new().manifest(json!({"engine": {"defauls": {}}}));
    for (package, args, code, status) in [
        (&good, vec![], 0, "succeeded"),
        (&raises, vec![], 1, "failed"),
        (&invalid, vec![], 2, "failed"),
        (&good, vec!["--memory-mb", "1000000"], 2, "failed"),
        (&good, vec!["--docker-host", NO_DOCKER], 3, "failed"),
        (&good, vec!["--image", "ade-test/nowhere:none"], 3, "failed"),
    ] {
        let world = World::new(package, &[Upload::names()]);
        let output = run_for_people(&world, &[&["--json"][..], &args].concat());
        let said = object(&output, code);
        assert_eq!(said["status"], status);
        for key in ["status", "error", "files", "summary", "usage", "diagnostics"] {
            assert!(said.get(key).is_some(), "{key} is missing: {said}");
        }
        assert_eq!(said["error"].is_null(), code == 0, "{said}");
        if code != 0 {
            assert!(said["error"]["kind"].is_string() && said["error"]["message"].is_string(), "{said}");
        }
        for (name, path) in said["files"].as_object().unwrap() {
            let path = Path::new(path.as_str().unwrap());
            assert!(path.is_file() && path.file_name().unwrap() == name.as_str(), "{name}");
        }
        assert_eq!(said["files"].get("normalized.xlsx").is_some(), code == 0);
    }
}

#[test]
fn json_of_the_other_commands_is_one_object_too() {
    let world = World::new(&Package::new(), &[]);
    let broken = World::new(&Package::new().column("name", "def transform(:\n"), &[]);
    let (package, broken) = (world.package.to_str().unwrap(), broken.package.to_str().unwrap());
    assert_eq!(object(&call(&["config", "validate", "--json", package]), 0)["valid"], true);
    let said = object(&call(&["config", "validate", "--json", broken]), 2);
    assert_eq!(
        (keys(&said), &said["errors"]),
        (vec!["diagnostics", "dry_run", "errors", "valid", "warnings"], &json!(1))
    );
    assert_eq!(object(&call(&["config", "validate", "--json", "/nonexistent"]), 2)["error"]["kind"], "package_invalid");
    let image = object(&call(&["image", "show", "--json"]), 0);
    assert_eq!(keys(&image), ["created", "id", "labels", "route", "size", "tag"]);
    assert!(image["id"].as_str().unwrap().starts_with("sha256:") && image["size"].as_u64() > Some(1 << 20), "{image}");
    let doctor = object(&call(&["doctor", "--json"]), 0);
    assert_eq!(doctor["ok"], true, "{doctor}");
    let checks: Vec<&str> =
        doctor["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in ["docker", "platform", "limits", "seccomp", "memory", "cpus", "image", "container"] {
        assert!(checks.contains(&name), "{checks:?}");
    }
}

#[test]
fn without_docker_every_command_that_needs_it_says_so_with_exit_code_3() {
    let world = World::new(&Package::new(), &[Upload::names()]);
    let (package, input) = (world.package.to_str().unwrap(), world.inputs[0].to_str().unwrap());
    let out = world.out();
    for args in [
        vec!["run", package, input, "--out", out.to_str().unwrap()],
        vec!["config", "validate", "--require-dry-run", package],
        vec!["image", "show"],
        vec!["image", "build"],
    ] {
        let json = [&args[..], &["--json", "--docker-host", NO_DOCKER]].concat();
        assert_eq!(object(&call(&json), 3)["error"]["kind"], "engine_unavailable", "{args:?}");
        let mut people = ade();
        let output = people.args(&args).env("DOCKER_HOST", NO_DOCKER).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains("engine_unavailable") && said.contains("ade doctor"), "{args:?}: {said}");
        assert!(!out.exists(), "{args:?}: no folder is left behind");
    }
    let doctor = object(&call(&["doctor", "--json", "--docker-host", NO_DOCKER]), 3);
    assert_eq!((&doctor["ok"], &doctor["checks"][0]["verdict"]), (&json!(false), &json!("error")));
    assert!(doctor["checks"][0]["mend"].as_str().unwrap().contains("DOCKER_HOST"), "{doctor}");
}

#[test]
fn what_was_typed_wrong_is_named_on_stderr_with_exit_code_2() {
    for (args, word) in [
        (&["run", "--memory", "5", "p", "i"][..], "--memory-mb"),
        (&["run", "p"], "<INPUT>"),
        (&["runn"], "run"),
        (&["run", "p", "i", "--timeout-ms", "soon"], "--timeout-ms"),
        (&["doctor", "--worker-cpus", "0"], "from 0.1 to 1024"),
        (&["run", "p", "i", "--worker-mem-mb", "63", "--json"], "64"),
        (&["completions", "tcsh"], "bash"),
        (&["image"], "build"),
        (&[], "Usage"),
    ] {
        let output = call(args);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {said}");
    }
    let output = ade().args(["doctor"]).env("ADE_WORKER_PIDS", "many").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--worker-pids"), "{}", text(&output.stderr));
}

#[test]
fn a_flag_wins_over_its_environment_variable() {
    let world = World::new(&Package::new(), &[Upload::names()]);
    let run = Running::start(world, &["--worker-mem-mb", "96"], |command| {
        command.env("ADE_WORKER_MEM_MB", "128").env("ADE_WORKER_PIDS", "99");
    })
    .wait();
    let limits = &run.assert_succeeded().artifact.as_ref().unwrap()["runtime"]["limits"];
    assert_eq!((&limits["memory_mb"], &limits["pids"]), (&json!(96), &json!(99)));
}

#[test]
fn people_get_the_result_on_stdout_and_the_progress_on_stderr() {
    let package = Package::attacking("print('a line of the script')");
    let world = World::new(&package, &[Upload::names()]);
    let output = run_for_people(&world, &[]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for word in ["succeeded", "Under test", "2 rows", "Name", "name", "normalized.xlsx", "run-request.json"] {
        assert!(stdout.contains(word), "{word}: {stdout}");
    }
    for word in ["structure", "mapping", "transform", "validate", "generate", "a line of the script"] {
        assert!(stderr.contains(word), "{word}: {stderr}");
        assert!(!stdout.contains("a line of the script"), "{stdout}");
    }
    let quiet = run_for_people(&world, &["--quiet"]);
    assert_eq!((quiet.status.code(), text(&quiet.stderr)), (Some(0), String::new()));
    assert!(text(&quiet.stdout).contains("succeeded"), "{}", text(&quiet.stdout));
    let failing = World::new(&Package::attacking("raise KeyError"), &[Upload::names()]);
    let output = run_for_people(&failing, &["-q"]);
    let all = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    for word in ["hook_failed", "hooks/on_job_start.py", "KeyError"] {
        assert!(all.contains(word), "{word}: {all}");
    }
}

/// Runs `ade` on a pseudo-terminal and gives the exit code and everything that it showed.
fn on_a_terminal(world: &World, prepare: &[(&str, &str)]) -> (Option<i32>, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let inside = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = ade();
    command.arg("run").arg("--out").arg(world.out()).arg(&world.package).args(&world.inputs);
    command.env("TERM", "xterm-256color").envs(prepare.iter().copied());
    command.stdout(Stdio::from(inside.try_clone().unwrap())).stderr(Stdio::from(inside));
    let mut child = command.spawn().unwrap();
    // The command holds the terminal's inner side open as well; reading ends when `ade` has ended.
    drop(command);
    let mut shown = Vec::new();
    // At its end a terminal gives an error on Linux, not an end of file.
    File::from(terminal).read_to_end(&mut shown).ok();
    (child.wait().unwrap().code(), String::from_utf8_lossy(&shown).into_owned())
}

/// Whether a text has a colour or style in it (SGR, which ends in `m`).
fn is_coloured(text: &str) -> bool {
    text.split("\x1b[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
}

#[test]
fn colours_and_live_lines_are_for_terminals_only() {
    let package = Package::attacking("print('hello'); time.sleep(1.2)");
    let world = World::new(&package, &[Upload::names()]);
    let (code, shown) = on_a_terminal(&world, &[]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(is_coloured(&shown), "{shown:?}");
    let redraws = shown.matches("\x1b[2K").count() + shown.matches("\r\x1b").count();
    assert!(redraws >= 3, "a live line is drawn again and again: {shown:?}");
    assert!(shown.contains("hook on_job_start"), "{shown:?}");

    let (code, shown) = on_a_terminal(&world, &[("NO_COLOR", "1")]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(!is_coloured(&shown), "{shown:?}");

    let piped = run_for_people(&world, &[]);
    assert!(!piped.stdout.contains(&0x1b) && !piped.stderr.contains(&0x1b), "{}", text(&piped.stderr));
    let forced = ade().args(["doctor"]).env("TERM", "xterm-256color").output().unwrap();
    assert!(!forced.stdout.contains(&0x1b), "{}", text(&forced.stdout));
}

#[test]
fn what_scripts_print_cannot_drive_the_terminal() {
    let package = Package::attacking(r#"print('\x1b[2J\x1b]0;title\x07\x9b31mred\u202e\r\nover')"#);
    let world = World::new(&package, &[Upload::names()]);
    let (code, shown) = on_a_terminal(&world, &[("NO_COLOR", "1")]);
    assert_eq!(code, Some(0), "{shown}");
    for sequence in ["\x1b[2J", "\x1b]0;", "\x07", "\u{9b}", "\u{202e}"] {
        assert!(!shown.contains(sequence), "{sequence:?} got through: {shown:?}");
    }
    assert!(shown.contains("over"), "{shown:?}");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = call(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        for word in COMMANDS.into_iter().chain(["memory-mb", "require-dry-run", "worker-cpu-seconds"]) {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn every_command_explains_itself() {
    let help = text(&call(&["--help"]).stdout);
    for word in COMMANDS.into_iter().chain(["Exit codes", "130", "DOCKER_HOST", "ADE_WORKER_MEM_MB"]) {
        assert!(help.contains(word), "{word}: {help}");
    }
    for (args, words) in [
        (&["run", "--help"][..], &["<PACKAGE>", "<INPUT>", "--out", "--timeout-ms", "--memory-mb"][..]),
        (&["config", "--help"], &["new", "validate", "test", "try", "ADE_SERVER"]),
        (&["config", "validate", "--help"], &["<PACKAGE>", "--static", "--require-dry-run"]),
        (&["config", "test", "--help"], &["<PACKAGE>", "[EXAMPLE]", "--update"]),
        (&["image", "--help"], &["build", "show"]),
        (&["image", "build", "--help"], &["--route"]),
        (&["image", "show", "--help"], &["--json"]),
        (&["doctor", "--help"], &["--json"]),
        (&["jobs", "--help"], &["submit", "wait", "tail", "download", "ADE_SERVER", "ADE_API_KEY", "ADE_WORKSPACE"]),
        (&["jobs", "submit", "--help"], &["[FILE]", "--config", "--wait", "--retry-for", "ADE_SERVER"]),
        (&["completions", "--help"], &["bash", "zsh", "fish"]),
    ] {
        let output = call(args);
        let help = text(&output.stdout);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{args:?}");
        for word in words {
            assert!(help.contains(word), "{args:?}: {word}: {help}");
        }
    }
    let version = text(&call(&["--version"]).stdout);
    assert_eq!(version.trim(), format!("ade {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_output_folder_is_made_and_holds_nothing_but_the_job_and_what_was_there() {
    let world = World::new(&Package::new(), &[Upload::names()]);
    let nested = world.out().join("a/b c/d");
    let output =
        ade().args(["run", "-q", "--out"]).arg(&nested).arg(&world.package).args(&world.inputs).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    std::fs::write(nested.join("notes.txt"), "mine").unwrap();
    let names = |folder: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let whole = ["artifact.json", "events.ndjson", "normalized.xlsx", "notes.txt", "run-request.json"];
    assert_eq!(names(&nested), whole);

    // The next job fails: the workbook of the earlier one must not pass for its result.
    Package::attacking("raise ValueError").write_to(&world.package);
    let output =
        ade().args(["run", "-q", "--out"]).arg(&nested).arg(&world.package).args(&world.inputs).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(names(&nested), ["artifact.json", "events.ndjson", "notes.txt", "run-request.json"]);
    assert_eq!(std::fs::read_to_string(nested.join("notes.txt")).unwrap(), "mine");
    let artifact: Value = serde_json::from_slice(&std::fs::read(nested.join("artifact.json")).unwrap()).unwrap();
    assert_eq!(artifact["job"]["status"], "failed");

    // A job that was never started leaves an earlier result alone.
    let untouched = std::fs::read(nested.join("artifact.json")).unwrap();
    let output = ade()
        .args(["run", "-q", "--docker-host", NO_DOCKER, "--out"])
        .arg(&nested)
        .arg(&world.package)
        .args(&world.inputs)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(std::fs::read(nested.join("artifact.json")).unwrap(), untouched);
    assert_eq!(names(&nested).len(), 4);
}

#[test]
fn an_output_folder_that_cannot_be_written_is_a_host_error_before_anything_runs() {
    let world = World::new(&Package::new(), &[Upload::names()]);
    let file = world.root().join("bystander/ledger.txt");
    for out in [file.join("out"), file.clone(), "/proc/ade-test/out".into()] {
        let mut command = ade();
        command.args(["run", "--json", "--out"]).arg(&out).arg(&world.package).args(&world.inputs);
        let said = object(&command.output().unwrap(), 3);
        assert_eq!(said["error"]["kind"], "host_io", "{said}");
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains(out.to_str().unwrap()) && message.contains("--out"), "{message}");
        assert!(said.get("job_id").is_none(), "nothing ran: {said}");
    }
}

#[test]
fn an_output_folder_with_a_folder_in_the_way_of_a_file_fails_and_loses_nothing() {
    let world = World::new(&Package::new(), &[Upload::names()]);
    let inside = world.out().join("artifact.json/keep");
    std::fs::create_dir_all(&inside).unwrap();
    let output = run_for_people(&world, &["--json"]);
    let said = object(&output, 3);
    assert_eq!(said["error"]["kind"], "host_io", "{said}");
    assert!(said["error"]["message"].as_str().unwrap().contains("artifact.json"), "{said}");
    assert!(inside.is_dir(), "what was there is there");
    assert!(!world.out().join("normalized.xlsx").exists(), "no workbook without its artifact");
}

#[test]
fn an_interrupt_ends_every_command_with_130_and_leaves_nothing() {
    for moment in [150, 500, 1300] {
        let running = start(&Package::attacking("time.sleep(30)"), &[Upload::names()], &[]);
        std::thread::sleep(Duration::from_millis(moment));
        running.signal("INT");
        let run = running.wait();
        assert_eq!((run.code, run.kind()), (Some(130), "cancelled"), "after {moment} ms: {}", run.stdout);
        assert!(!run.out.join("normalized.xlsx").exists());
        assert!(run.elapsed < Duration::from_secs(15), "after {moment} ms: {:?}", run.elapsed);
    }
    let world = World::new(&Package::new(), &[]);
    let child =
        ade().args(["config", "validate", "--json"]).arg(&world.package).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(250));
    let status = std::process::Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(status.success());
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(130 | 0)), "{:?} {}", output.status, text(&output.stdout));
}

#[test]
fn validate_lists_every_diagnostic_at_once_with_file_and_line() {
    let package = Package::new()
        .column("name", "def transform(values, **_):\n    return {'values': values\n")
        .column("other", "\n\ndef detect_it(cells):\n    pass\n")
        .hook("on_job_start", "def walk(**_):\n    pass\n")
        .file("columns/unused.py", "x = 1\n")
        .manifest(json!({"hooks": {"after_maping": []}, "info": {"titel": "x"}}));
    let world = World::new(&package, &[]);
    let path = world.package.to_str().unwrap();
    let said = object(&call(&["config", "validate", "--json", path]), 2);
    let found: Vec<(&str, &str, Option<u64>)> = said["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["path"].as_str().unwrap(), one["code"].as_str().unwrap(), one["line"].as_u64()))
        .collect();
    let has = |path: &str, code: &str| found.iter().find(|one| one.0 == path && one.1.contains(code));
    assert!(has("manifest.json", "unknown").is_some_and(|one| one.2.is_some()), "{found:?}");
    assert_eq!(found.iter().filter(|one| one.0 == "manifest.json").count(), 2, "{found:?}");
    assert!(has("columns/unused.py", "unused").is_some(), "{found:?}");
    let syntax = has("columns/name.py", "script_syntax").unwrap_or_else(|| panic!("{found:?}"));
    assert!(syntax.2.is_some(), "{found:?}");
    assert_eq!(said["valid"], false);
    assert_eq!(said["errors"].as_u64().unwrap() + said["warnings"].as_u64().unwrap(), found.len() as u64);

    let people = call(&["config", "validate", path]);
    assert_eq!(people.status.code(), Some(2));
    let listed = text(&people.stderr);
    for word in ["error[script_syntax] columns/name.py:", "columns/unused.py", "after_maping", "titel", "hint:"] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    assert!(text(&people.stdout).starts_with("invalid"), "{}", text(&people.stdout));
}

#[test]
fn validate_static_needs_no_docker_and_says_what_it_left_out() {
    let validate = |package: &Package, args: &[&str], code: i32| {
        let world = World::new(package, &[]);
        let path = world.package.to_str().unwrap();
        let all = [&["config", "validate", "--docker-host", NO_DOCKER, path], args].concat();
        let output = call(&all);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {} {}", text(&output.stdout), text(&output.stderr));
        output
    };
    let fine = Package::new().column("name", "import nowhere\ndef transform(values, **_): ...\n");
    let output = validate(&fine, &["--static"], 0);
    assert!(
        text(&output.stdout).contains("scripts were not run") && output.stderr.is_empty(),
        "{}",
        text(&output.stderr)
    );
    let said = object(&validate(&fine, &["--static", "--json"], 0), 0);
    assert_eq!((&said["valid"], &said["dry_run"], &said["diagnostics"]), (&json!(true), &json!(false), &json!([])));
    for broken in
        [Package::new().column("name", "def broken(:\n"), Package::new().manifest(json!({"info": {"title": null}}))]
    {
        let said = object(&validate(&broken, &["--static", "--json"], 2), 2);
        assert_eq!((&said["valid"], &said["errors"]), (&json!(false), &json!(1)), "{said:#}");
    }

    // Without Docker the rest is left out, with a word about it; or it is a failure, for those who want it.
    let said = object(&validate(&fine, &["--json"], 0), 0);
    assert_eq!((&said["valid"], &said["dry_run"], &said["warnings"]), (&json!(true), &json!(false), &json!(1)));
    assert_eq!(said["diagnostics"][0]["code"], "dry_run_skipped", "{said:#}");
    let said = object(&validate(&fine, &["--json", "--require-dry-run"], 3), 3);
    assert_eq!(said["error"]["kind"], "engine_unavailable", "{said:#}");
    validate(&fine, &["--static", "--require-dry-run"], 2);
}

#[test]
fn the_same_run_serves_programs_and_people_alike() {
    let programs = run(&Package::new(), &[Upload::names()], &[]);
    programs.assert_succeeded();
    let said = &programs.json;
    for key in ["prepare_ms", "create_ms", "start_ms", "run_ms", "collect_ms", "total_ms"] {
        assert!(said["timings"][key].is_u64(), "{key}: {said}");
    }
    assert_eq!(said["summary"]["columns"][0]["target_field"], "name");
    assert!(said["usage"]["peak_memory_bytes"].as_u64() > Some(1 << 20), "{said}");
}

#[test]
fn settings_are_shown_with_their_source_and_without_secrets() {
    let settings = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = ade();
        command.args(["settings", "--json"]).args(args).envs(variables.iter().copied());
        command.env_remove("ADE_MAX_CONCURRENCY").output().expect("ade starts")
    };
    let variables =
        [("ADE_QUEUE_MAX_SIZE", "7"), ("ADE_DATABASE_URL", "postgres://u:s3cret@db/x"), ("ADE_LEASE_SECONDS", "9")];
    let shown = object(&settings(&["--lease-seconds=8", "--docker-host", NO_DOCKER], &variables), 0);
    assert!(!shown.to_string().contains("s3cret"), "{shown}");
    let find = |variable: &str| {
        let all = shown["settings"].as_array().unwrap();
        let found = all.iter().find(|one| one["variable"] == variable).unwrap();
        (found["value"].as_str().unwrap().to_owned(), found["source"].as_str().unwrap().to_owned())
    };
    assert_eq!(find("ADE_QUEUE_SIZE"), ("7".into(), "environment ADE_QUEUE_MAX_SIZE".into()));
    assert_eq!(find("ADE_DATABASE_URL").0, "postgres://u:***@db/x");
    assert_eq!(find("ADE_LEASE_SECONDS"), ("8".into(), "flag --lease-seconds".into()));
    assert_eq!(find("DOCKER_HOST"), (NO_DOCKER.into(), "flag --docker-host".into()));
    assert_eq!(find("ADE_RATE_LIMIT"), ("200".into(), "default".into()));

    let differ = object(&settings(&[], &[("ADE_QUEUE_SIZE", "5"), ("ADE_QUEUE_MAX_SIZE", "7")]), 2);
    let message = differ["error"]["message"].as_str().unwrap();
    assert!(message.contains("ADE_QUEUE_SIZE and ADE_QUEUE_MAX_SIZE"), "{message}");
}

/// The commands that a help lists.
fn listed(help: &str) -> Vec<&str> {
    let list = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let entries = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    // What is said of a command goes on below it, further in.
    entries.filter(|entry| !entry.starts_with(' ')).filter_map(|entry| entry.split_whitespace().next()).collect()
}

#[test]
fn no_help_shows_what_the_environment_says() {
    use ade::settings::{ClientSettings, ServeSettings, Settings};
    use clap::Args;
    let all =
        ClientSettings::augment_args(ServeSettings::augment_args(Settings::augment_args(clap::Command::new("ade"))));
    let variables: Vec<&str> = all.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    for secret in
        ["ADE_API_KEY", "ADE_DATABASE_URL", "ADE_INDEX_URL", "ADE_UPSTREAM_PROXY", "ADE_SERVER", "DOCKER_HOST"]
    {
        assert!(variables.contains(&secret), "{secret}");
    }
    let mut commands = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        for flag in ["--help", "-h"] {
            let mut call = ade();
            call.args(&command).arg(flag).envs(variables.iter().map(|name| (name, format!("c4n4ry-{name}"))));
            let output = call.output().expect("ade starts");
            let help = text(&output.stdout);
            assert_eq!(output.status.code(), Some(0), "{command:?}: {}", text(&output.stderr));
            assert!(!help.contains("c4n4ry"), "ade {command:?} {flag} tells it: {help}");
            assert!(help.contains("[env: ADE_IMAGE]"), "the names are there: {help}");
            if flag == "--help" {
                commands.extend(listed(&help).iter().map(|name| [&command[..], &[(*name).to_owned()]].concat()));
            }
        }
        seen += 1;
    }
    assert!(seen > 40, "{seen} commands");
}
