//! Attacks 1 to 3, 6, 8 to 11: what comes out of a container.

use crate::support::{Docker, Package, Run, Upload, function, run, start};

/// Runs a job whose last hook, after the workbook is written, has this body.
fn at_the_end(body: &str, args: &[&str]) -> Run {
    run(&Package::new().hook("on_job_end", &function(body)), &[Upload::names()], args)
}

const OUT: &str = "/job/out/normalized.xlsx";

#[test]
fn a01_an_output_that_is_a_symbolic_link_is_refused_by_name() {
    for target in ["/etc/passwd", "/proc/1/environ", "../in/0001", "/job/out/artifact.json"] {
        let run = at_the_end(&format!("os.remove('{OUT}'); os.symlink('{target}', '{OUT}')"), &[]);
        run.assert_failed(
            "output_invalid",
            &["normalized.xlsx", "symbolic link", "leave the files in /job/out to the runner"],
        );
    }
}

#[test]
fn a01_an_output_folder_that_is_a_symbolic_link_is_refused() {
    let run = at_the_end("os.rename('/job/out', '/job/tmp/out'); os.symlink('/job/tmp/out', '/job/out')", &[]);
    run.assert_failed("output_invalid", &["the output folder was replaced", "/job/out"]);
}

#[test]
fn a01_an_artifact_that_is_a_symbolic_link_is_refused() {
    let run = at_the_end(
        "forked(lambda: (time.sleep(0.2)))\nos.mkdir('/job/tmp/x')\nos.rename('/job/out/artifact.json', '/job/tmp/x/a'); os.symlink('/job/in/0001', '/job/out/artifact.json')",
        &[],
    );
    // The runner saves the artifact once more after the last hook, in one move, and with that replaces the link; either
    // way the host gets a file that the runner wrote, or none.
    assert!(run.artifact.is_some());
    if run.status() == "failed" {
        run.assert_failed("output_invalid", &["artifact.json"]);
    }
}

#[test]
fn a02_an_output_with_further_hard_links_is_refused_by_name() {
    let further = at_the_end(&format!("os.link('{OUT}', '/job/tmp/again')"), &[]);
    further.assert_failed("output_invalid", &["normalized.xlsx", "hard links"]);
    let input = at_the_end(&format!("os.remove('{OUT}'); os.link('/job/in/0001', '{OUT}')"), &[]);
    input.assert_failed("output_invalid", &["normalized.xlsx", "hard links"]);
}

#[test]
fn a03_a_fifo_socket_folder_or_device_as_output_is_refused_without_waiting_for_it() {
    for (kind, make) in [
        ("FIFO", format!("os.mkfifo('{OUT}')")),
        ("directory", format!("os.mkdir('{OUT}')")),
        ("socket", format!("socket.socket(socket.AF_UNIX).bind('{OUT}')")),
    ] {
        let run = at_the_end(&format!("os.remove('{OUT}'); {make}"), &["--timeout-ms", "20000"]);
        run.assert_failed("output_invalid", &["normalized.xlsx", kind]);
        assert!(run.elapsed.as_secs() < 15, "{kind} held the engine up for {:?}", run.elapsed);
    }
    let device = at_the_end(
        "import stat\nattempt('device', lambda: os.mknod('/job/tmp/zero', 0o666 | stat.S_IFCHR, os.makedev(1, 5)))",
        &[],
    );
    assert_eq!(device.assert_succeeded().finding("device"), "EPERM");
}

#[test]
fn a04_files_of_other_names_in_the_output_folder_stay_in_the_container() {
    let run = at_the_end(
        r#"
        for name in [b'evil\n.xlsx', b'\xff\xfe', b'NORMALIZED.XLSX', b'artifact.json.bak', b'-rf', b'x' * 255, b'..normalized.xlsx']:
            open(b'/job/out/' + name, 'wb').close()
        os.mkdir('/job/out/sub'); open('/job/out/sub/normalized.xlsx', 'wb').close()
        "#,
        &[],
    );
    run.assert_succeeded();
}

#[test]
fn a05_nothing_is_written_through_a_link_in_place_of_a_folder() {
    let run = at_the_end(
        "os.rename('/job/out', '/job/tmp/out'); os.symlink('/etc', '/job/out')\nattempt('through', lambda: open('/job/out/normalized.xlsx', 'wb'))",
        &[],
    );
    run.assert_failed("output_invalid", &["the output folder was replaced"]);
    assert!(matches!(run.finding("through"), "EROFS" | "EACCES"), "{}", run.finding("through"));
}

/// An archive whose extended header claims another size than the header it precedes, so that two readers disagree on
/// where the next entry begins (CVE-2025-62518), with a hidden entry in between.
fn desynchronised() -> Vec<u8> {
    let mut hidden = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o755);
    hidden.append_data(&mut header, "artifact.json", &b"owned"[..]).unwrap();
    let hidden = hidden.into_inner().unwrap();

    let mut out = Vec::new();
    let size = format!("{}", hidden.len());
    let mut record = format!(" size={size}\n");
    record.insert_str(0, &(record.len() + 2).to_string());
    let mut pax = tar::Header::new_ustar();
    pax.set_path("pax").unwrap();
    pax.set_entry_type(tar::EntryType::XHeader);
    pax.set_size(record.len() as u64);
    pax.set_cksum();
    out.extend(pax.as_bytes());
    out.extend(record.as_bytes());
    out.resize(out.len().next_multiple_of(512), 0);
    let mut outer = tar::Header::new_ustar();
    outer.set_path("normalized.xlsx").unwrap();
    outer.set_size(0);
    outer.set_cksum();
    out.extend(outer.as_bytes());
    out.extend(&hidden);
    out
}

#[test]
fn a06_an_archive_that_two_readers_would_read_differently_is_refused_whole() {
    let bytes = desynchronised();
    let folder = tempfile::tempdir().unwrap();
    let refused =
        ade::sandbox::archive::read_outputs(&bytes[..], folder.path(), 1 << 20, &ade::sandbox::archive::OUTPUTS)
            .unwrap_err();
    assert_eq!(refused.kind.as_str(), "output_invalid");
    assert!(refused.message.contains("pax") && refused.message.contains("XHeader"), "{refused}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing of it may reach the disk");
    // The reference reader sees one entry where a reader that ignores the extended size sees two.
    let path = folder.path().join("desync.tar");
    std::fs::write(&path, bytes).unwrap();
    let listed = std::process::Command::new("tar").arg("-tf").arg(&path).output().unwrap().stdout;
    assert_eq!(String::from_utf8(listed).unwrap(), "normalized.xlsx\n");
}

#[test]
fn a06_an_output_that_is_itself_an_archive_arrives_as_bytes() {
    let bytes = desynchronised();
    let package = Package::new().file("resources/desync.tar", &bytes).hook(
        "on_job_end",
        &function("import shutil\nopen('/job/out/normalized.xlsx', 'wb').write(b'PK' + open('/job/package/resources/desync.tar', 'rb').read())"),
    );
    let run = run(&package, &[Upload::names()], &[]);
    run.assert_succeeded();
    assert_eq!(std::fs::read(run.out.join("normalized.xlsx")).unwrap(), [b"PK".as_slice(), &bytes].concat());
    assert_eq!(run.artifact.unwrap()["job"]["status"], "succeeded");
}

#[test]
fn a07_a_sparse_output_is_bounded_by_its_length_and_not_by_its_blocks() {
    let run = at_the_end(
        &format!("os.truncate('{OUT}', 9 << 20)\nattempt('beyond', lambda: os.truncate('{OUT}', 1 << 40))"),
        &["--worker-fsize-mb", "8"],
    );
    run.assert_failed("output_too_large", &["normalized.xlsx", "9437184", "8388608", "memory_mb"]);
    assert_eq!(run.finding("beyond"), "EFBIG");
}

#[test]
fn a08_an_output_that_grows_while_it_is_collected_is_collected_as_it_stood() {
    let grow = format!(
        r#"
        def grow():
            os.setsid()
            file = open('{OUT}', 'ab')
            while True:
                file.write(b'x' * 4096); file.flush(); time.sleep(0.0005)
        for _ in range(3):
            forked(grow)
        time.sleep(0.2)
        "#
    );
    let run = at_the_end(&grow, &["--timeout-ms", "20000"]);
    run.assert_succeeded();
    assert!(run.out.join("normalized.xlsx").metadata().unwrap().len() > 4096);
}

#[test]
fn a09_an_output_that_is_swapped_for_a_link_and_back_never_leads_outside() {
    let swap = format!(
        r#"
        def swap():
            os.setsid()
            os.symlink('/proc/version', '/job/tmp/link'); os.link('{OUT}', '/job/tmp/good')
            while True:
                os.replace('/job/tmp/link', '{OUT}'); os.symlink('/proc/version', '/job/tmp/link')
                os.link('/job/tmp/good', '/job/tmp/next'); os.replace('/job/tmp/next', '{OUT}')
        forked(swap)
        time.sleep(0.3)
        "#
    );
    let run = at_the_end(&swap, &["--timeout-ms", "20000"]);
    // Wherever the swapping was when everything was killed, what is there is a link or a file with further links.
    run.assert_failed("output_invalid", &["normalized.xlsx"]);
}

#[test]
fn a10_no_mode_or_owner_of_the_container_reaches_the_host() {
    // The world of every test looks at owner, set-id bits and execute bits; here there is something to see.
    let open = at_the_end(
        &format!("os.chmod('{OUT}', 0o6777); os.chmod('/job/out/artifact.json', 0o7777); os.utime('{OUT}', (0, 0))"),
        &[],
    );
    let metadata = open.assert_succeeded().out.join("normalized.xlsx").metadata().unwrap();
    assert!(metadata.modified().unwrap().elapsed().unwrap().as_secs() < 600, "times are the host's too");
}

#[test]
fn a10_an_output_without_read_permission_fails_with_its_name_or_arrives_whole() {
    let closed = at_the_end(&format!("os.chmod('{OUT}', 0)"), &[]);
    closed.assert_failed("output_invalid", &["normalized.xlsx", "cannot be opened"]);
}

#[test]
fn a11_nothing_of_the_host_is_mounted_where_a_job_could_write() {
    let running = start(
        &Package::attacking(
            r#"
            def is_null(point):
                """A file of the kernel that is masked is /dev/null."""
                return os.stat(point).st_rdev == os.makedev(1, 3)
            for line in open('/proc/self/mountinfo'):
                fields = line.split()
                kind, point, options = fields[fields.index('-') + 1], fields[4], fields[5].split(',')
                if 'rw' in options and os.access(point, os.W_OK) and not is_null(point):
                    say('writable ' + point, kind)
            for name in ('/etc/hosts', '/etc/hostname', '/etc/resolv.conf', '/etc/passwd', '/opt/ade/boot.py'):
                attempt('append ' + name, lambda: open(name, 'a'))
            time.sleep(1.5)
            "#,
        ),
        &[Upload::names()],
        &[],
    );
    let container = running.container();
    let host = Docker::connect().inspect(&container).unwrap();
    assert!(host.mounts.is_none_or(|mounts| mounts.is_empty()), "no bind mount, no volume");
    let run = running.wait();
    run.assert_succeeded();
    for (name, value) in run.findings() {
        if let Some(point) = name.strip_prefix("writable ") {
            assert!(
                matches!(
                    (point, value),
                    ("/job" | "/dev/shm", "tmpfs")
                        | ("/dev/mqueue", "mqueue")
                        | ("/dev/pts", "devpts")
                        | ("/proc", "proc")
                ),
                "{point} is a writable {value}"
            );
        } else {
            assert!(matches!(value, "EROFS" | "EACCES" | "ENOENT"), "{name}: {value}");
        }
    }
}
