//! Drafts over HTTP: from a version to the next one, with nothing lost between two people and nothing left behind.

use crate::schema;
use crate::support::Package;
use crate::support::http::{Answer, Api, Call};
use crate::support::server::{Registered, Server, Tenant, eventually, ids, shared, shared_on_postgres};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

/// A draft of a config, as somebody with a key sees it.
struct Draft<'a> {
    tenant: &'a Tenant,
    base: String,
}

impl<'a> Draft<'a> {
    fn make(tenant: &'a Tenant, config: &Registered, body: &Value) -> Self {
        let made = post(tenant, config, body).expect(201);
        schema::assert_valid("DraftRecord", &made.json());
        assert_eq!(made.header("etag"), Some("\"1\""));
        Self { tenant, base: made.header("location").unwrap().to_owned() }
    }

    fn record(&self) -> Value {
        self.tenant.viewer.get(&self.base).send().expect(200).json()
    }

    fn file(&self, path: &str) -> String {
        format!("{}/files/{path}", self.base)
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) -> Call {
        self.tenant.editor.put(self.file(path)).body("text/x-python", content)
    }

    fn read(&self, path: &str) -> Answer {
        self.tenant.viewer.get(self.file(path)).send()
    }

    fn files(&self) -> BTreeMap<String, String> {
        let listed = self.tenant.viewer.get(format!("{}/files", self.base)).send().expect(200).json();
        schema::assert_valid("DraftFiles", &listed);
        let text = |file: &Value, key: &str| file[key].as_str().unwrap().to_owned();
        listed["files"].as_array().unwrap().iter().map(|file| (text(file, "path"), text(file, "sha256"))).collect()
    }

    fn publish(&self, body: &Value) -> Answer {
        self.tenant.editor.post(format!("{}/publish", self.base)).json(body).send()
    }

    fn validate(&self) -> Value {
        let said = self.tenant.editor.post(format!("{}/validate", self.base)).send().expect(200).json();
        schema::assert_valid("ValidationRecord", &said);
        said
    }
}

fn post(tenant: &Tenant, config: &Registered, body: &Value) -> Answer {
    tenant.editor.post(tenant.path(&format!("/configs/{}/drafts", config.config))).json(body).send()
}

fn sha(content: impl AsRef<[u8]>) -> String {
    ade::blob::Digest::of_bytes(content.as_ref()).to_string()
}

/// Blobs of drafts.
fn blobs(server: &Server, tenant: &Tenant) -> usize {
    let folder = format!("/{}/drafts/", tenant.id);
    server.blobs().iter().filter(|(path, _)| path.to_string_lossy().contains(&folder)).count()
}

#[test]
fn a_draft_goes_from_a_version_to_the_next_one() {
    for server in [shared(), shared_on_postgres()] {
        let tenant = server.tenant();
        let package = Package::new().column("name", "# before\n").file("resources/large.bin", vec![7; 3 << 20]);
        let config = tenant.config(&package);
        let draft = Draft::make(&tenant, &config, &json!({"title": "Fixes für später"}));
        let record = draft.record();
        assert_eq!(
            (&record["title"], &record["revision"], &record["files"]),
            (&json!("Fixes für später"), &json!(1), &json!(3))
        );
        assert_eq!((&record["base_version_id"], &record["author"]), (&json!(config.version), &json!("the editor")));
        let expected: BTreeMap<String, String> =
            package.entries().into_iter().map(|(path, content)| (path, sha(content))).collect();
        assert_eq!(draft.files(), expected);
        let read = draft.read("columns/name.py").expect(200);
        assert_eq!(read.body, b"# before\n");
        assert_eq!(read.header("etag").unwrap(), format!("\"{}\"", sha("# before\n")));
        assert_eq!(blobs(server.as_ref(), &tenant), 0, "nothing is copied before it is changed");

        let code = "def transform(values, **_):\n    return {'values': [v.upper() for v in values]}\n";
        let answer = draft.put("columns/name.py", code).send().expect(200);
        let written = answer.json();
        schema::assert_valid("DraftEdit", &written);
        assert_eq!((&written["revision"], &written["file"]["sha256"]), (&json!(2), &json!(sha(code))));
        assert_eq!(answer.header("etag").unwrap(), format!("\"{}\"", sha(code)));
        let note = draft.put("resources/stra%C3%9Fe%20%C3%BC.txt", "").send().expect(201).json();
        assert_eq!((&note["revision"], &note["file"]["bytes"]), (&json!(3), &json!(0)));
        let removed = tenant.editor.delete(draft.file("resources/large.bin")).send().expect(200).json();
        assert_eq!(removed, json!({"revision": 4, "file": null}));
        draft.read("resources/large.bin").problem(404, "file_not_found");
        tenant.editor.delete(draft.file("resources/large.bin")).send().problem(404, "file_not_found");
        assert_eq!(draft.read("columns/name.py").expect(200).body, code.as_bytes());
        let known =
            tenant.viewer.get(draft.file("columns/name.py")).header("If-None-Match", format!("\"{}\"", sha(code)));
        known.send().expect(304);
        // The same once more is no change.
        assert_eq!(draft.put("columns/name.py", code).send().expect(200).json()["revision"], 4);
        assert_eq!(blobs(server.as_ref(), &tenant), 2);

        let said = draft.validate();
        assert_eq!((&said["valid"], &said["revision"]), (&json!(true), &json!(4)));
        let zip = tenant.viewer.get(format!("{}/download", draft.base)).send().expect(200);
        assert_eq!(json!(sha(&zip.body)), said["package_sha256"], "what is downloaded is what would be published");
        let version = draft.publish(&json!({"expected_revision": 4})).expect(201).json();
        schema::assert_valid("VersionRecord", &version);
        assert_eq!((&version["version"], &version["package_sha256"]), (&json!("v2"), &said["package_sha256"]));
        assert_eq!(draft.publish(&json!({})).expect(200).json(), version, "no twin");
        assert_eq!(draft.record()["base_version_id"], version["config_version_id"]);
        assert_eq!(draft.read("columns/name.py").expect(200).body, code.as_bytes());
        eventually("what is in the version's package is nowhere else", || blobs(server.as_ref(), &tenant) == 0);

        let id = version["config_version_id"].as_str().unwrap().to_owned();
        let job = tenant.job(&Registered { config: config.config.clone(), version: id }, &tenant.names());
        assert_eq!(tenant.end(&job)["status"], "succeeded");
        let route = tenant.path(&format!("/configs/{}/drafts", config.config));
        let listed = tenant.viewer.get(&route).send().expect(200).json();
        assert_eq!(listed["items"], json!([draft.record()]));
        draft.put("columns/name.py", "# more\n").send().expect(200);
        tenant.editor.delete(&draft.base).send().expect(204);
        tenant.editor.delete(&draft.base).send().problem(404, "draft_not_found");
        draft.read("columns/name.py").problem(404, "draft_not_found");
        draft.put("columns/name.py", "x").send().problem(404, "draft_not_found");
        eventually("its blobs go with it", || blobs(server.as_ref(), &tenant) == 0);
        let audit = tenant.owner.get(tenant.path("/audit?action=draft.edit")).send().expect(200).json();
        assert_eq!(ids(&audit, "action").len(), 4, "an entry for each change: {audit:#}");
    }
}

#[test]
fn nobody_writes_over_what_somebody_else_has_written() {
    let server = shared();
    let tenant = server.tenant();
    let config = tenant.config(&Package::new().column("name", "# one\n"));
    let draft = Draft::make(&tenant, &config, &json!({}));
    let (path, one, two) = ("columns/name.py", sha("# one\n"), sha("# two\n"));
    let expecting = |sha256: &str| {
        let route = format!("{}?expected_sha256={sha256}", draft.file(path));
        tenant.editor.put(route).body("text/plain", "# mine\n").send()
    };
    draft.put(path, "# two\n").header("If-Match", format!("\"{one}\"")).send().expect(200);
    let late = draft.put(path, "# mine\n").header("If-Match", format!("\"{one}\"")).send();
    assert_eq!(late.problem(412, "precondition_failed")["sha256"], json!(two));
    assert_eq!(expecting(&one).problem(409, "draft_changed")["sha256"], json!(two));
    let there = draft.put(path, "# mine\n").header("If-None-Match", "*").send();
    there.problem(412, "precondition_failed");
    assert_eq!(draft.read(path).expect(200).body, b"# two\n");
    let remove = |query: &str| tenant.editor.delete(format!("{}{query}", draft.file(path)));
    remove(&format!("?expected_sha256={one}")).send().problem(409, "draft_changed");
    remove("").header("If-Match", format!("\"{one}\"")).send().problem(412, "precondition_failed");
    expecting("UPPER").problem(400, "invalid_parameter");
    expecting(&two).expect(200);
    remove("").header("If-Match", "*").send().expect(200);
    // What is not there has no state that could be meant.
    for call in [draft.put(path, "x").header("If-Match", "*"), remove("").header("If-Match", "*")] {
        call.send().problem(412, "precondition_failed");
    }
    assert_eq!(expecting(&two).problem(409, "draft_changed")["sha256"], Value::Null);
    draft.put(path, "# new\n").header("If-None-Match", "*").send().expect(201);

    // What is published is what was looked at.
    let seen = draft.record()["revision"].clone();
    draft.put(path, "# newer\n").send().expect(200);
    let stale = draft.publish(&json!({"expected_revision": seen})).problem(409, "draft_changed");
    assert_eq!(stale["revision"], json!(seen.as_i64().unwrap() + 1));
    let publish = tenant.editor.post(format!("{}/publish", draft.base)).json(&json!({}));
    publish.clone().header("If-Match", format!("\"{seen}\"")).send().problem(412, "precondition_failed");
    publish.header("If-Match", format!("\"{}\"", stale["revision"])).send().expect(201);
}

#[test]
fn of_many_who_write_at_once_one_is_first_and_the_others_are_told() {
    let server = shared();
    let tenant = server.tenant();
    let config = tenant.config(&Package::new());
    let draft = Draft::make(&tenant, &config, &json!({}));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let (tenant, base) = (&tenant, &draft.base);
        let calls: Vec<_> = (0..12)
            .map(|turn| {
                scope.spawn(move || {
                    let own = format!("{base}/files/resources/{turn}.txt");
                    tenant.editor.put(own).body("text/plain", "x").send().expect(201);
                    let shared = tenant.editor.put(format!("{base}/files/README.md"));
                    shared.body("text/plain", format!("{turn}")).header("If-None-Match", "*").send().status
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 412].contains(status)), "{statuses:?}");
    assert_eq!(draft.files().len(), 1 + 12 + 1);
    assert_eq!(draft.record()["revision"], 1 + 12 + 1);
    eventually("what lost is not kept", || blobs(&server, &tenant) == 13);
}

#[test]
fn a04_a_draft_has_only_files_that_a_package_can_have() {
    let server = shared();
    let tenant = server.tenant();
    let config = tenant.config(&Package::new());
    let draft = Draft::make(&tenant, &config, &json!({}));
    let deep = ["a"; 9].join("/");
    let long = "x".repeat(241);
    for path in [
        "..%2Fmanifest.json", "%2E%2E/x", "columns/%2E%2E/%2E%2E/x", "%2Fetc%2Fpasswd", "a%2F%2Fb", "a/", "%2E",
        "a%5Cb", "C:%2Fx", "a%00b", "a%0Ab", ".env", ".git/config", "columns/__pycache__/a.pyc", "./a",
    ] {
        let problem = draft.put(path, "x").send().problem(400, "package_invalid");
        assert_eq!(problem["package_error"], "package_entry_unsafe", "{path}");
    }
    for path in [deep.as_str(), &long] {
        let problem = draft.put(path, "x").send().problem(413, "package_too_large");
        assert_eq!(problem["package_error"], "package_too_large", "{path}");
    }
    draft.put("a%FFb", "x").send().problem(404, "not_found");
    for path in ["Manifest.JSON", "manifest.json/x"] {
        let problem = draft.put(path, "x").send().problem(400, "package_invalid");
        assert_eq!(problem["package_error"], "package_entry_conflict", "{path}");
    }
    let route = tenant.editor.put(draft.file("large.bin"));
    let open = route.stream(Some((32 << 20) + 1), std::io::empty());
    assert_eq!(open.finish().problem(413, "payload_too_large")["max_bytes"], 32 << 20);
    assert_eq!(draft.files().len(), 1);
    assert_eq!(draft.record()["revision"], 1);
    eventually("nothing is left of it", || blobs(&server, &tenant) == 0);
}

#[test]
fn files_of_a_draft_are_not_more_together_than_a_package_may_be() {
    let server = shared();
    let tenant = server.tenant();
    let draft = Draft::make(&tenant, &tenant.config(&Package::new()), &json!({"empty": true}));
    let half = vec![1; 32 << 20];
    draft.put("a.bin", &half).send().expect(201);
    draft.put("b.bin", &half).send().expect(201);
    let problem = draft.put("c.bin", "x").send().problem(413, "package_too_large");
    assert!(problem["detail"].as_str().unwrap().contains("64 MiB"), "{problem}");
    draft.put("a.bin", "small").send().expect(200);
    draft.put("c.bin", "x").send().expect(201);
    tenant.editor.delete(&draft.base).send().expect(204);
    eventually("nothing is left of it", || blobs(&server, &tenant) == 0);
}

#[test]
fn a_draft_that_is_no_package_yet_is_kept_said_and_not_published() {
    let server = shared();
    let tenant = server.tenant();
    let config = tenant.config(&Package::new());
    let draft = Draft::make(&tenant, &config, &json!({"empty": true}));
    assert_eq!(draft.record()["base_version_id"], Value::Null);
    let said = draft.validate();
    assert_eq!((&said["valid"], &said["diagnostics"][0]["code"]), (&json!(false), &json!("package_no_manifest")));
    let problem = draft.publish(&json!({})).problem(400, "package_invalid");
    assert_eq!(problem["package_error"], "package_no_manifest");
    let empty = tenant.viewer.get(format!("{}/download", draft.base)).send().expect(200);
    assert!(empty.body.starts_with(b"PK\x05\x06"), "a zip without entries");
    draft.put("manifest.json", "{").send().expect(201);
    assert_eq!(draft.validate()["diagnostics"][0]["code"], "manifest_syntax");
    assert!(draft.publish(&json!({})).problem(400, "package_invalid")["diagnostics"].is_array());
    for (path, content) in Package::new().entries() {
        draft.put(&path, content).send().expect(200);
    }
    // What v1 is already is no new version.
    assert_eq!(draft.publish(&json!({})).expect(200).json()["version"], "v1");
    let versions = tenant.viewer.get(tenant.path(&format!("/configs/{}/versions", config.config))).send().json();
    assert_eq!(ids(&versions, "version"), ["v1"]);
}

#[test]
fn a_draft_begins_with_any_version_of_the_workspace() {
    let server = shared();
    let tenant = server.tenant();
    let config = tenant.config(&Package::new());
    let other = tenant.config(&Package::new().file("resources/other.txt", "other"));
    let across = Draft::make(&tenant, &config, &json!({"config_version_id": other.version}));
    assert!(across.files().contains_key("resources/other.txt"));
    let version = across.publish(&json!({})).expect(201).json();
    assert_eq!((&version["config_id"], &version["version"]), (&json!(config.config), &json!("v2")));
    let clone = tenant.path(&format!("/configs/{}/versions/{}/clone", config.config, config.version));
    let cloned = tenant.editor.post(clone).send().expect(201).json();
    assert_eq!((&cloned["base_version_id"], &cloned["files"]), (&json!(config.version), &json!(1)));
    tenant
        .viewer
        .post(tenant.path(&format!("/configs/{}/drafts", config.config)))
        .json(&json!({}))
        .send()
        .problem(403, "forbidden");
    for (body, code, pointer) in [
        (json!({"config_version_id": other.version, "empty": true}), "invalid_body", "/empty"),
        (json!({"title": "x".repeat(256)}), "invalid_body", "/title"),
        (json!({"title": "nul \u{0}"}), "invalid_body", "/title"),
        (json!({"config_version_id": "v1"}), "invalid_body", "/config_version_id"),
        (json!({"files": []}), "unknown_field", "/files"),
    ] {
        assert_eq!(post(&tenant, &config, &body).problem(400, code)["errors"][0]["pointer"], pointer, "{body}");
    }
    tenant.owner.delete(tenant.path(&format!("/configs/{}", config.config))).send().expect(200);
    post(&tenant, &config, &json!({})).problem(409, "config_archived");
    across.publish(&json!({})).problem(409, "config_archived");
    across.put("README.md", "a draft of an archived config can be read and written").send().expect(201);
}

#[test]
fn a_workspace_has_no_more_drafts_than_the_setting_allows() {
    let server = Server::start(&["--max-drafts", "2"]);
    let (tenant, neighbour) = (server.tenant(), server.tenant());
    let config = tenant.config(&Package::new());
    let first = Draft::make(&tenant, &config, &json!({}));
    Draft::make(&tenant, &tenant.config(&Package::new()), &json!({}));
    let problem = post(&tenant, &config, &json!({})).problem(409, "too_many_drafts");
    assert_eq!(problem["max_drafts"], 2);
    Draft::make(&neighbour, &neighbour.config(&Package::new()), &json!({}));
    tenant.editor.delete(&first.base).send().expect(204);
    Draft::make(&tenant, &config, &json!({}));
}

#[test]
fn an_upload_that_breaks_off_changes_nothing_and_leaves_nothing() {
    let mut server = Server::start(&[]);
    let tenant = server.tenant();
    let config = tenant.config(&Package::new());
    let draft = Draft::make(&tenant, &config, &json!({}));
    let mut broken = tenant.editor.connect();
    let key = tenant.editor.key.as_deref().unwrap();
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 1000000\r\n\r\n",
        draft.file("a.txt")
    );
    broken.write_all(head.as_bytes()).unwrap();
    broken.write_all(&[1; 1000]).unwrap();
    eventually("it is being stored", || blobs(&server, &tenant) == 1);
    drop(broken);
    eventually("nothing is left of it", || blobs(&server, &tenant) == 0);
    assert_eq!((draft.files().len(), draft.record()["revision"].clone()), (1, json!(1)));
    draft.put("a.txt", "kept").send().expect(201);
    let base = draft.base.clone();
    server.restart(&[]);
    let api = Api { address: server.admin.address.clone(), key: tenant.editor.key.clone() };
    assert_eq!(api.get(format!("{base}/files/a.txt")).send().expect(200).body, b"kept");
    assert_eq!(blobs(&server, &tenant), 1);
}

#[test]
fn a_zip_of_a_draft_is_read_by_any_program() {
    let server = shared();
    let tenant = server.tenant();
    let draft = Draft::make(&tenant, &tenant.config(&Package::new()), &json!({}));
    draft.put("resources/stra%C3%9Fe%20%C3%BC.txt", "content").send().expect(201);
    let zip = tenant.viewer.get(format!("{}/download", draft.base)).send().expect(200);
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(zip.body)).unwrap();
    let mut text = String::new();
    archive.by_name("resources/straße ü.txt").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), archive.len()), ("content", 2));
}
