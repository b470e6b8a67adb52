//! How an installer reaches its index: an authority of the index's own, and names that lead elsewhere.

use crate::index::Index;
use crate::site::{Site, TOOLS, asking, block, shown};
use crate::support::within::{BOUNDS, Names, Within, egress, node, run_on};
use crate::support::{Run, Sets};
use crate::wheel::Wheel;
use ade::deps::{Deps, Tool};
use ade::sandbox::FailureKind;
use serde_json::json;
use std::net::TcpListener;

#[test]
fn an_index_behind_an_authority_of_its_own_is_trusted_where_the_bundle_has_it_and_nowhere_else() {
    for tool in TOOLS {
        let alpha = Wheel::new("alpha", "1.0");
        let index = Index::with_tls().with(std::slice::from_ref(&alpha));
        assert!(index.url().starts_with("https://"));
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("own.pem");
        std::fs::write(&bundle, index.authority()).unwrap();
        let package = asking("alpha", "import alpha; say('version', alpha.VERSION)");
        let site = Site::of(&index).with("ADE_INSTALLER", tool);
        let refused = |run: &Run| {
            run.assert_failed("dependency_install_failed", &["TLS", "ADE_CA_BUNDLE", &index.host()]);
            assert_eq!(run.json["error"]["detail"]["code"], "index_unreachable", "{tool}");
        };
        refused(&site.install(&package));
        assert_eq!(index.asked(), Vec::<String>::new(), "{tool}: nothing was asked of a stranger");

        let trusting = site.clone().with("ADE_CA_BUNDLE", shown(&bundle));
        let run = trusting.install(&package);
        run.assert_succeeded();
        assert_eq!((run.finding("version"), &block(&run)["status"]), ("1.0", &json!("installed")), "{tool}");

        // The engine itself fetches for a wheelhouse, and trusts the same.
        let house = folder.path().join("wheels");
        let list = folder.path().join("list.txt");
        std::fs::write(&list, "alpha\n").unwrap();
        let add = ["wheelhouse", "add", "-r", shown(&list), "--wheelhouse", shown(&house)];
        let said = site.json(&add, 3);
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains("TLS") && message.contains("ADE_CA_BUNDLE"), "{tool}: {message}");
        assert_eq!(trusting.json(&add, 0)["fetched"], json!([alpha.filename()]), "{tool}");
    }
}

#[test]
fn an_index_in_plain_http_under_a_name_serves_both_installers() {
    for tool in [Tool::Uv, Tool::Pip] {
        let index = Index::on("127.0.0.61").with(&[Wheel::new("alpha", "1.0")]);
        let names = Names::default().with("index.example", &["127.0.0.61"]);
        let sets = Sets::default();
        let within = install(tool, index.port(), &names, &sets);
        assert_eq!(within.outcome.failure(), None, "{tool:?}");
        assert_eq!(sets.records().len(), 1, "{tool:?}");
    }
}

/// Installs `alpha` from `http://index.example` on this port, where only the first of two addresses may be dialled.
fn install(tool: Tool, port: u16, names: &Names, sets: &Sets) -> Within {
    let mut node = node(egress(BOUNDS, &["127.0.0.61/32"]).resolving(names.resolver()));
    let index = ade::deps::Index {
        tool,
        url: format!("http://index.example:{port}/simple"),
        file_hosts: vec!["files.example".parse().unwrap()],
        ..ade::deps::Index::default()
    };
    node.deps = Deps::new(index, ade::deps::Sets::new(sets.folder().to_owned(), 1 << 30));
    let within = run_on(&node, &asking("alpha", "import alpha"), &[]);
    sets.assert_at_rest();
    within
}

/// Asserts that the job failed for want of its index, and that what an installer was refused was an address.
#[track_caller]
fn assert_refused(within: &Within) {
    let failure = within.outcome.failure().expect("the install fails");
    assert_eq!(failure.kind, FailureKind::DependencyInstallFailed, "{failure:?}");
    assert!(failure.message.contains("alpha"), "{failure:?}");
    let denied = within.events_named("egress.denied");
    assert!(!denied.is_empty());
    for detail in denied {
        assert_eq!(
            (&detail["code"], &detail["purpose"]),
            (&json!("address_not_public"), &json!("install")),
            "{detail}"
        );
    }
}

#[test]
fn an_index_whose_name_moves_to_a_private_address_is_not_followed_there() {
    for tool in [Tool::Uv, Tool::Pip] {
        let index = Index::on("127.0.0.61").with(&[Wheel::new("alpha", "1.0")]);
        // The same port of an address that is not listed, and that the name has from the second look on.
        let secret = TcpListener::bind(("127.0.0.62", index.port())).unwrap();
        secret.set_nonblocking(true).unwrap();
        let names = Names::default().with("index.example", &["127.0.0.61", "127.0.0.62"]);
        let sets = Sets::default();
        let within = install(tool, index.port(), &names, &sets);
        assert_refused(&within);
        let connected = within.events_named("egress.connect");
        assert_eq!((connected.len(), &connected[0]["address"]), (1, &json!("127.0.0.61")), "{tool:?}");
        assert_eq!(index.asked(), ["/simple/alpha/"], "{tool:?}: the page, and not the file that it names");
        let denied = within.events_named("egress.denied").len();
        assert_eq!(names.looks().len(), 1 + denied, "{tool:?}: one look for each connection");
        assert!(secret.accept().is_err(), "{tool:?}: nobody came");
        assert!(sets.records().is_empty() && sets.volumes().is_empty(), "{tool:?}");
    }
}

#[test]
fn an_index_that_redirects_to_a_listed_host_with_a_private_address_is_not_followed_there() {
    for tool in [Tool::Uv, Tool::Pip] {
        let index = Index::on("127.0.0.61");
        let secret = TcpListener::bind("127.0.0.62:0").unwrap();
        secret.set_nonblocking(true).unwrap();
        index.redirect(&format!("http://files.example:{}", secret.local_addr().unwrap().port()));
        let names = Names::default().with("index.example", &["127.0.0.61"]).with("files.example", &["127.0.0.62"]);
        let sets = Sets::default();
        let within = install(tool, index.port(), &names, &sets);
        assert_refused(&within);
        assert!(within.events_named("egress.denied").iter().all(|detail| detail["host"] == "files.example"));
        assert!(!index.asked().is_empty() && secret.accept().is_err(), "{tool:?}: nobody came");
        assert!(sets.records().is_empty() && sets.volumes().is_empty(), "{tool:?}");
    }
}
