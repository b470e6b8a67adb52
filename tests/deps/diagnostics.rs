//! Why requirements cannot be had: each with its kind, its code, the requirement, and a way out.

use crate::index::Index;
use crate::install::wheelhouse;
use crate::site::{Site, TOOLS, asking, block, shown};
use crate::support::Run;
use crate::wheel::{Wheel, sha256};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// The job failed so, and everything that tells of a failure tells it.
#[track_caller]
fn assert_told(run: &Run, kind: &str, code: &str, parts: &[&str]) {
    run.assert_failed(kind, parts);
    let error = &run.json["error"];
    assert_eq!(error["detail"]["code"], code, "{error:#}");
    assert_eq!(&run.artifact.as_ref().unwrap()["job"]["error"], error);
    let said = block(run);
    assert_eq!(said["status"], "failed");
    let diagnostic = &said["diagnostics"][0];
    assert_eq!((&diagnostic["code"], &diagnostic["message"]), (&code.into(), &error["message"]), "{diagnostic:#}");
    assert_eq!(said, &run.json_file("run-request.json")["dependencies"]);
    let failed = run.events_named("deps.failed");
    assert_eq!((&failed[0]["kind"], &failed[0]["message"]), (&kind.into(), &error["message"]));
    assert_eq!(run.events_named("error").len(), 1);
    assert!(run.events_named("deps.ready").is_empty() && run.events_named("worker.spawn").is_empty());
}

#[test]
fn what_the_index_does_not_have_is_named_with_what_it_has() {
    for tool in TOOLS {
        let index = Index::start().with(&[
            Wheel::new("alpha", "1.0"),
            Wheel::new("alpha", "1.1"),
            Wheel::new("elsewhere", "1.0").tag("cp311-cp311-win_amd64"),
            Wheel::new("beta", "1.0").requires("alpha<1.1"),
            Wheel::new("needy", "1.0").requires("nowhere>=1"),
        ]);
        index.add_file(
            "future",
            "future-3.0-py3-none-any.whl",
            Wheel::new("future", "3.0").python(">=3.99").build(),
            Some(">=3.99"),
        );
        let site = Site::of(&index).with("ADE_INSTALLER", tool);
        let refuse = |requirements: &str, code: &str, parts: &[&str]| {
            let run = site.install(&asking(requirements, "pass"));
            assert_told(&run, "dependency_unavailable", code, parts);
            run
        };
        let run = refuse("# the line counts\nalpha==9.9", "no_matching_version", &["alpha==9.9", "latest 1.1", "1.0"]);
        assert_eq!((&run.json["error"]["line"], &run.json["error"]["detail"]["latest"]), (&2.into(), &"1.1".into()));
        assert_eq!(block(&run)["diagnostics"][0]["requirement"], "alpha==9.9");
        refuse("alhpa", "not_found", &["alhpa", "typing error"]);
        refuse("elsewhere", "no_wheel", &["elsewhere 1.0", "no wheel for Python 3.1"]);
        refuse("future", "wrong_python", &["future 3.0", ">=3.99", "the image has 3."]);
        refuse("alpha>=1.1\nbeta", "conflict", &["contradict", "beta", "alpha"]);
        refuse("needy", "not_found", &["nowhere"]);
        let run = refuse("alhpa\nalpha==9.9", "not_found", &["alhpa"]);
        assert_eq!(run.json["error"]["detail"]["missing"].as_array().unwrap().len(), 2, "all that is missing at once");
    }
}

#[test]
fn files_that_do_not_have_the_hash_that_is_asked_for_are_not_installed() {
    for tool in TOOLS {
        let (alpha, beta) = (Wheel::new("alpha", "1.0").requires("beta"), Wheel::new("beta", "1.0"));
        let index = Index::start().with(&[alpha.clone(), beta.clone(), Wheel::new("gamma", "1.0")]);
        let site = Site::of(&index).with("ADE_INSTALLER", tool);
        let hash = |wheel: &Wheel| sha256(&wheel.build());
        let right = format!("alpha==1.0 --hash=sha256:{}\nbeta==1.0 --hash=sha256:{}", hash(&alpha), hash(&beta));
        site.install(&asking(&right, "import alpha, beta")).assert_succeeded();
        let wrong = format!("beta==1.0 --hash=sha256:{}", "0".repeat(64));
        let run = site.install(&asking(&wrong, "pass"));
        assert_told(&run, "dependency_install_failed", "hash_mismatch", &["hash", "beta"]);
        let half = format!("alpha==1.0 --hash=sha256:{}", hash(&alpha));
        let run = site.install(&asking(&half, "pass"));
        assert_told(&run, "dependency_unavailable", "hash_missing", &["beta", "list it as well"]);
        index.falsify("gamma", &Wheel::new("gamma", "1.0").file("more.py", "more = 1\n").build());
        let run = site.install(&asking("gamma", "pass"));
        assert_told(&run, "dependency_install_failed", "hash_mismatch", &["hash", "gamma"]);
        assert_eq!(site.sets.records().len(), 1);
    }
}

#[test]
fn an_index_that_cannot_be_asked_is_named_with_the_reason() {
    for tool in TOOLS {
        let index = Index::start().with(&[Wheel::new("alpha", "1.0")]);
        let site = Site::of(&index).with("ADE_INSTALLER", tool);
        let refused = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}/simple", listener.local_addr().unwrap())
        };
        let run = site.clone().with("ADE_INDEX_URL", &refused).install(&asking("alpha", "pass"));
        assert_told(&run, "dependency_install_failed", "index_unreachable", &[&refused, "alpha"]);
        index.demand("ann:secret");
        let run = site.install(&asking("alpha", "pass"));
        assert_told(&run, "dependency_install_failed", "index_denied", &["alpha", "401", "ADE_INDEX_URL"]);
        for bytes in [
            "not HTTP at all\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.pypi.simple.v1+json\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{\"files\":",
        ] {
            let broken = Index::start();
            broken.break_with(bytes);
            let run = Site::of(&broken).with("ADE_INSTALLER", tool).install(&asking("alpha", "pass"));
            assert_told(&run, "dependency_install_failed", "index_unreachable", &["alpha"]);
        }
    }
}

#[test]
fn an_unknown_authority_is_named_with_the_setting_for_it() {
    let site = Site::real();
    // Where nobody intercepts TLS, the image's own authorities are those of the index: one that is not is needed.
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("other.pem");
    std::fs::write(&bundle, OTHER_AUTHORITY).unwrap();
    for tool in TOOLS {
        let site = site.clone().with("ADE_CA_BUNDLE", shown(&bundle)).with("ADE_INSTALLER", tool);
        let run = site.install(&asking("six", "pass"));
        assert_told(&run, "dependency_install_failed", "index_unreachable", &["TLS", "ADE_CA_BUNDLE"]);
    }
}

#[test]
fn without_network_the_message_says_who_denied_it_what_there_is_and_both_ways_out() {
    let house = wheelhouse(&[Wheel::new("alpha", "1.15.0"), Wheel::new("needy", "1.0").requires("nowhere")]);
    for tool in TOOLS {
        let site = Site::default().with("ADE_INSTALLER", tool);
        let run = site.run(&asking("alpha", "pass"), &["--network", "deny"]);
        let parts = ["alpha", "no wheelhouse is set up", "network", "ade wheelhouse add"];
        assert_told(&run, "dependency_network_denied", "network_denied", &parts);
        let args = ["--network", "deny", "--wheelhouse", shown(house.path())];
        let run = site.run(&asking("alpha==1.16.0", "pass"), &args);
        let parts = ["alpha==1.16.0", "the wheelhouse has alpha 1.15.0 only", "network", "ade wheelhouse add"];
        assert_told(&run, "dependency_network_denied", "network_denied", &parts);
        let run = site.run(&asking("needy", "pass"), &args);
        let parts = ["nowhere", "wheelhouse", "network", "ade wheelhouse add"];
        assert_told(&run, "dependency_network_denied", "network_denied", &parts);
        assert!(run.events_named("egress.connect").is_empty());
    }
}

#[test]
fn a_slow_index_ends_with_the_time_for_an_install() {
    for tool in TOOLS {
        let index = Index::start().with(&[Wheel::new("alpha", "1.0")]);
        index.delay_files(Duration::from_secs(60));
        let site = Site::of(&index).with("ADE_INSTALLER", tool).with("ADE_INSTALL_TIMEOUT_SECONDS", "6");
        let began = Instant::now();
        let run = site.install(&asking("alpha", "pass"));
        assert_told(&run, "dependency_install_failed", "timeout", &["6 s", "ADE_INSTALL_TIMEOUT_SECONDS"]);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}

#[test]
fn an_index_that_sends_an_installer_to_another_address_is_not_followed() {
    for tool in TOOLS {
        let inside = Index::start().with(&[Wheel::new("alpha", "1.0")]);
        for to in [format!("http://{}", inside.host()), "http://169.254.169.254/latest".to_owned()] {
            let index = Index::start();
            index.redirect(&to);
            let run = Site::of(&index).with("ADE_INSTALLER", tool).install(&asking("alpha", "pass"));
            assert_told(&run, "dependency_install_failed", "index_unreachable", &["alpha"]);
            assert_eq!(inside.asked(), Vec::<String>::new());
            let denied = run.events_named("egress.denied");
            assert!(!denied.is_empty() && denied.iter().all(|event| event["purpose"] == "install"));
            assert_eq!(denied[0]["code"], "host_not_allowed", "{tool}: {to}");
        }
    }
    // An allowed name that leads to an address of this machine's is not dialled either.
    let index = Index::start().with(&[Wheel::new("alpha", "1.0")]);
    let url = index.url().replace("127.0.0.1", "localhost");
    let site = Site::default().with("ADE_INDEX_URL", &url);
    let run = site.install(&asking("alpha", "pass"));
    assert_told(&run, "dependency_install_failed", "index_unreachable", &["alpha"]);
    assert_eq!(run.events_named("egress.denied")[0]["code"], "address_not_public");
    assert_eq!(index.asked(), Vec::<String>::new());
}

#[test]
fn a_wheel_that_unpacks_to_more_than_a_set_may_have_is_stopped_and_leaves_nothing() {
    let mut bomb = Wheel::new("alpha", "1.0");
    for number in 0..3 {
        bomb = bomb.file(&format!("zeros_{number}.bin"), vec![0; 24 << 20]);
    }
    let index = Index::start().with(&[bomb]);
    for tool in TOOLS {
        let site = Site::of(&index).with("ADE_INSTALLER", tool).with("ADE_DEPS_MAX_SET_MB", "40");
        let run = site.install(&asking("alpha", "pass"));
        assert_told(&run, "dependency_install_failed", "set_too_large", &["40 MB", "ADE_DEPS_MAX_SET_MB"]);
        assert_eq!(site.sets.volumes(), Vec::<String>::new(), "{tool}");
    }
}

/// A self-signed authority that signed nothing, with a lifetime of a century.
const OTHER_AUTHORITY: &str = include_str!("other-authority.pem");
