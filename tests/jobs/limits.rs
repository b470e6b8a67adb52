//! Limits: what little suffices, what may be asked for, and what is said when it is too much.

use crate::records::{artifact, diagnostic, package_at, project, uploads};
use crate::support::{Package, Run, Running, Upload, World, run};
use serde_json::json;
use std::time::Duration;

/// Runs where there is no Docker: what is refused is refused before any container.
#[track_caller]
fn refused_at_once(package: &Package, uploads: &[Upload], args: &[&str]) -> Run {
    let args = [&["--docker-host", "unix:///nonexistent/docker.sock"], args].concat();
    let run = Running::start(World::new(package, uploads), &args, |_| {}).wait_unchecked();
    assert_eq!((run.code, run.job_id()), (Some(2), None), "{}", run.stdout);
    assert!(!run.out.exists(), "nothing was written");
    run
}

#[test]
fn the_smallest_memory_limit_is_enough_for_an_example() {
    let folder = project().join("docs/examples/membership");
    let run =
        run(&package_at(&folder), &uploads(&[folder.join("examples/roster/roster.xlsx")]), &["--memory-mb", "64"]);
    run.assert_succeeded();
    assert_eq!(run.json["summary"]["rows_written"], 152);
    let limits = &artifact(&run)["runtime"]["limits"];
    assert_eq!((&limits["memory_mb"], &limits["scratch_mb"]), (&json!(64), &json!(32)));
    let peak = run.json["usage"]["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak > 1 << 20 && peak <= 64 << 20, "{peak} bytes");
}

#[test]
fn the_time_limit_is_the_flags_over_the_manifests_over_the_instances() {
    let sleeps = |manifest: serde_json::Value| {
        Package::attacking("time.sleep(1000)").manifest(json!({"engine": {"defaults": manifest}}))
    };
    for (manifest, args, limit) in [
        (json!({}), &["--timeout-ms", "1200"][..], "1200 ms"),
        (json!({"timeout_ms": 60_000}), &["--timeout-ms", "1100"], "1100 ms"),
        (json!({"timeout_ms": 1300}), &[], "1300 ms"),
        (json!({}), &["--job-timeout-seconds", "1"], "1000 ms"),
    ] {
        let run = run(&sleeps(manifest), &[Upload::names()], args);
        run.assert_failed("timeout", &[limit, "--timeout-ms"]);
        assert!(run.elapsed < Duration::from_secs(15), "{:?}", run.elapsed);
    }
}

#[test]
fn asking_above_a_cap_or_below_the_minimum_names_both_numbers() {
    let asks = |key: &str, value: u64| Package::new().manifest(json!({"engine": {"defaults": {key: value}}}));
    for (key, value, cap, args) in [
        ("memory_mb", 4096, "2048", &[][..]),
        ("memory_mb", 512, "256", &["--worker-mem-mb", "256"]),
        ("timeout_ms", 400_000, "300000", &[]),
        ("timeout_ms", 3000, "2000", &["--job-timeout-seconds", "2"]),
    ] {
        let run = refused_at_once(&asks(key, value), &[Upload::names()], args);
        run.assert_failed("package_invalid", &[]);
        let told = run.json["diagnostics"][0].to_string();
        for part in [key, &value.to_string(), cap] {
            assert!(told.replace(',', "").contains(part), "{part} is not in {told}");
        }
    }
    for (args, parts) in [
        (["--memory-mb", "4096"], ["memory_mb", "4096", "2048", "ADE_WORKER_MEM_MB"]),
        (["--timeout-ms", "400000"], ["timeout_ms", "400000", "300000", "ADE_JOB_TIMEOUT_SECONDS"]),
        (["--memory-mb", "63"], ["memory_mb", "63", "64", "minimum"]),
        (["--timeout-ms", "999"], ["timeout_ms", "999", "1000", "minimum"]),
    ] {
        refused_at_once(&Package::new(), &[Upload::names()], &args).assert_failed("limit_invalid", &parts);
    }
}

#[test]
fn a_default_above_a_lowered_cap_is_lowered_with_it() {
    let run = run(&Package::new(), &[Upload::names()], &["--worker-mem-mb", "128", "--job-timeout-seconds", "20"]);
    run.assert_succeeded();
    let limits = &artifact(&run)["runtime"]["limits"];
    assert_eq!((&limits["memory_mb"], &limits["timeout_ms"]), (&json!(128), &json!(20_000)));
}

#[test]
fn inputs_that_do_not_fit_into_scratch_are_refused_with_the_number_that_is_needed() {
    let large = Upload::csv(&("Name\n".to_owned() + &"x".repeat(40 << 20)));
    let run = refused_at_once(&Package::new(), &[large], &["--memory-mb", "64"]);
    run.assert_failed("input_too_large", &["41 MB", "31 MB", "--memory-mb", "161"]);

    let world = World::new(&Package::new(), &[Upload::names()]);
    let path = world.inputs[0].clone();
    let run = Running::start(world, &["--docker-host", "unix:///nonexistent/docker.sock"], |command| {
        command.args(std::iter::repeat_n(&path, 100));
    })
    .wait_unchecked();
    run.assert_failed("input_too_large", &["101 inputs", "100"]);
}

#[test]
fn inputs_that_do_not_fit_beside_the_certificate_authorities_are_refused() {
    let bundle = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(bundle.path(), vec![b'\n'; 1_000_001]).unwrap();
    let package = Package::new().file("resources/of_more_than_a_page.txt", vec![b'x'; 4097]).asking_for_network();
    let world = World::new(&package, &[]);
    let (mut room, mut folders) = (32 << 20, vec![world.package.clone()]);
    room -= 245 * 4096;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.metadata().unwrap() {
                metadata if metadata.is_dir() => folders.push(entry.path()),
                metadata => room -= metadata.len().div_ceil(4096) * 4096,
            }
        }
    }
    let run = |length: u64, package: &Package| {
        let upload = Upload { sparse_len: Some(length), ..Upload::names() };
        Running::start(World::new(package, &[upload]), &["--memory-mb", "64"], |command| {
            command.env("ADE_CA_BUNDLE", bundle.path());
        })
        .wait()
    };
    run(room + 1, &package).assert_failed("input_too_large", &["32 MB", "31 MB", "--memory-mb"]);
    // One that fits gets as far as the passes, whatever they make of it; the runner needs a few pages of its own.
    let room = room - 64 * 4096;
    let fits = run(room, &package);
    assert!(!fits.events_named("pass.start").is_empty(), "{} {}", fits.kind(), fits.message());
    // Without network there is no bundle in its place.
    let alone = Package::new().file("resources/of_more_than_a_page.txt", vec![b'x'; 4097]);
    assert!(!run(room + 200 * 4096, &alone).events_named("pass.start").is_empty());
}

#[test]
fn scratch_space_that_scripts_fill_is_a_clear_error() {
    let body = "with open('/job/tmp/much', 'wb') as file:\n    for _ in range(200): file.write(b'x' * (1 << 20))";
    let run = run(&Package::attacking(body), &[Upload::names()], &["--memory-mb", "256"]);
    run.assert_failed("disk_full", &["scratch"]);
    assert_eq!(run.code, Some(1));
}

#[test]
fn many_issues_are_counted_exactly_and_listed_up_to_the_limit() {
    let validate = "def validate(values, **_):\n    return {'issues': [{'row_index': n + 1, 'code': 'odd', 'severity': 'warning', 'message': 'odd'} for n in range(len(values))]}\n";
    let rows: String = (0..2500).map(|n| format!("n{n}\n")).collect();
    let run = run(&Package::new().column("name", validate), &[Upload::csv(&format!("Name\n{rows}"))], &[]);
    run.assert_succeeded();
    assert_eq!(run.json["summary"]["issues_found"], 2500);
    let validation = &artifact(&run)["sheets"][0]["tables"][0]["validation"];
    assert_eq!(validation["issues"].as_array().unwrap().len(), 100);
    assert_eq!(validation["summary_by_field"]["name"]["by_code"]["odd"], 2500);
}

#[test]
fn text_over_what_a_cell_holds_is_cut_and_counted() {
    let text = format!("Name\n{}\nAda\n", "x".repeat(40_000));
    let run = run(&Package::new(), &[Upload::csv(&text)], &[]);
    run.assert_succeeded();
    assert_eq!(diagnostic(&run, "output.truncated_cells")["level"], "warning");
    assert_eq!(crate::workbook::read(&run).column("Name")[0].len(), 32_767);
}
