//! The network policy over HTTP, its audit, and the decision of a job.

use crate::schema;
use crate::support::Package;
use crate::support::http::Api;
use crate::support::server::{Server, Tenant, ids, shared, shared_on_postgres};
use serde_json::{Value, json};

fn asking() -> Package {
    Package::new().manifest(json!({"engine": {"defaults": {"runtime_network_access": true}}}))
}

fn network_of(tenant: &Tenant, config: &str) -> String {
    tenant.path(&format!("/configs/{config}/network"))
}

fn put(api: &Api, path: &str, body: &Value) -> Value {
    api.put(path).json(body).send().expect(200).json()
}

/// `yes package` and the like: for the install and the run of a manifest that asks, then of one that does not.
fn outcomes(shown: &Value) -> [String; 4] {
    let effective = &shown["effective"];
    [
        ("manifest_asks", "install"),
        ("manifest_asks", "run"),
        ("manifest_does_not_ask", "install"),
        ("manifest_does_not_ask", "run"),
    ]
    .map(|(manifest, purpose)| {
        let ruling = &effective[manifest][purpose];
        assert!(!ruling["reason"].as_str().unwrap().is_empty());
        let allowed = if ruling["allowed"] == true { "yes" } else { "no" };
        format!("{allowed} {}", ruling["decided_by"].as_str().unwrap())
    })
}

#[test]
fn each_layer_is_set_by_admins_and_shows_what_comes_of_all() {
    for server in [shared(), shared_on_postgres()] {
        let tenant = server.tenant();
        let config = tenant.config(&Package::new()).config;
        let (workspace, package) = (tenant.path("/network"), network_of(&tenant, &config));
        let fresh = tenant.viewer.get(&workspace).send().expect(200).json();
        schema::assert_valid("WorkspaceNetwork", &fresh);
        assert_eq!(fresh["access"], "inherit");
        assert_eq!(outcomes(&fresh), ["yes manifest", "yes manifest", "no manifest", "no manifest"]);

        let set = put(&tenant.admin, &workspace, &json!({"access": "install_only"}));
        assert_eq!(outcomes(&set), ["yes workspace", "no workspace", "yes workspace", "no workspace"]);
        assert_eq!(tenant.viewer.get(&workspace).send().expect(200).json(), set);

        let body = json!({"access": "allow", "allowed_hosts": ["API.example.com", "*.example.org:443", "2001:db8::1", "api.example.com"]});
        let set = put(&tenant.admin, &package, &body);
        schema::assert_valid("ConfigNetwork", &set);
        assert_eq!(set["config_id"], json!(config));
        let hosts = json!(["api.example.com", "*.example.org:443", "[2001:db8::1]", "api.example.com"]);
        assert_eq!((&set["allowed_hosts"], &set["source_builds"]), (&hosts, &json!(false)));
        assert_eq!(outcomes(&set), ["yes package", "no workspace", "yes package", "no workspace"], "a deny above wins");
        put(&tenant.admin, &workspace, &json!({"access": "inherit"}));
        let shown = tenant.viewer.get(&package).send().expect(200).json();
        assert_eq!(outcomes(&shown), ["yes package", "yes package", "yes package", "no manifest"]);

        // What is left out stays.
        let set = put(&tenant.admin, &package, &json!({"source_builds": true}));
        assert_eq!(
            (&set["access"], &set["allowed_hosts"], &set["source_builds"]),
            (&json!("allow"), &hosts, &json!(true))
        );
        let set = put(&tenant.admin, &package, &json!({"allowed_hosts": []}));
        assert_eq!((&set["allowed_hosts"], &set["source_builds"]), (&json!([]), &json!(true)));
    }
}

#[test]
fn a50_roles_read_their_own_and_only_admins_write() {
    let server = shared();
    let tenant = server.tenant();
    let config = tenant.config(&Package::new()).config;
    let (workspace, package) = (tenant.path("/network"), network_of(&tenant, &config));
    for api in [&tenant.viewer, &tenant.editor, &tenant.owner] {
        for path in [&workspace, &package] {
            api.get(path).send().expect(200);
            let body = json!({"access": "allow"});
            api.put(path).json(&body).send().problem(403, "forbidden");
        }
        api.get("/api/v1/system/network").send().problem(403, "forbidden");
        api.put("/api/v1/system/network").json(&json!({"switch": "manifest"})).send().problem(403, "forbidden");
        api.get("/api/v1/system/audit").send().problem(403, "forbidden");
        let audit = api.get(tenant.path("/audit?action=network.set")).send();
        if api.key == tenant.owner.key {
            assert_eq!(audit.expect(200).json()["items"], json!([]), "what was refused is no change");
        } else {
            audit.problem(403, "forbidden");
        }
    }
    assert_eq!(tenant.admin.get(&package).send().expect(200).json()["access"], "inherit");
}

#[test]
fn a_bad_body_is_refused_with_its_place_and_the_reason_and_changes_nothing() {
    let server = shared();
    let tenant = server.tenant();
    let config = tenant.config(&Package::new()).config;
    let (workspace, package) = (tenant.path("/network"), network_of(&tenant, &config));
    let system = "/api/v1/system/network".to_owned();
    let host = |text: &str| json!({"allowed_hosts": ["api.example.com", text]});
    let many: Vec<String> = (0..201).map(|number| format!("h{number}.example.com")).collect();
    for (path, body, code, pointer, words) in [
        (&workspace, json!({"access": "yes"}), "invalid_body", "/access", "install_only"),
        (&workspace, json!({}), "invalid_body", "", "access"),
        (&workspace, json!({"access": null}), "invalid_body", "/access", "expected value"),
        (
            &workspace,
            json!({"access": "deny", "allowed_hosts": []}),
            "unknown_field",
            "/allowed_hosts",
            "unknown field",
        ),
        (&system, json!({"switch": "on"}), "invalid_body", "/switch", "manifest"),
        (&system, json!({}), "invalid_body", "", "switch"),
        (&package, json!({"access": "off"}), "invalid_body", "/access", "inherit"),
        (&package, json!({"source_builds": "on"}), "invalid_body", "/source_builds", "boolean"),
        (&package, host("https://example.com"), "invalid_body", "/allowed_hosts/1", "without scheme or path"),
        (&package, host("a.*.com"), "invalid_body", "/allowed_hosts/1", "a star stands only at the beginning"),
        (&package, host("müller.example"), "invalid_body", "/allowed_hosts/1", "xn--"),
        (&package, host("0x7f.1"), "invalid_body", "/allowed_hosts/1", "four decimal numbers"),
        (&package, host("example.com:0"), "invalid_body", "/allowed_hosts/1", "from 1 to 65535"),
        (&package, host("a\0b"), "invalid_body", "/allowed_hosts/1", "without scheme or path"),
        (&package, json!({"allowed_hosts": [1]}), "invalid_body", "/allowed_hosts/0", "string"),
        (&package, json!({"allowed_hosts": many}), "invalid_body", "/allowed_hosts", "the limit is 200"),
        (&package, json!({"hosts": []}), "unknown_field", "/hosts", "unknown field"),
    ] {
        let problem = tenant.admin.put(path).json(&body).send().problem(400, code);
        let error = &problem["errors"][0];
        assert_eq!(error["pointer"], pointer, "{body}");
        assert!(error["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    let fresh = tenant.admin.get(&package).send().expect(200).json();
    assert_eq!((&fresh["access"], &fresh["allowed_hosts"]), (&json!("inherit"), &json!([])));
    assert_eq!(
        tenant.owner.get(tenant.path("/audit?action=network.set")).send().expect(200).json()["items"],
        json!([])
    );
    put(&tenant.admin, &package, &json!({"allowed_hosts": many[..200]}));
    let none = network_of(&tenant, &format!("cfg_{}", "0".repeat(26)));
    tenant.admin.put(none).json(&json!({"access": "deny"})).send().problem(404, "config_not_found");
}

#[test]
fn every_change_is_in_the_audit_with_who_what_and_when() {
    let server = Server::start(&[]);
    let (tenant, neighbour) = (server.tenant(), server.tenant());
    let config = tenant.config(&Package::new()).config;
    let who = server.admin.get("/api/v1/whoami").send().expect(200).json();
    let request = tenant
        .admin
        .put(network_of(&tenant, &config))
        .json(&json!({"access": "deny"}))
        .header("X-Request-ID", "mine-1");
    request.send().expect(200);
    request.send().expect(200);
    put(&tenant.admin, &neighbour.path("/network"), &json!({"access": "allow"}));
    put(&tenant.admin, "/api/v1/system/network", &json!({"switch": "deny"}));

    let all = server.admin.get("/api/v1/system/audit?action=network.set").send().expect(200).json();
    let items = all["items"].as_array().unwrap();
    items.iter().for_each(|entry| schema::assert_valid("AuditRecord", entry));
    let targets: Vec<&str> = items.iter().map(|entry| entry["target_kind"].as_str().unwrap()).collect();
    assert_eq!(targets, ["instance", "workspace", "config"], "what was set already is no change");
    let own = tenant.owner.get(tenant.path("/audit?action=network.set")).send().expect(200).json();
    assert_eq!(own["items"], json!([items[2]]));
    let entry = &items[2];
    assert_eq!((&entry["key_id"], &entry["key_name"]), (&who["key_id"], &who["name"]));
    assert_eq!((&entry["action"], &entry["target_id"]), (&json!("network.set"), &json!(config)));
    assert_eq!((&entry["request_id"], &entry["workspace_id"]), (&json!("mine-1"), &json!(tenant.id)));
    let layer = |access: &str| json!({"access": access, "allowed_hosts": [], "source_builds": false});
    assert_eq!(entry["detail"], json!({"before": layer("inherit"), "after": layer("deny")}));
    assert_eq!(items[0]["detail"], json!({"before": {"switch": null}, "after": {"switch": "deny"}}));

    let get = |query: &str| server.admin.get(format!("/api/v1/system/audit?action=network.set&{query}")).send();
    let first = get("limit=2").expect(200).json();
    let rest = get(&format!("limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).expect(200).json();
    assert_eq!([ids(&first, "audit_id"), ids(&rest, "audit_id")].concat(), ids(&all, "audit_id"));
    assert_eq!(rest["next_cursor"], Value::Null);
    let of = |action: &str| server.admin.get(format!("/api/v1/system/audit?action={action}")).send().expect(200).json();
    assert_eq!(ids(&of("config.create"), "audit_id").len(), 1);
    assert!(ids(&of("x%00y"), "audit_id").is_empty());
    assert_eq!(ids(&get("created_after=2020-01-01T00:00:00Z").json(), "audit_id").len(), 3);
    assert!(ids(&get("created_after=2999-01-01T00:00:00Z").json(), "audit_id").is_empty());
    get("created_after=yesterday").problem(400, "invalid_parameter");
    get("limit=0").problem(400, "invalid_parameter");
    get("key=x").problem(400, "invalid_parameter");
}

#[test]
fn the_decision_of_a_job_is_made_from_what_is_set_when_it_is_prepared() {
    let server = Server::start(&[]);
    let tenant = server.tenant();
    let (config, document) = (tenant.config(&asking()), tenant.names());
    let decided = || {
        let job = tenant.job(&config, &document);
        let record = tenant.end(&job);
        assert_eq!(record["status"], "succeeded");
        let get = |what: &str| tenant.viewer.get(tenant.path(&format!("/jobs/{job}/{what}"))).send().expect(200);
        let network = record["network"].clone();
        assert_eq!(network, get("run-request").json()["network"]);
        assert_eq!(network, get("artifact").json()["network"]);
        let events = get("events").text();
        let event = events.lines().find(|line| line.contains("network.decision")).unwrap();
        let event: Value = serde_json::from_str(event).unwrap();
        assert_eq!(network, event["detail"]);
        (network, event["level"].as_str().unwrap().to_owned())
    };
    let again = |setting: &str| {
        // Another document each time: the same job is not run twice.
        let name = tenant.document("more.csv", format!("Name\n{setting}\n"));
        let job = tenant.job(&config, &name);
        tenant.end(&job)["network"].clone()
    };
    let (network, level) = decided();
    assert_eq!((&network["run"], &network["decided_by"], level.as_str()), (&json!(true), &json!("manifest"), "info"));
    put(
        &tenant.admin,
        &network_of(&tenant, &config.config),
        &json!({"access": "allow", "allowed_hosts": ["*.example.com"]}),
    );
    let network = again("allowed hosts");
    assert_eq!((&network["decided_by"], &network["allowed_hosts"]), (&json!("package"), &json!(["*.example.com"])));
    put(&tenant.admin, &tenant.path("/network"), &json!({"access": "install_only"}));
    let network = again("install only");
    assert_eq!(
        (&network["install"], &network["run"], &network["allowed_hosts"]),
        (&json!(true), &json!(false), &json!([]))
    );
    assert_eq!((&network["install_decided_by"], &network["decided_by"]), (&json!("package"), &json!("workspace")));
    put(&tenant.admin, "/api/v1/system/network", &json!({"switch": "off"}));
    let network = again("off");
    assert_eq!((&network["install"], &network["decided_by"]), (&json!(false), &json!("instance")));

    // A job that waits is decided about when its turn comes.
    tenant.pause(true);
    let job = tenant.job(&config, &tenant.document("late.csv", "Name\nLate\n"));
    put(&tenant.admin, "/api/v1/system/network", &json!({"switch": null}));
    put(&tenant.admin, &tenant.path("/network"), &json!({"access": "deny"}));
    tenant.pause(false);
    let record = tenant.end(&job);
    assert_eq!(record["network"]["decided_by"], "workspace");
    let events = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/events"))).send().expect(200).text();
    let event: Value =
        serde_json::from_str(events.lines().find(|line| line.contains("network.decision")).unwrap()).unwrap();
    assert_eq!(event["level"], "warning", "it asks and is denied");
}

#[test]
fn off_in_the_setting_of_a_node_is_final_and_a_stored_switch_outlives_a_restart() {
    let mut server = Server::start(&["--runtime-network-access", "deny"]);
    let path = "/api/v1/system/network";
    let shown = server.admin.get(path).send().expect(200).json();
    schema::assert_valid("InstanceNetwork", &shown);
    assert_eq!((&shown["switch"], &shown["stored"], &shown["setting"]), (&json!("deny"), &Value::Null, &json!("deny")));
    assert_eq!(outcomes(&shown)[1], "no instance");
    let set = put(&server.admin, path, &json!({"switch": "manifest"}));
    assert_eq!((&set["switch"], &set["stored"]), (&json!("manifest"), &json!("manifest")), "what is stored wins");
    assert_eq!(outcomes(&set)[1], "yes manifest");
    server.restart(&["--runtime-network-access", "off"]);
    let shown = server.admin.get(path).send().expect(200).json();
    assert_eq!(
        (&shown["switch"], &shown["stored"], &shown["setting"]),
        (&json!("off"), &json!("manifest"), &json!("off"))
    );
    let tenant = server.tenant();
    let (config, document) = (tenant.config(&asking()), tenant.names());
    put(&tenant.admin, &network_of(&tenant, &config.config), &json!({"access": "allow"}));
    let job = tenant.job(&config, &document);
    let network = tenant.end(&job)["network"].clone();
    assert_eq!(
        (&network["run"], &network["install"], &network["decided_by"]),
        (&json!(false), &json!(false), &json!("instance"))
    );
    assert!(network["reason"].as_str().unwrap().contains("ADE_RUNTIME_NETWORK_ACCESS"), "{network}");
}
