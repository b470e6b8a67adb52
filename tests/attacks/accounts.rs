//! Attacks 34 and 40: what two jobs that run at the same time share.

use crate::support::{Package, Upload, start};

#[test]
fn a34_two_jobs_have_different_users_that_are_nobody_on_the_host() {
    let package = Package::attacking("say('ids', (os.getuid(), os.geteuid(), os.getgid(), os.getgroups()))\nsay('owner', os.stat('/job').st_uid)");
    let jobs: Vec<_> = (0..2).map(|_| start(&package, &[Upload::names()], &["--memory-mb", "128"])).collect();
    let runs: Vec<_> = jobs.into_iter().map(|job| job.wait()).collect();
    let users: Vec<u32> = runs.iter().map(|run| run.assert_succeeded().finding("owner").parse().unwrap()).collect();
    assert_ne!(users[0], users[1]);
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    for (run, user) in runs.iter().zip(users) {
        assert!(user >= 65_536, "{user} could be somebody's");
        assert!(!passwd.lines().any(|line| line.split(':').nth(2) == Some(&user.to_string())), "{user} has an account on the host");
        let ids = run.finding("ids");
        assert!(ids.starts_with(&format!("({user}, {user}, {user}, [")), "{ids}");
    }
}

#[test]
fn a34_limits_per_user_are_not_shared_with_another_job() {
    // Both hold as many message queues and pending signals as one user may, at the same time.
    let package = Package::attacking(
        r#"
        import resource
        began = time.time()
        say('processes', resource.getrlimit(resource.RLIMIT_NPROC))
        held = []
        try:
            while len(held) < 100: held.append(forked(lambda: time.sleep(4)))
        except OSError as fault:
            say('stopped', fault)
        say('held', len(held))
        time.sleep(3)
        say('span', f'{began} {time.time()}')
        "#,
    );
    let jobs: Vec<_> = (0..2).map(|_| start(&package, &[Upload::names()], &["--memory-mb", "256"])).collect();
    let runs: Vec<_> = jobs.into_iter().map(|job| job.wait()).collect();
    for run in &runs {
        assert_eq!(run.assert_succeeded().finding("held"), "100");
    }
    assert_overlap(runs[0].finding("span"), runs[1].finding("span"));
}

#[test]
fn a40_a_lock_on_a_shared_file_of_the_image_does_not_reach_another_job() {
    let package = Package::attacking(
        r#"
        import fcntl
        began, held, refused = time.time(), [], []
        for name in ('/usr/bin/python3.11', '/opt/ade/boot.py', '/etc/passwd', '/etc', '/', '/usr/lib', '/dev/null', '/dev/zero', '/job', '/dev/shm', '/proc/self/status'):
            try:
                fd = os.open(name, os.O_RDONLY)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); held.append(fd)
            except OSError:
                refused.append(name)
        say('held', len(held))
        say('refused', refused)
        time.sleep(4)
        say('span', f'{began} {time.time()}')
        "#,
    );
    let jobs: Vec<_> = (0..2).map(|_| start(&package, &[Upload::names()], &["--memory-mb", "128"])).collect();
    let runs: Vec<_> = jobs.into_iter().map(|job| job.wait()).collect();
    for run in &runs {
        assert_eq!(run.assert_succeeded().finding("refused"), "[]");
        assert!(run.finding("held").parse::<u32>().unwrap() >= 8);
    }
    assert_overlap(runs[0].finding("span"), runs[1].finding("span"));
}

/// Both spans are `begin end` in seconds; the test means nothing when one job had ended before the other began.
#[track_caller]
fn assert_overlap(one: &str, other: &str) {
    let ends = |text: &str| text.split(' ').map(|part| part.parse::<f64>().unwrap()).collect::<Vec<_>>();
    let (one, other) = (ends(one), ends(other));
    assert!(one[0] < other[1] && other[0] < one[1], "the jobs did not run at the same time: {one:?} {other:?}");
}
