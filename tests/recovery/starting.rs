//! What keeps a process from starting is said, with exit code 3; and what one costs that has nothing to do.

use crate::site::Site;
use crate::truth::Db;
use std::process::Output;
use std::time::Duration;

/// The process ended with 3 and said all of `texts` without a panic.
#[track_caller]
fn assert_refused(output: &Output, texts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(texts.iter().all(|text| said.contains(text)) && !said.contains("panicked"), "{said}");
}

#[test]
fn a_data_directory_that_is_in_use_is_refused() {
    let site = Site::new(&[]);
    let node = site.start();
    let address = std::fs::read_to_string(site.data().join("address")).unwrap();
    assert_refused(&site.refused(&[]), &["error[data_dir_in_use]", "another ade serve uses the data directory"]);
    assert_eq!(std::fs::read_to_string(site.data().join("address")).unwrap(), address, "the first one is as it was");
    node.get("/livez").expect(200);
    // The lock goes with its holder, however that ends.
    node.kill();
    site.start().stop();
}

#[test]
fn a_database_of_a_newer_program_is_refused_and_not_touched() {
    let site = Site::new(&[]);
    site.start().stop();
    let db = Db::of(&site);
    db.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99990101000000, 'from the future', 1, x'00', 1)",
    );
    assert_refused(&site.refused(&[]), &["error[database_too_new]", "newer"]);
    assert!(!site.data().join("address").exists());
}

#[test]
fn a_data_directory_that_cannot_be_used_is_refused() {
    let mut site = Site::new(&[]);
    let file = site.root().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    site.data_dir = Some(file.join("data"));
    assert_refused(&site.refused(&[]), &["error[data_dir_unusable]", "--data-dir"]);
    site.data_dir = Some(site.root().join("data"));
    std::fs::create_dir_all(site.data().join("ade.db")).unwrap();
    assert_refused(&site.refused(&[]), &["error[database_unavailable]"]);
}

#[test]
fn a_database_that_is_no_database_is_refused_and_kept() {
    let site = Site::new(&[]);
    std::fs::create_dir_all(site.data()).unwrap();
    std::fs::write(site.data().join("ade.db"), "this is somebody's diary, and no database\n".repeat(200)).unwrap();
    assert_refused(&site.refused(&[]), &["error[database_unavailable]"]);
    assert!(std::fs::read_to_string(site.data().join("ade.db")).unwrap().contains("diary"));
}

#[test]
fn an_address_that_is_taken_is_refused() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let site = Site::new(&[]);
    // The later of two flags would be an error of its own; the address is one of the site.
    let mut command = crate::support::ade();
    command.args(["serve", "--listen", &address, "--data-dir"]).arg(site.data());
    assert_refused(&command.output().unwrap(), &["error[address_unavailable]", &address, "--listen"]);
}

#[test]
fn a_service_with_nothing_to_do_costs_next_to_nothing() {
    let site = Site::new(&[]);
    let node = site.start().ready();
    let pid = node.pid().as_raw_nonzero();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(5));
    // A tick is 10 ms.
    let percent = (ticks() - before) as f64 * 10.0 / 5000.0 * 100.0;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB");
    let rss = rss.trim().parse::<u64>().unwrap() / 1024;
    eprintln!("idle: {percent:.1} % of a CPU, {rss} MB");
    assert!(percent < 2.0, "{percent} %");
    assert!(rss < 100, "{rss} MB");
    node.stop();
}
