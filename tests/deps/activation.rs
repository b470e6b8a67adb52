//! Activation of a version with requirements: the set is made before the version becomes active, or it does not.

use crate::index::Index;
use crate::install::wheelhouse;
use crate::site::{Site, TOOLS, asking, shown};
use crate::support::http::Answer;
use crate::support::server::{Database, Registered, Server, Tenant, eventually, holds};
use crate::support::sets::{records_in, volumes_of};
use crate::support::{Docker, Package};
use crate::wheel::Wheel;
use serde_json::{Value, json};

fn activate(tenant: &Tenant, registered: &Registered) -> Answer {
    let path = tenant.path(&format!("/configs/{}/versions/{}/activate", registered.config, registered.version));
    tenant.owner.post(path).send()
}

fn active(tenant: &Tenant) -> Value {
    tenant.viewer.get(&tenant.base).send().expect(200).json()["active_version_id"].clone()
}

/// A workspace whose installs may use the network.
fn tenant(server: &Server) -> Tenant {
    let tenant = server.tenant();
    tenant.admin.put(tenant.path("/network")).json(&json!({"access": "install_only"})).send().expect(200);
    tenant
}

/// A package that asks for these requirements, whose activation imports one of them.
fn package(requirements: &str) -> Package {
    asking(requirements, "import alpha; say('version', alpha.VERSION)")
        .hook("on_activate", "import alpha\ndef run(**_):\n    print('warm')\n    return {'version': alpha.VERSION}\n")
}

/// Submits to the active version; how the job came by its dependencies.
fn ready(tenant: &Tenant) -> Value {
    let job = tenant.submit(&json!({"document_id": tenant.names()})).expect(202).json();
    let job = job["job_id"].as_str().unwrap();
    let ended = tenant.end(job);
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    let events = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/events"))).send().expect(200).text();
    let mut events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.find(|event| event["event"] == "deps.ready").unwrap()["detail"].clone()
}

#[test]
fn an_activation_makes_the_set_and_jobs_find_it() {
    for tool in TOOLS {
        let alpha = Wheel::new("alpha", "1.0").requires("beta");
        let index = Index::start().with(&[alpha.clone(), Wheel::new("beta", "2.1")]);
        let site = Site::of(&index).with("ADE_INSTALLER", tool);
        let server = Server::start_on(Database::Sqlite, &[], &site.environment());
        let tenant = tenant(&server);
        let record = activate(&tenant, &tenant.config(&package("alpha"))).expect(200).json();
        let set = &record["dependencies"];
        assert_eq!((&set["status"], &set["source"]), (&json!("installed"), &json!("index")), "{tool}: {record:#}");
        assert_eq!(set["packages"].as_array().unwrap().len(), 2, "{tool}: {set:#}");
        assert_eq!(record["hooks"][0]["returned"], json!({"version": "1.0"}), "{tool}: {record:#}");
        let lines = record["hook_output"]["lines"].as_array().unwrap();
        assert_eq!(lines.len(), 1, "what the installer says is not what the hooks say: {lines:#?}");
        let records = records_in(&server.data().join("deps"));
        assert_eq!(records.len(), 1, "{tool}");
        assert_eq!((&records[0]["set_id"], &records[0]["workspace_id"]), (&set["set_id"], &json!(tenant.id)));

        let downloads = index.downloads(&alpha.filename());
        let found = ready(&tenant);
        assert_eq!((&found["status"], &found["set_id"]), (&json!("cached"), &set["set_id"]), "{tool}: {found}");
        // Another version with the same requirements has the same set.
        let record = activate(&tenant, &tenant.config(&package("# as before\nalpha\n"))).expect(200).json();
        assert_eq!(
            (&record["dependencies"]["status"], &record["dependencies"]["set_id"]),
            (&json!("cached"), &set["set_id"])
        );
        assert_eq!(index.downloads(&alpha.filename()), downloads, "{tool}: nothing was fetched again");
        assert_eq!(volumes_of(&server.data().join("deps")).len(), 1);
    }
}

#[test]
fn an_activation_whose_install_fails_says_why_with_the_log_and_changes_nothing() {
    const SECRET: &str = "c4n4ry-9f8e7d";
    for tool in TOOLS {
        let index = Index::start().with(&[Wheel::new("alpha", "1.0"), Wheel::new("gamma", "1.0")]);
        index.demand(&format!("ann:{SECRET}"));
        let url = index.url().replace("http://", &format!("http://ann:{SECRET}@"));
        let site = Site::of(&index).with("ADE_INSTALLER", tool).with("ADE_INDEX_URL", &url);
        let server = Server::start_on(Database::Sqlite, &["--pool-max", "0"], &site.environment());
        let tenant = tenant(&server);
        let deps = server.data().join("deps");
        let good = tenant.config(&package("alpha"));
        activate(&tenant, &good).expect(200);
        let fails = |requirements: &str, kind: &str, code: &str, parts: &[&str]| {
            let answer = activate(&tenant, &tenant.config(&package(requirements)));
            let problem = answer.problem(400, "activation_failed");
            let error = &problem["error"];
            assert_eq!((&error["kind"], &error["detail"]["code"]), (&json!(kind), &json!(code)), "{problem:#}");
            let said = &problem["dependencies"];
            assert_eq!((&said["status"], &said["diagnostics"][0]["code"]), (&json!("failed"), &json!(code)));
            for part in parts {
                assert!(error["message"].as_str().unwrap().contains(part), "{tool}: {part}: {problem:#}");
            }
            assert!(problem["detail"].as_str().unwrap().ends_with("nothing was changed"), "{problem:#}");
            assert_eq!((&problem["hooks"], &problem["hook_output"]["lines"]), (&json!([]), &json!([])), "{tool}");
            assert!(!problem.to_string().contains(SECRET), "{tool}: {problem:#}");
            assert_eq!(active(&tenant), json!(good.version), "{tool}");
            assert_eq!((records_in(&deps).len(), volumes_of(&deps).len()), (1, 1), "{tool}: nothing is left of it");
            problem["install_log"].as_str().unwrap().to_owned()
        };
        let log = fails("alpha\nabsent>=2", "dependency_unavailable", "not_found", &["absent>=2", "typing error"]);
        assert!(log.contains("resolving from the index") && log.contains("failed: absent"), "{tool}: {log}");
        fails("alpha==9", "dependency_unavailable", "no_matching_version", &["alpha==9", "latest 1.0"]);
        index.falsify("gamma", &Wheel::new("gamma", "1.0").file("more.py", "more = 1\n").build());
        fails("alpha\ngamma", "dependency_install_failed", "hash_mismatch", &["gamma"]);
        // What is no requirement at all needs no installer.
        let answer = tenant.register("wrong", &package("alpha\n-e .\n").zip());
        assert_eq!(answer.problem(400, "package_invalid")["diagnostics"][0]["code"], "requirement_option");

        assert_eq!(ready(&tenant)["status"], "cached", "{tool}: the earlier version runs as before");
        let page = tenant.owner.get(tenant.path("/audit?action=config.activate")).send().expect(200).json();
        assert_eq!(page["items"].as_array().unwrap().len(), 1, "{tool}: what failed is no change");
        assert_eq!(holds(&server.data(), SECRET), None, "{tool}");
        let metrics = server.admin.get("/metrics").send().expect(200).text();
        for counted in ["activated\"} 1\n", "failed\"} 3\n"] {
            for name in ["ade_activations_total{result=\"", "ade_activation_seconds_count{result=\""] {
                assert!(metrics.contains(&format!("{name}{counted}")), "{tool}: {name}{counted}");
            }
        }
        let instance = server.status()["instance_id"].as_str().unwrap().to_owned();
        eventually("no container is left", || Docker::connect().containers_of_instance(&instance).is_empty());
    }
}

#[test]
fn without_network_a_version_is_activated_from_the_wheelhouse_or_told_what_it_lacks() {
    let house = wheelhouse(&[Wheel::new("alpha", "1.0").requires("beta"), Wheel::new("beta", "2.1")]);
    for tool in TOOLS {
        let site = Site::default().with("ADE_INSTALLER", tool).with("ADE_WHEELHOUSE", shown(house.path()));
        let server = Server::start_on(Database::Sqlite, &["--runtime-network-access", "off"], &site.environment());
        let tenant = server.tenant();
        let good = tenant.config(&package("alpha"));
        let record = activate(&tenant, &good).expect(200).json();
        let set = &record["dependencies"];
        assert_eq!((&set["status"], &set["source"]), (&json!("installed"), &json!("wheelhouse")), "{tool}: {set:#}");
        assert_eq!(ready(&tenant)["status"], "cached", "{tool}");
        let answer = activate(&tenant, &tenant.config(&package("alpha>=2")));
        let problem = answer.problem(400, "activation_failed");
        let error = &problem["error"];
        assert_eq!(
            (&error["kind"], &error["detail"]["code"]),
            (&json!("dependency_network_denied"), &json!("network_denied"))
        );
        let message = error["message"].as_str().unwrap();
        for part in
            ["alpha>=2", "the wheelhouse has alpha 1.0 only", "ADE_RUNTIME_NETWORK_ACCESS", "ade wheelhouse add"]
        {
            assert!(message.contains(part), "{tool}: {part}: {message}");
        }
        assert!(problem["install_log"].as_str().unwrap().contains("resolving from the wheelhouse"), "{problem:#}");
        assert_eq!(active(&tenant), json!(good.version), "{tool}");
    }
}
