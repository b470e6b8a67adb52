//! Attacks 47 and 48: what a job can learn from its surroundings.

use crate::support::{Package, Running, Upload, World, run};
use serde_json::json;
use std::collections::BTreeSet;

/// The environment of a job, as `docs/operations/security.md` lists it.
const DOCUMENTED: [&str; 14] = [
    "HOME", "HTTPS_PROXY", "HTTP_PROXY", "LANG", "NO_PROXY", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH",
    "PYTHONHASHSEED", "TMPDIR", "TZ", "http_proxy", "https_proxy", "no_proxy",
];

/// What a job with network has besides, where the machine has certificate authorities to give.
const WITH_NETWORK: [&str; 4] = ["CURL_CA_BUNDLE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"];

const CANARY: &str = "canary-4f1d7c";

#[test]
fn a47_no_secret_of_the_host_is_in_any_environment() {
    let package = Package::attacking(
        r#"
        import subprocess
        worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(5)'])
        time.sleep(0.3)
        names = set()
        for pid in os.listdir('/proc'):
            if not pid.isdigit(): continue
            try: text = open(f'/proc/{pid}/environ', 'rb').read().decode()
            except PermissionError: say('closed', pid); continue
            for line in text.split('\0'):
                if line: names.add(line.partition('=')[0]); say('line', line)
        say('names', sorted(names))
        worker.kill()
        found = []
        for folder, dirs, files in os.walk('/'):
            if folder == '/': dirs[:] = [name for name in dirs if name not in ('proc', 'sys', 'dev')]
            for name in files:
                try:
                    if os.stat(os.path.join(folder, name)).st_size < 1_000_000 and b'canary' b'-4f1d7c' in open(os.path.join(folder, name), 'rb').read(): found.append(name)
                except OSError: pass
        say('found', found)
        "#,
    );
    let world = World::new(&package, &[Upload::names()]);
    let run = Running::start(world, &["--memory-mb", "256"], |command| {
        for name in [
            "AWS_SECRET_ACCESS_KEY", "ADE_API_KEY", "ADE_DATABASE_URL", "HTTPS_PROXY", "https_proxy", "GITHUB_TOKEN",
            "SSH_AUTH_SOCK",
        ] {
            command.env(name, CANARY);
        }
    })
    .wait();
    run.assert_succeeded();
    assert_eq!(run.finding("closed"), "1", "the supervisor's environment cannot be read");
    assert_eq!(run.finding("found"), "[]");
    for name in ["artifact.json", "events.ndjson", "run-request.json"] {
        let text = std::fs::read_to_string(run.out.join(name)).unwrap();
        assert!(!text.contains(CANARY), "{name} tells a secret");
        assert!(!text.contains(run.world.root().to_str().unwrap()), "{name} tells a path of the host");
    }
    let names: BTreeSet<&str> =
        run.finding("names").trim_matches(['[', ']']).split(", ").map(|name| name.trim_matches('\'')).collect();
    // A process that was forked shows the environment that its container was started with; HOSTNAME is Docker's and
    // PYTHONHOME the image's.
    let expected: BTreeSet<&str> = DOCUMENTED.into_iter().chain(["HOSTNAME", "PYTHONHOME"]).collect();
    assert!(names.is_subset(&expected), "{names:?}");
    assert!(!run.stdout.contains(CANARY));
}

#[test]
fn a48_the_environment_is_exactly_what_is_documented() {
    let show = "for name in sorted(os.environ): say('env ' + name, os.environ[name])\nimport subprocess\nsay('child', subprocess.run([sys.executable, '-c', 'import os; print(sorted(os.environ))'], capture_output=True, text=True).stdout.strip())";
    let plain = run(&Package::attacking(show), &[Upload::names()], &[]);
    plain.assert_succeeded();
    let names: Vec<&str> = plain.findings().into_keys().filter_map(|name| name.strip_prefix("env ")).collect();
    assert_eq!(names, DOCUMENTED);
    let with = Package::attacking(show).manifest(json!({"env": {"REGION": "eu"}}));
    let with = run(&with, &[Upload::names()], &[]);
    with.assert_succeeded();
    assert_eq!(with.finding("env REGION"), "eu");
    assert_eq!(with.findings().into_keys().filter(|name| name.starts_with("env ")).count(), DOCUMENTED.len() + 1);
    let networked = run(&Package::attacking(show).asking_for_network(), &[Upload::names()], &[]);
    networked.assert_succeeded();
    let names: BTreeSet<&str> = networked.findings().into_keys().filter_map(|name| name.strip_prefix("env ")).collect();
    assert_eq!(names, DOCUMENTED.into_iter().chain(WITH_NETWORK).collect());
    for name in WITH_NETWORK {
        assert_eq!(networked.finding(&format!("env {name}")), "/job/ca/bundle.pem");
    }
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        assert_eq!(plain.finding(&format!("env {name}")), "http://127.0.0.1:3128");
    }
    let text = include_str!("../../docs/operations/security.md");
    for name in DOCUMENTED.into_iter().chain(WITH_NETWORK) {
        assert!(text.contains(&format!("`{name}`")), "{name} is not documented");
    }
}

#[test]
fn a48_a_manifests_environment_does_not_bend_the_runner() {
    for name in [
        "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONINSPECT", "PATH",
        "TMPDIR", "HOME", "TZ", "LANG", "ADE_IMAGE", "HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE",
    ] {
        let package = Package::new().manifest(json!({"env": {name: "/job/package/vendor"}}));
        let run = run(&package, &[Upload::names()], &[]);
        run.assert_failed("package_invalid", &[name, "sets"]);
        assert_eq!((run.code, run.job_id()), (Some(2), None), "{name}");
    }
}
