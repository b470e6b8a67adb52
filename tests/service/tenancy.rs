//! Tenants against each other, generated from the document that describes the routes: a new route is attacked by being there.

use crate::schema;
use crate::support::Package;
use crate::support::http::{Answer, Api, form};
use crate::support::server::{Tenant, shared};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A workspace with one of everything that has an id.
struct Estate {
    tenant: Tenant,
    ids: BTreeMap<&'static str, String>,
}

impl Estate {
    fn build(tenant: Tenant) -> Self {
        let (config, document) = (tenant.config(&Package::new()), tenant.names());
        let job = tenant.job(&config, &document);
        assert_eq!(tenant.end(&job)["status"], "succeeded");
        let keys = tenant.owner.get(tenant.path("/keys")).send().expect(200).json();
        let drafts = tenant.path(&format!("/configs/{}/drafts", config.config));
        let draft = tenant.editor.post(drafts).json(&json!({})).send().expect(201).json();
        let viewer = keys["items"].as_array().unwrap().iter().find(|key| key["role"] == "viewer").unwrap();
        let ids = BTreeMap::from([
            ("workspace", tenant.id.clone()),
            ("job_id", job),
            ("document_id", document),
            ("config_id", config.config),
            ("version_id", config.version),
            ("draft_id", draft["draft_id"].as_str().unwrap().to_owned()),
            ("path", "manifest.json".to_owned()),
            ("key_id", viewer["key_id"].as_str().unwrap().to_owned()),
            ("name", "normalized.xlsx".to_owned()),
        ]);
        Self { tenant, ids }
    }

    /// Everything there is in it, as an admin sees it.
    fn inventory(&self) -> Vec<Value> {
        let mut seen = vec![self.tenant.admin.get(&self.tenant.base).send().expect(200).json()];
        for list in ["/jobs", "/documents", "/configs", "/keys"] {
            let mut page = self.tenant.admin.get(self.tenant.path(list)).send().expect(200).json();
            for item in page["items"].as_array_mut().unwrap() {
                item.as_object_mut().unwrap().remove("last_used_at");
            }
            seen.push(page);
        }
        let config = format!("/configs/{}", self.ids["config_id"]);
        let files = format!("/drafts/{}/files", self.ids["draft_id"]);
        for of_config in ["/network", "/versions", "/history", "/drafts", &files] {
            seen.push(
                self.tenant.admin.get(self.tenant.path(&format!("{config}{of_config}"))).send().expect(200).json(),
            );
        }
        seen.push(self.tenant.admin.get(self.tenant.path("/network")).send().expect(200).json());
        seen
    }
}

/// A path with its parameters filled in; panics for a parameter that nobody has told this test about.
fn fill(path: &str, ids: &BTreeMap<&'static str, String>) -> String {
    let mut filled = path.to_owned();
    while let Some((before, rest)) = filled.split_once('{') {
        let (name, after) = rest.split_once('}').unwrap();
        let id = ids.get(name).unwrap_or_else(|| {
            panic!("{path} has a parameter {name:?}: give Estate one of that kind, so that this route is attacked too")
        });
        filled = format!("{before}{id}{after}");
    }
    filled
}

/// A body that the operation would take, naming things of `ids`.
fn body(operation: &Value, ids: &BTreeMap<&'static str, String>) -> Option<(String, Vec<u8>)> {
    let content = operation["requestBody"]["content"].as_object()?;
    if let Some(json) = content.get("application/json") {
        let name = json["schema"]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let schema = &schema::document()["components"]["schemas"][name];
        let mut body = Map::new();
        for (member, schema) in schema["properties"].as_object().unwrap() {
            let required = schema_requires(name, member);
            let value = match member.as_str() {
                "document_ids" => json!([ids["document_id"]]),
                "config_id" => json!(ids["config_id"]),
                "role" => json!("viewer"),
                "access" => json!("deny"),
                _ if !required => continue,
                _ => example(schema),
            };
            body.insert(member.clone(), value);
        }
        return Some(("application/json".into(), Value::Object(body).to_string().into_bytes()));
    }
    let zip = Package::new().zip();
    let parts: Vec<(&str, Option<&str>, &[u8])> = if content.contains_key("application/octet-stream") {
        vec![("file", Some("a.csv"), b"Name\nEve\n")]
    } else {
        vec![("slug", None, b"intruder"), ("package", Some("p.zip"), &zip)]
    };
    Some(form(&parts))
}

fn schema_requires(schema: &str, member: &str) -> bool {
    let required = schema::document()["components"]["schemas"][schema]["required"].as_array();
    required.is_some_and(|required| required.iter().any(|name| name == member))
}

fn example(schema: &Value) -> Value {
    match schema["type"].as_str().or_else(|| schema["type"][0].as_str()) {
        Some("integer") => json!(1),
        Some("boolean") => json!(true),
        _ => json!("something"),
    }
}

/// Every operation of the served document: path, method, and what the document says of it.
fn operations(api: &Api) -> Vec<(String, String, Value)> {
    let served = api.get("/openapi.json").send().expect(200).json();
    let mut all = Vec::new();
    for (path, item) in served["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "delete", "patch", "options", "head", "trace"] {
            if let Some(operation) = item.get(method) {
                all.push((path.clone(), method.to_uppercase(), operation.clone()));
            }
        }
    }
    assert!(all.len() > 35);
    all
}

fn send(api: &Api, method: &str, path: &str, body: Option<&(String, Vec<u8>)>) -> Answer {
    let call = api.call(method, path);
    body.map_or_else(|| call.clone().send(), |(content_type, body)| call.clone().body(content_type, body).send())
}

/// The same kinds of ids, of nothing.
fn nothing() -> BTreeMap<&'static str, String> {
    let zeros = "0".repeat(26);
    BTreeMap::from([
        ("workspace", format!("ws_{zeros}")),
        ("job_id", format!("job_{zeros}")),
        ("document_id", format!("doc_{zeros}")),
        ("config_id", format!("cfg_{zeros}")),
        ("version_id", format!("cfgv_{zeros}")),
        ("draft_id", format!("draft_{zeros}")),
        ("path", "manifest.json".to_owned()),
        ("key_id", format!("key_{zeros}")),
        ("name", "normalized.xlsx".to_owned()),
    ])
}

/// What an answer tells: without the request's id, and without the ids that the caller sent itself.
fn tells(answer: &Answer, ids: &BTreeMap<&'static str, String>) -> String {
    let mut body = answer.json();
    body.as_object_mut().unwrap().remove("request_id");
    let mut text = body.to_string();
    for (kind, id) in ids {
        text = text.replace(id.as_str(), kind);
    }
    text
}

#[test]
fn a49_every_id_of_another_tenant_is_a_404_on_every_route() {
    let server = shared();
    let (mine, theirs) = (Estate::build(server.tenant()), Estate::build(server.tenant()));
    let with = |kind: &'static str, id: &str, ids: &BTreeMap<&'static str, String>| {
        let mut ids = ids.clone();
        ids.insert(kind, id.to_owned());
        ids
    };
    let before = theirs.inventory();
    let unknown = nothing();
    let (mut attacked, mut of_admins) = (0, 0);
    for (path, method, operation) in operations(&server.admin) {
        if !path.contains('{') {
            continue;
        }
        let body = body(&operation, &theirs.ids);
        let body = body.as_ref();
        let owner = &mine.tenant.owner;
        if !path.contains("{workspace}") {
            // Routes of admins: for all others they tell nothing, not even by the id.
            let (known, other) = (
                send(owner, &method, &fill(&path, &theirs.ids), body),
                send(owner, &method, &fill(&path, &unknown), body),
            );
            known.problem(403, "forbidden");
            assert_eq!(tells(&known, &theirs.ids), tells(&other, &unknown), "{method} {path}");
            of_admins += 1;
            continue;
        }
        // Their ids under their workspace, by id and by slug.
        for ids in [theirs.ids.clone(), with("workspace", &theirs.tenant.slug, &theirs.ids)] {
            let path = fill(&path, &ids);
            for api in [owner, &mine.tenant.editor, &mine.tenant.viewer] {
                let answer = send(api, &method, &path, body);
                answer.problem(404, "workspace_not_found");
                let other =
                    send(api, &method, &fill(&path.replace(&ids["workspace"], &unknown["workspace"]), &ids), body);
                assert_eq!(
                    tells(&answer, &ids),
                    tells(&other, &unknown),
                    "{method} {path} tells that there is a workspace"
                );
                attacked += 1;
            }
        }
        // Their ids under my workspace. An admin may act in both, and even so an id belongs to one.
        if path.matches('{').count() > 1 {
            let ids = with("workspace", &mine.tenant.id, &theirs.ids);
            let none = with("workspace", &mine.tenant.id, &unknown);
            for api in [owner, &server.admin] {
                let (answer, other) =
                    (send(api, &method, &fill(&path, &ids), body), send(api, &method, &fill(&path, &none), body));
                if api.key == owner.key && answer.status == 403 {
                    answer.problem(403, "forbidden");
                } else {
                    assert_eq!(answer.status, 404, "{answer}");
                }
                assert_eq!(
                    tells(&answer, &ids),
                    tells(&other, &none),
                    "{method} {path} tells that there is such an id"
                );
                attacked += 1;
            }
        } else if let Some(body) = body.filter(|(content_type, body)| {
            content_type == "application/json" && String::from_utf8_lossy(body).contains("_id")
        }) {
            // Their ids in a body.
            send(owner, &method, &fill(&path, &mine.ids), Some(body)).problem(404, "document_not_found");
            attacked += 1;
        }
    }
    assert!(attacked > 150 && of_admins > 0, "{attacked} {of_admins}");
    assert_eq!(theirs.inventory(), before, "nothing of theirs has changed");

    // The ids were good: for an admin under their own workspace none of these is a 404.
    let mut all = operations(&server.admin);
    // What is in something else is deleted before that.
    all.sort_by_key(|(path, method, _)| (method == "DELETE").then_some(usize::MAX - path.len()));
    for (path, method, operation) in all {
        if path.contains('{') {
            let body = body(&operation, &theirs.ids);
            let answer = send(&server.admin, &method, &fill(&path, &theirs.ids), body.as_ref());
            assert_ne!(answer.status, 404, "{answer}");
        }
    }
}

#[test]
fn a49_ids_of_another_tenant_in_a_body_or_a_query_find_nothing() {
    let server = shared();
    let (mine, theirs) = (Estate::build(server.tenant()), Estate::build(server.tenant()));
    let version = theirs.tenant.record(&theirs.ids["job_id"])["config_version"]["config_version_id"].clone();
    let own = &mine.ids["document_id"];
    let submit = |body: Value| mine.tenant.submit(&body);
    submit(json!({"config_version_id": version, "document_id": own})).problem(404, "version_not_found");
    submit(json!({"config_id": theirs.ids["config_id"], "document_id": own})).problem(404, "config_not_found");
    submit(json!({"config_id": mine.ids["config_id"], "document_id": theirs.ids["document_id"]}))
        .problem(404, "document_not_found");
    // Their version and their draft under a config of mine, which is there.
    let config = mine.tenant.path(&format!("/configs/{}", mine.ids["config_id"]));
    let (version, draft) = (&theirs.ids["version_id"], &theirs.ids["draft_id"]);
    let post = |route: &str, body: Value| mine.tenant.owner.post(format!("{config}{route}")).json(&body).send();
    let drafts = post("/drafts", json!({"config_version_id": version})).problem(404, "version_not_found");
    assert_eq!(drafts["errors"][0]["pointer"], "/config_version_id");
    for route in ["", "/export"] {
        let get = mine.tenant.owner.get(format!("{config}/versions/{version}{route}")).send();
        get.problem(404, "version_not_found");
    }
    for route in ["activate", "deactivate", "archive", "restore", "clone"] {
        post(&format!("/versions/{version}/{route}"), json!({})).problem(404, "version_not_found");
    }
    for route in ["", "/files", "/files/manifest.json", "/download"] {
        let get = mine.tenant.owner.get(format!("{config}/drafts/{draft}{route}")).send();
        get.problem(404, "draft_not_found");
    }
    for route in ["validate", "publish"] {
        post(&format!("/drafts/{draft}/{route}"), json!({})).problem(404, "draft_not_found");
    }
    for call in [
        mine.tenant.owner.delete(format!("{config}/drafts/{draft}")),
        mine.tenant.owner.delete(format!("{config}/drafts/{draft}/files/manifest.json")),
        mine.tenant.owner.put(format!("{config}/drafts/{draft}/files/manifest.json")).body("text/plain", "x"),
    ] {
        call.send().problem(404, "draft_not_found");
    }
    for kind in ["config_id", "document_id"] {
        let page = mine
            .tenant
            .viewer
            .get(mine.tenant.path(&format!("/jobs?{kind}={}", theirs.ids[kind])))
            .send()
            .expect(200)
            .json();
        assert_eq!(page["items"], json!([]));
    }
    let seen = mine.tenant.owner.get("/api/v1/workspaces").send().expect(200).json();
    assert_eq!(
        crate::support::server::ids(&seen, "workspace_id"),
        [mine.tenant.id.as_str()],
        "a list shows the own workspace only"
    );
}

#[test]
fn a50_no_request_can_choose_an_image_a_runtime_a_mount_or_a_limit() {
    let server = shared();
    let tenant = server.tenant();
    let (config, document) = (tenant.config(&Package::new()), tenant.names());
    for member in [
        "image", "runtime", "mounts", "binds", "volumes", "devices", "privileged", "cap_add", "network",
        "network_mode", "user", "command", "entrypoint", "env", "limits", "memory_mb", "timeout_ms", "cpus", "pids",
        "host_config", "labels", "__proto__",
    ] {
        for value in [json!("x"), json!({"a": 1}), Value::Null] {
            let mut body = json!({"config_version_id": config.version, "document_id": document});
            body[member] = value;
            let problem = tenant.submit(&body).problem(400, "unknown_field");
            assert_eq!(problem["errors"][0]["pointer"], format!("/{member}"));
        }
        let (content_type, body) =
            form(&[("slug", None, b"x"), ("package", Some("p.zip"), &Package::new().zip()), (member, None, b"x")]);
        tenant.owner.post(tenant.path("/configs")).body(&content_type, &body).send().problem(400, "unknown_field");
    }
    assert!(tenant.jobs().is_empty());
    // What an owner may not: shares and bounds are the admin's.
    tenant.owner.patch(&tenant.base).json(&json!({"weight": 10_000})).send().problem(403, "forbidden");
    let bound = tenant.path(&format!("/configs/{}/concurrency", config.config));
    tenant.owner.put(bound).json(&json!({"max_running": 100})).send().problem(403, "forbidden");
}

#[test]
fn a50_a_limit_above_the_cap_is_refused_at_the_door_and_the_container_has_what_the_instance_gives() {
    let server = shared();
    let tenant = server.tenant();
    for (limit, asked, cap) in [("memory_mb", 1 << 20, "2048"), ("timeout_ms", 86_400_001, "300000")] {
        let package = Package::new().manifest(json!({"engine": {"defaults": {limit: asked}}}));
        let problem = tenant.register("greedy", &package.zip()).problem(400, "package_invalid").to_string();
        assert!(problem.contains(&asked.to_string()) && problem.contains(cap), "both numbers: {problem}");
    }
    let job = tenant.finished();
    let request = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/run-request"))).send().expect(200).json();
    assert!(request["limits"]["memory_mb"].as_u64().is_some_and(|memory| memory <= 2048), "{request:#}");
    assert_eq!(
        (&request["network"]["run"], &request["network"]["install"]),
        (&json!(false), &json!(false)),
        "{request:#}"
    );
}
