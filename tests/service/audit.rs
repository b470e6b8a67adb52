//! The audit over HTTP: every route that changes something has its entry, and all of it can be asked for and taken elsewhere.

use crate::schema;
use crate::support::Package;
use crate::support::http::{Answer, Api, Call, form};
use crate::support::server::{Server, Tenant, ids, shared, shared_on_postgres};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The table of routes in the audit's page, which tests/docs.rs compares with the API.
fn documented() -> BTreeMap<String, Option<String>> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations/audit.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| route |")).skip(2);
    let cells = rows.take_while(|line| line.starts_with('|')).map(|row| {
        let mut spans = row.split('`').skip(1).step_by(2);
        (spans.next().unwrap().to_owned(), spans.next().map(str::to_owned))
    });
    cells.collect()
}

/// What was done in a request.
fn done_in(admin: &Api, answer: &Answer) -> Vec<Value> {
    let request = answer.header("x-request-id").unwrap();
    let page = admin.get("/api/v1/system/audit?limit=200").send().expect(200).json();
    let items = page["items"].as_array().unwrap();
    items.iter().filter(|entry| entry["request_id"] == request).cloned().collect()
}

/// Sends requests to routes, and looks at what each leaves in the audit.
struct Tour<'a> {
    server: &'a Server,
    tenant: &'a Tenant,
    documented: BTreeMap<String, Option<String>>,
    seen: BTreeSet<String>,
}

impl Tour<'_> {
    #[track_caller]
    fn go(&mut self, route: &str, call: Call, status: u16) -> Answer {
        let answer = call.send().expect(status);
        let entries = done_in(&self.server.admin, &answer);
        let actions: Vec<&str> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
        let wanted = self.documented.get(route).unwrap_or_else(|| panic!("{route} is not in docs/operations/audit.md"));
        assert_eq!(actions, wanted.iter().map(String::as_str).collect::<Vec<_>>(), "{route}");
        for entry in &entries {
            schema::assert_valid("AuditRecord", entry);
            let of_instance = ["instance", "key"].contains(&entry["target_kind"].as_str().unwrap());
            assert!(of_instance || entry["workspace_id"].is_string(), "{entry}");
            assert_ne!(entry["detail"]["before"], entry["detail"]["after"], "{entry}");
        }
        self.seen.insert(route.to_owned());
        answer
    }

    /// A route below the workspace.
    #[track_caller]
    fn own(&mut self, route: &str, path: &str, body: Option<Value>, status: u16) -> Answer {
        let method = route.split(' ').next().unwrap();
        let call = self.tenant.admin.call(method, self.tenant.path(path));
        let call = match body {
            Some(body) => call.json(&body),
            None => call,
        };
        self.go(&route.replace(" ", " /workspaces/{workspace}"), call, status)
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

#[test]
fn every_route_that_changes_something_writes_the_entry_that_its_table_names() {
    let server = Server::start(&[]);
    let tenant = server.tenant();
    let mut tour = Tour { server: &server, tenant: &tenant, documented: documented(), seen: BTreeSet::new() };
    let admin = &server.admin;
    let (package, other) = (Package::new().zip(), Package::new().manifest(json!({"info": {"title": "two"}})).zip());

    // The instance.
    let made = tour.go("POST /keys", admin.post("/api/v1/keys").json(&json!({"name": "second"})), 201).json();
    let key = format!("/api/v1/keys/{}", text(&made, "key_id"));
    let revoked = tour.go("DELETE /keys/{key_id}", admin.delete(&key), 200);
    assert!(!admin.get("/api/v1/system/audit").send().text().contains(text(&made, "key")), "never the key itself");
    assert_eq!(done_in(admin, &admin.delete(&key).send().expect(200)), Vec::<Value>::new(), "it is revoked already");
    assert_eq!(done_in(admin, &revoked)[0]["target_id"], made["key_id"]);
    for (name, body) in [
        ("concurrency", json!({"max_concurrency": 2})),
        ("network", json!({"switch": "deny"})),
        ("queue", json!({"max_queued": 1000})),
        ("safe-mode", json!({"enabled": true})),
    ] {
        tour.go(&format!("PUT /system/{name}"), admin.put(format!("/api/v1/system/{name}")).json(&body), 200);
    }
    tour.go("PUT /system/safe-mode", admin.put("/api/v1/system/safe-mode").json(&json!({"enabled": false})), 200);
    tour.go("POST /workspaces", admin.post("/api/v1/workspaces").json(&json!({"slug": "toured"})), 201);

    // The workspace.
    tour.own("PATCH ", "", Some(json!({"weight": 7})), 200);
    tour.own("PUT /network", "/network", Some(json!({"access": "install_only"})), 200);
    let made = tour.own("POST /keys", "/keys", Some(json!({"name": "x", "role": "viewer"})), 201).json();
    tour.own("DELETE /keys/{key_id}", &format!("/keys/{}", text(&made, "key_id")), None, 200);

    // A config, its versions and a draft.
    let (kind, body) = form(&[("package", Some("package.zip"), &package)]);
    let call = admin.post(tenant.path("/configs/validate")).body(&kind, body);
    tour.go("POST /workspaces/{workspace}/configs/validate", call, 200);
    let (kind, body) = form(&[("slug", None, b"toured"), ("package", Some("package.zip"), &package)]);
    let call = admin.post(tenant.path("/configs")).body(&kind, body);
    let config = tour.go("POST /workspaces/{workspace}/configs", call, 201).json();
    let (config, first) =
        (text(&config, "config_id").to_owned(), text(&config["latest_version"], "config_version_id").to_owned());
    let base = format!("/configs/{config}");
    let (kind, body) = form(&[("package", Some("package.zip"), &other)]);
    let call = admin.post(tenant.path(&format!("{base}/versions"))).body(&kind, body);
    tour.go("POST /workspaces/{workspace}/configs/{config_id}/versions", call, 201);
    tour.own(
        "PUT /configs/{config_id}/concurrency",
        &format!("{base}/concurrency"),
        Some(json!({"max_running": 3})),
        200,
    );
    tour.own("PUT /configs/{config_id}/network", &format!("{base}/network"), Some(json!({"access": "deny"})), 200);
    let draft = tour.own(
        "POST /configs/{config_id}/drafts",
        &format!("{base}/drafts"),
        Some(json!({"config_version_id": first})),
        201,
    );
    let draft = format!("{base}/drafts/{}", text(&draft.json(), "draft_id"));
    for (method, status) in [("PUT", 201), ("DELETE", 200), ("PUT", 201)] {
        let call = admin.call(method, tenant.path(&format!("{draft}/files/resources/note.txt")));
        let call = if method == "PUT" { call.body("text/plain", "a note") } else { call };
        tour.go(
            &format!("{method} /workspaces/{{workspace}}/configs/{{config_id}}/drafts/{{draft_id}}/files/{{path}}"),
            call,
            status,
        );
    }
    tour.own("POST /configs/{config_id}/drafts/{draft_id}/validate", &format!("{draft}/validate"), None, 200);
    tour.own("POST /configs/{config_id}/drafts/{draft_id}/publish", &format!("{draft}/publish"), Some(json!({})), 201);
    let one = format!("{base}/versions/{first}");
    let version = "/configs/{config_id}/versions/{version_id}";
    let cloned = tour.own(&format!("POST {version}/clone"), &format!("{one}/clone"), None, 201).json();
    let draft = format!("{base}/drafts/{}", text(&cloned, "draft_id"));
    tour.own("DELETE /configs/{config_id}/drafts/{draft_id}", &draft, None, 204);
    for (what, status) in [("activate", 200), ("deactivate", 200), ("archive", 200), ("restore", 200)] {
        tour.own(&format!("POST {version}/{what}"), &format!("{one}/{what}"), None, status);
    }
    tour.own("DELETE /configs/{config_id}", &base, None, 200);
    tour.own("POST /configs/{config_id}/restore", &format!("{base}/restore"), None, 200);

    // Documents and jobs.
    let call = admin.post(tenant.path("/documents?filename=names.csv")).body("text/csv", "Name\nAda\n");
    let document = tour.go("POST /workspaces/{workspace}/documents", call, 201).json();
    let document = text(&document, "document_id");
    tenant.pause(true);
    let body = json!({"config_version_id": first, "document_id": document});
    let job = tour.own("POST /jobs", "/jobs", Some(body.clone()), 202).json();
    let job = format!("/jobs/{}", text(&job, "job_id"));
    let again = tenant.admin.post(tenant.path("/jobs")).json(&body).send().expect(202);
    assert_eq!(done_in(admin, &again), Vec::<Value>::new(), "the job was there before");
    let cancelled = tour.own("POST /jobs/{job_id}/cancel", &format!("{job}/cancel"), None, 202);
    assert_eq!(done_in(admin, &cancelled)[0]["detail"]["after"], json!({"status": "cancelled"}));
    let retried = tour.own("POST /jobs/{job_id}/retry", &format!("{job}/retry"), None, 202).json();
    tenant.admin.post(tenant.path(&format!("/jobs/{}/cancel", text(&retried, "job_id")))).send().expect(202);
    tour.own("DELETE /documents/{document_id}", &format!("/documents/{document}"), None, 204);

    let left: Vec<&String> = tour.documented.keys().filter(|route| !tour.seen.contains(*route)).collect();
    assert!(left.is_empty(), "routes that this test does not go: {left:?}");
}

#[test]
fn entries_are_found_by_who_what_whereto_and_when() {
    for server in [shared(), shared_on_postgres()] {
        let (tenant, neighbour) = (server.tenant(), server.tenant());
        let registered = tenant.config(&Package::new());
        tenant.pause(true);
        let job = tenant.job(&registered, &tenant.names());
        let get = |query: &str| tenant.owner.get(tenant.path(&format!("/audit?limit=200{query}"))).send();
        let found = |query: &str| ids(&get(query).expect(200).json(), "action");
        let all = get("").expect(200).json();
        assert_eq!(ids(&all, "action")[..4], ["job.submit", "document.upload", "workspace.change", "config.create"]);
        assert_eq!(found("").last().unwrap(), "workspace.create");
        let submitted = &all["items"][0];
        assert_eq!((&submitted["key_name"], &submitted["target_id"]), (&json!("the editor"), &json!(job)));
        assert_eq!(submitted["detail"]["after"]["config_version_id"], json!(registered.version));

        let editor = tenant.editor.get("/api/v1/whoami").send().expect(200).json();
        assert_eq!(found(&format!("&key_id={}", text(&editor, "key_id"))), ["job.submit", "document.upload"]);
        assert_eq!(found("&action=job.submit"), ["job.submit"]);
        assert_eq!(found("&action=config.create,workspace.create"), ["config.create", "workspace.create"]);
        assert!(found("&action=x%00y,").is_empty());
        assert_eq!(found(&format!("&target_id={job}")), ["job.submit"]);
        assert_eq!(found(&format!("&target_id={}", registered.config)), ["config.create"]);
        assert!(found(&format!("&target_id={}", neighbour.id)).is_empty(), "that is somebody else's");
        // Two windows that share a time have everything once.
        let shared = text(&all["items"][2], "created_at");
        let (older, newer) = (found(&format!("&created_until={shared}")), found(&format!("&created_after={shared}")));
        assert_eq!([newer, older].concat(), ids(&all, "action"));
        for (query, name) in [
            ("&created_until=yesterday", "created_until"),
            ("&created_after=1", "created_after"),
            ("&key_id=x", "key_id"),
        ] {
            assert_eq!(get(query).problem(400, "invalid_parameter")["errors"][0]["pointer"], name);
        }
        let many = vec!["x"; 100].join(",");
        assert_eq!(get(&format!("&action={many}")).problem(400, "invalid_parameter")["errors"][0]["pointer"], "action");
        tenant.editor.get(tenant.path("/audit")).send().problem(403, "forbidden");
        tenant.owner.get(neighbour.path("/audit")).send().problem(404, "workspace_not_found");
        tenant.owner.get("/api/v1/system/audit").send().problem(403, "forbidden");
    }
}

#[test]
fn an_export_is_all_of_it_line_by_line_and_page_by_page_the_same() {
    for server in [shared(), shared_on_postgres()] {
        let tenant = server.tenant();
        for turn in 0..700 {
            tenant.admin.patch(&tenant.base).json(&json!({"weight": 1000 + turn})).send().expect(200);
        }
        let export = |api: &Api, path: String| {
            let answer = api.get(path).header("Accept", "application/x-ndjson").send().expect(200);
            assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
            let text = answer.text().to_owned();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
        };
        let lines = export(&tenant.owner, tenant.path("/audit"));
        assert_eq!(lines.len(), 704, "the changes, the workspace and its three keys");
        lines.iter().for_each(|line| schema::assert_valid("AuditRecord", line));
        let mut pages = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = tenant.owner.get(tenant.path(&format!("/audit?limit=90{cursor}"))).send().expect(200).json();
            pages.extend(page["items"].as_array().unwrap().clone());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(pages, lines);
        let own =
            export(&server.admin, format!("/api/v1/system/audit?target_id={}&action=workspace.change", tenant.id));
        assert_eq!(own, lines[..700]);
        assert!(export(&tenant.owner, tenant.path("/audit?action=network.set")).is_empty());

        let with = |accept: &str, query: &str| {
            tenant.owner.get(tenant.path(&format!("/audit{query}"))).header("Accept", accept).send()
        };
        assert_eq!(
            with("application/x-ndjson", "?limit=5").problem(400, "invalid_parameter")["errors"][0]["pointer"],
            "limit"
        );
        with("text/csv", "").problem(406, "not_acceptable");
        assert_eq!(with("text/html, */*;q=0.8", "?limit=1").expect(200).json()["items"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn an_export_of_any_length_needs_little_memory() {
    const MANY: usize = 200_000;
    let server = Server::start(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use sqlx::Connection;
        let path = server.data().join("ade.db");
        let mut connection = sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
        let sql = format!(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {MANY}) INSERT INTO audit \
             SELECT 'aud_' || printf('%026d', n), n, NULL, 'key_' || printf('%026d', n % 7), 'a key', 'network.set', \
             'instance', 'x', json_object('before', hex(zeroblob(200)), 'after', n), '' FROM c"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    });
    let export = |query: &str| {
        let path = format!("/api/v1/system/audit{query}");
        server.admin.get(path).header("Accept", "application/x-ndjson").send().expect(200)
    };
    export("?created_after=2999-01-01T00:00:00Z");
    let before = server.memory_kib("VmRSS");
    let all = export("");
    let most = server.memory_kib("VmHWM");
    let bytes = all.text().len();
    // Four readers of the database have a cache of 16 MiB each.
    assert!(bytes > 128 << 20 && most < before + (80 << 10), "{bytes} bytes, {before} KiB, {most}");
    let numbers: Vec<usize> = all
        .text()
        .lines()
        .map(|line| {
            let entry: Value = serde_json::from_str(line).unwrap();
            usize::try_from(entry["detail"]["after"].as_u64().unwrap()).unwrap()
        })
        .collect();
    assert!(numbers.iter().copied().eq((1..=MANY).rev()), "each once, the newest first");
    let some = export(&format!("?key_id=key_{:026}", 3));
    assert_eq!(some.text().lines().count(), (1..=MANY).filter(|n| n % 7 == 3).count());
}
