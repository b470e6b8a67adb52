//! Attacks 4, 5 and 7 on the way in: packages and workbooks as they are uploaded.

use crate::support::zips::{Entry, archive, workbook};
use crate::support::{Package, Run, Upload, run, run_file};
use std::time::Duration;

fn package_of(extra: &[Entry]) -> Vec<u8> {
    let package = Package::new().entries();
    let mut entries: Vec<Entry> = package.iter().map(|(path, content)| Entry::file(path, content)).collect();
    entries.extend_from_slice(extra);
    archive(&entries)
}

/// Asserts that a package was refused before any container was made.
#[track_caller]
fn assert_refused(run: &Run, kind: &str, codes: &[&str]) {
    run.assert_failed(kind, &[]);
    let code = run.json["error"]["detail"]["code"].as_str().unwrap_or_default();
    assert!(codes.contains(&code), "{code}: {}", run.message());
    assert_eq!((run.code, run.job_id()), (Some(2), None), "nothing was started");
    assert!(!run.out.exists(), "nothing was written");
}

#[test]
fn a04_a_package_with_names_that_lead_elsewhere_or_collide_is_refused() {
    let long = "x".repeat(300);
    let deep = "a/".repeat(20) + "x.py";
    for names in [
        vec![b"../evil.py".as_slice()],
        vec![b"columns/../../evil.py"],
        vec![b"/etc/cron.d/evil"],
        vec![b"C:\\evil.py"],
        vec![b"columns\\evil.py"],
        vec![b"columns/a\0.py"],
        vec![b"columns/a\n.py"],
        vec![b"columns/\xff\xfe.py"],
        vec![long.as_bytes()],
        vec![deep.as_bytes()],
        vec![b"columns/a.py", b"columns/A.py"],
        vec![b"columns/a.py", b"columns/a.py"],
        vec![b"columns", b"columns/a.py"],
        vec![b"columns//x.py"],
    ] {
        let entries: Vec<Entry> = names.iter().map(|name| Entry::file(name, "evil")).collect();
        let run = run_file("package.zip", &package_of(&entries), &[]);
        let shown = names.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>();
        assert_eq!(run.status(), "failed", "{shown:?}");
        assert!(matches!(run.kind(), "package_invalid" | "package_too_large"), "{shown:?}: {}", run.stdout);
        assert_eq!((run.code, run.job_id()), (Some(2), None), "{shown:?}: nothing was started");
        assert!(!run.out.exists(), "{shown:?}: nothing was written");
        assert!(!run.message().chars().any(char::is_control), "{shown:?}: the message is safe to print");
    }
}

#[test]
fn a04_the_name_of_an_input_is_only_data() {
    for name in [
        "-rf.csv",
        "$(touch pwned).csv",
        "; reboot.csv",
        "..csv",
        "a'b\"c.csv",
        "..%2f..%2fetc%2fpasswd.csv",
        "नाम \u{202e}vsc.csv",
    ] {
        let package =
            Package::attacking("say('in', sorted(os.listdir('/job/in'))); say('job', sorted(os.listdir('/job')))");
        let run = run(&package, &[Upload::new(name, "Name\nAda\n")], &[]);
        run.assert_succeeded();
        assert_eq!(run.finding("in"), "['0001']");
        assert_eq!(run.finding("job"), "['in', 'out', 'package', 'tmp']");
        assert_eq!(
            run.artifact.as_ref().unwrap()["inputs"][0]["name"]
                .as_str()
                .or(run.artifact.as_ref().unwrap()["inputs"][0]["filename"].as_str()),
            Some(name)
        );
    }
}

#[test]
fn a05_a_package_with_a_link_is_refused_and_nothing_is_written_through_it() {
    let escape = [Entry::symlink("columns", "/tmp"), Entry::file("columns/evil.py", "evil")];
    let run = run_file("package.zip", &package_of(&escape), &[]);
    assert_refused(&run, "package_invalid", &["package_entry_unsafe", "package_entry_conflict"]);
    assert!(!std::path::Path::new("/tmp/evil.py").exists());
    let link = run_file("package.zip", &package_of(&[Entry::symlink("columns/passwd.py", "/etc/passwd")]), &[]);
    assert_refused(&link, "package_invalid", &["package_entry_unsafe"]);
}

#[test]
fn a05_a_package_folder_with_a_link_to_the_host_is_refused() {
    let world = crate::support::World::new(&Package::new(), &[Upload::names()]);
    std::fs::create_dir(world.package.join("resources")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", world.package.join("resources/passwd")).unwrap();
    let run = crate::support::Running::start(world, &[], |_| {}).wait_unchecked();
    assert_refused(&run, "package_invalid", &["package_entry_unsafe"]);
    assert!(!run.stdout.contains("root:"));
}

#[test]
fn a07_a_package_that_unpacks_to_far_more_than_it_is_is_refused() {
    let bomb = package_of(&[Entry::padded("resources/blanks", b"", 1 << 30, b"")]);
    assert!(bomb.len() < 2 << 20);
    let run = run_file("package.zip", &bomb, &[]);
    assert_refused(&run, run.kind(), &["package_zip_bomb", "package_too_large"]);
    assert!(run.engine_peak_kib < 150 * 1024, "the engine used {} KiB", run.engine_peak_kib);
    // Each file is within every ratio and size; together they are too much.
    let noise: Vec<u8> = (0..4_u32 << 20).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let parts: Vec<Entry> =
        ["a", "b", "c"].iter().map(|name| Entry::padded(&format!("resources/{name}"), &noise, 18 << 20, b"")).collect();
    let run = run_file("package.zip", &package_of(&parts), &[]);
    assert_refused(&run, "package_too_large", &["package_too_large"]);
    assert!(run.message().contains("64"), "{}", run.message());
    assert!(run.engine_peak_kib < 200 * 1024, "the engine used {} KiB", run.engine_peak_kib);
}

#[test]
fn a07_a_package_whose_sizes_lie_or_with_too_many_entries_is_refused() {
    let mut lie = Entry::padded("resources/x", b"", 5 << 20, b"");
    lie.claimed_size = 10;
    assert_refused(
        &run_file("package.zip", &package_of(&[lie]), &[]),
        "package_invalid",
        &["package_zip_corrupt", "package_zip_bomb"],
    );
    let many: Vec<Entry> = (0..3000).map(|number| Entry::file(format!("resources/{number}"), "")).collect();
    let run = run_file("package.zip", &package_of(&many), &[]);
    assert_refused(&run, "package_too_large", &["package_too_large"]);
    assert!(run.message().contains("2,000") || run.message().contains("2000"), "{}", run.message());
}

const HEAD: &str =
    r#"<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>"#;
const TAIL: &str = "</sheetData></worksheet>";

#[test]
fn a07_a_workbook_that_unpacks_to_gigabytes_is_refused_in_bounded_time_and_memory() {
    let declared = workbook(HEAD, 4_000_000_000, TAIL);
    assert!(declared.len() < 5 << 20, "{} bytes", declared.len());
    let run =
        run(&Package::new(), &[Upload::new("bomb.xlsx", declared)], &["--timeout-ms", "60000", "--memory-mb", "128"]);
    run.assert_failed("input_zip_bomb", &["bomb.xlsx", "1,000 times"]);
    assert!(run.elapsed < Duration::from_secs(30), "{:?}", run.elapsed);
}

#[test]
fn a07_entity_expansion_in_a_workbook_expands_nothing() {
    let entities: String =
        (1..10).map(|number| format!("<!ENTITY e{number} \"{}\">", format!("&e{};", number - 1).repeat(10))).collect();
    let head = HEAD.replace(
        "<worksheet",
        &format!("<!DOCTYPE x [<!ENTITY e0 \"lol\"><!ENTITY ext SYSTEM \"file:///etc/passwd\">{entities}]><worksheet"),
    );
    let rows = r#"<row r="1"><c r="A1" t="inlineStr"><is><t>Name</t></is></c></row><row r="2"><c r="A2" t="inlineStr"><is><t>&e9;&ext;</t></is></c></row>"#;
    let upload = Upload::new("laughs.xlsx", workbook(&format!("{head}{rows}"), 0, TAIL));
    let run = run(&Package::new(), &[upload], &["--timeout-ms", "30000", "--memory-mb", "128"]);
    if run.status() == "failed" {
        assert!(run.kind().starts_with("input_"), "{}: {}", run.kind(), run.message());
    }
    let output = std::fs::read(run.out.join("normalized.xlsx")).unwrap_or_default();
    assert!(output.len() < 100_000, "{} bytes came out", output.len());
}

#[test]
fn a07_archives_in_archives_are_no_workbook() {
    let mut nested = archive(&[Entry::file("x", "x")]);
    for _ in 0..50 {
        nested = archive(&[Entry::file("inner.zip", nested)]);
    }
    let run = run(&Package::new(), &[Upload::new("nested.xlsx", nested)], &[]);
    assert!(matches!(run.kind(), "input_not_workbook" | "input_corrupt"), "{}: {}", run.kind(), run.message());
    assert!(run.message().contains("nested.xlsx"), "{}", run.message());
}

#[test]
fn a07_a_sparse_input_is_refused_by_its_length_before_it_is_read() {
    let hole = Upload { sparse_len: Some(100 << 30), ..Upload::new("hole.csv", "Name\n") };
    let run = run(&Package::new(), &[hole], &[]);
    run.assert_failed("input_too_large", &["102400 MB", "scratch space", "--memory-mb"]);
    assert!(run.elapsed < Duration::from_secs(10), "{:?}", run.elapsed);
}

#[test]
fn a09_an_input_that_changes_after_it_was_hashed_never_runs_as_something_else() {
    let original = "Name\n".to_owned() + &"aaaaaaaaaaaaaaa\n".repeat(60_000);
    let package = Package::attacking(
        "import hashlib\nsay('sha256', hashlib.sha256(open('/job/in/0001', 'rb').read()).hexdigest())",
    );
    let running = crate::support::start(&package, &[Upload::csv(&original)], &["--timeout-ms", "60000"]);
    let path = running.input(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let run = std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::os::unix::fs::FileExt;
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            let mut turn = 0_u8;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                turn = turn.wrapping_add(1);
                std::thread::sleep(Duration::from_millis(1));
                file.write_all_at(&[b'a' + turn % 26; 4], 800_000).unwrap();
            }
        });
        let run = running.wait_unchecked();
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        run
    });
    if run.status() == "succeeded" {
        let recorded = &run.artifact.as_ref().unwrap()["inputs"][0]["sha256"];
        assert_eq!(recorded.as_str(), Some(run.finding("sha256")), "what ran is not what was recorded");
    } else {
        run.assert_failed("input_missing", &["it changed while it was read", "submit it again"]);
        assert!(run.elapsed < Duration::from_secs(30), "the container was waited for: {:?}", run.elapsed);
    }
}
