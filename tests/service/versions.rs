//! Versions over HTTP: published, exported, archived, activated and taken back, and what is remembered of it.

use crate::schema;
use crate::support::http::{Answer, form};
use crate::support::server::{Registered, Server, Tenant, eventually, ids, shared, shared_on_postgres};
use crate::support::{Docker, Package, zips};
use serde_json::{Value, json};

fn of(tenant: &Tenant, config: &Registered, rest: &str) -> String {
    tenant.path(&format!("/configs/{}{rest}", config.config))
}

fn version(tenant: &Tenant, config: &Registered, version: &Value, rest: &str) -> String {
    of(tenant, config, &format!("/versions/{}{rest}", version["config_version_id"].as_str().unwrap()))
}

fn publish(tenant: &Tenant, config: &Registered, zip: &[u8]) -> Answer {
    let (content_type, body) = form(&[("package", Some("package.zip"), zip)]);
    tenant.editor.post(of(tenant, config, "/versions")).body(&content_type, body).send()
}

fn titled(title: &str) -> Package {
    Package::new().manifest(json!({"info": {"title": title}}))
}

fn versions(tenant: &Tenant, config: &Registered) -> Vec<Value> {
    let page = tenant.viewer.get(of(tenant, config, "/versions")).send().expect(200).json();
    page["items"].as_array().unwrap().clone()
}

#[test]
fn a_published_package_is_the_next_version_and_the_same_one_makes_no_twin() {
    for server in [shared(), shared_on_postgres()] {
        let tenant = server.tenant();
        let config = tenant.config(&titled("one"));
        let answer = publish(&tenant, &config, &titled("two").zip()).expect(201);
        let second = answer.json();
        schema::assert_valid("VersionRecord", &second);
        assert_eq!((&second["version"], &second["active"]), (&json!("v2"), &json!(false)));
        assert_eq!(second["author"], "the editor");
        assert_eq!(tenant.viewer.get(answer.header("location").unwrap()).send().expect(200).json(), second);
        // Packed otherwise, it is the same package.
        let mut entries: Vec<_> = titled("two").entries().into_iter().collect();
        entries.push((".DS_Store".into(), b"left out".to_vec()));
        let entries: Vec<_> = entries.iter().rev().map(|(path, bytes)| zips::Entry::file(path, bytes)).collect();
        let again = publish(&tenant, &config, &zips::archive(&entries)).expect(200);
        assert_eq!((again.json(), again.header("location")), (second.clone(), answer.header("location")));
        let third = publish(&tenant, &config, &titled("one").zip()).expect(201).json();
        assert_eq!(third["version"], "v3");
        assert_eq!(ids(&json!({"items": versions(&tenant, &config)}), "version"), ["v3", "v2", "v1"]);
        let record = tenant.viewer.get(of(&tenant, &config, "")).send().expect(200).json();
        assert_eq!(record["latest_version"], third);

        publish(&tenant, &config, b"no zip").problem(400, "package_invalid");
        let broken = Package::new().manifest(json!({"colums": {}}));
        let problem = publish(&tenant, &config, &broken.zip()).problem(400, "package_invalid");
        assert_eq!(problem["diagnostics"][0]["code"], "unknown_key");
        let (content_type, body) = form(&[("slug", None, b"x"), ("package", Some("p.zip"), &Package::new().zip())]);
        let unknown = tenant.editor.post(of(&tenant, &config, "/versions")).body(&content_type, body).send();
        assert_eq!(unknown.problem(400, "unknown_field")["errors"][0]["pointer"], "/slug");
        assert_eq!(versions(&tenant, &config).len(), 3, "what was refused is no version");
    }
}

#[test]
fn an_exported_version_is_the_same_package_wherever_it_is_imported() {
    let server = shared();
    let (tenant, neighbour) = (server.tenant(), server.tenant());
    let package = Package::new().column("email", "# code\n").file("resources/straße ü.csv", b"a,b\n\0".as_slice());
    let config = tenant.config(&package);
    let first = versions(&tenant, &config).remove(0);
    let export = version(&tenant, &config, &first, "/export");
    let answer = tenant.viewer.get(&export).send().expect(200);
    assert_eq!(answer.header("content-type"), Some("application/zip"));
    assert!(answer.header("content-disposition").unwrap().contains("-v1.zip"));
    let sha256 = ade::blob::Digest::of_bytes(&answer.body).to_string();
    assert_eq!(json!(sha256), first["package_sha256"], "the zip is what the hash is of");
    assert_eq!(json!(answer.body.len()), first["package_bytes"]);
    let part = tenant.viewer.get(&export).header("Range", "bytes=0-3").send().expect(206);
    assert_eq!(part.body, b"PK\x03\x04");
    let known = tenant.viewer.get(&export).header("If-None-Match", answer.header("etag").unwrap());
    known.send().expect(304);

    let imported = neighbour.register("imported", &answer.body).expect(201).json();
    assert_eq!(imported["latest_version"]["package_sha256"], first["package_sha256"]);
    assert_eq!(imported["latest_version"]["manifest_sha256"], first["manifest_sha256"]);
    let other = tenant.config(&titled("another"));
    let published = publish(&tenant, &other, &answer.body).expect(201).json();
    assert_eq!(published["package_sha256"], first["package_sha256"]);
    let again = tenant.viewer.get(version(&tenant, &other, &published, "/export")).send().expect(200);
    assert_eq!(again.body, answer.body);
}

#[test]
fn a_package_as_large_as_may_be_runs_and_goes_from_export_to_import() {
    let server = shared();
    let tenant = server.tenant();
    let half = vec![7; (32 << 20) - (1 << 16)];
    let package = Package::new().file("resources/a.bin", &half).file("resources/b.bin", &half);
    let config = tenant.config(&package);
    let job = tenant.job(&config, &tenant.names());
    assert_eq!(tenant.end(&job)["status"], "succeeded");
    let first = versions(&tenant, &config).remove(0);
    let zip = tenant.viewer.get(version(&tenant, &config, &first, "/export")).send().expect(200).body;
    let imported = tenant.register("imported", &zip).expect(201).json();
    assert_eq!(imported["latest_version"]["package_sha256"], first["package_sha256"]);
}

#[test]
fn what_is_archived_takes_no_jobs_and_comes_back_as_it_was() {
    let server = shared();
    let tenant = server.tenant();
    let config = tenant.config(&titled("one"));
    let second = publish(&tenant, &config, &titled("two").zip()).expect(201).json();
    let document = tenant.names();
    let archive = version(&tenant, &config, &second, "/archive");
    tenant.editor.post(&archive).send().problem(403, "forbidden");
    let archived = tenant.owner.post(&archive).send().expect(200).json();
    schema::assert_valid("VersionRecord", &archived);
    assert!(archived["archived_at"].is_string());
    let by_version = json!({"config_version_id": second["config_version_id"], "document_id": document});
    tenant.submit(&by_version).problem(409, "config_archived");
    tenant.owner.post(version(&tenant, &config, &second, "/activate")).send().problem(409, "config_archived");
    // Who names the config gets its newest that may run.
    let by_config = json!({"config_id": config.config, "document_id": document});
    let job = tenant.submit(&by_config).expect(202).json();
    assert_eq!(job["config_version"]["version"], "v1");
    let job = tenant.end(job["job_id"].as_str().unwrap());
    assert_eq!(job["status"], "succeeded", "{job:#}");

    let archived = tenant.owner.delete(of(&tenant, &config, "")).send().expect(200).json();
    schema::assert_valid("ConfigRecord", &archived);
    assert!(archived["archived_at"].is_string());
    let other = tenant.document("other.csv", "Name\nBob\n");
    tenant.submit(&json!({"config_id": config.config, "document_id": other})).problem(409, "config_archived");
    let retry = tenant.path(&format!("/jobs/{}/retry", job["job_id"].as_str().unwrap()));
    tenant.editor.post(retry).send().problem(409, "config_archived");
    publish(&tenant, &config, &titled("three").zip()).problem(409, "config_archived");
    let slug = archived["slug"].as_str().unwrap();
    let taken = tenant.register(slug, &Package::new().zip()).problem(409, "slug_taken");
    assert!(taken["detail"].as_str().unwrap().contains("archived"), "{taken}");
    assert_eq!(tenant.owner.delete(of(&tenant, &config, "")).send().expect(200).json(), archived);

    let restored = tenant.owner.post(of(&tenant, &config, "/restore")).send().expect(200).json();
    assert_eq!(restored["archived_at"], Value::Null);
    tenant.owner.post(version(&tenant, &config, &second, "/restore")).send().expect(200);
    let job = tenant.submit(&by_version).expect(202).json();
    assert_eq!(tenant.end(job["job_id"].as_str().unwrap())["status"], "succeeded");
}

#[test]
fn a_job_that_waits_goes_on_when_its_config_is_archived() {
    let server = shared();
    let tenant = server.tenant();
    tenant.pause(true);
    let config = tenant.config(&Package::new());
    let job = tenant.job(&config, &tenant.names());
    tenant.owner.delete(of(&tenant, &config, "")).send().expect(200);
    tenant.pause(false);
    assert_eq!(tenant.end(&job)["status"], "succeeded");
}

#[test]
fn the_active_version_is_archived_only_after_it_was_taken_back_and_all_of_it_is_history() {
    let server = shared();
    let tenant = server.tenant();
    let config = tenant.config(&titled("one"));
    let first = versions(&tenant, &config).remove(0);
    let deactivate = version(&tenant, &config, &first, "/deactivate");
    tenant.owner.post(&deactivate).send().problem(409, "version_not_active");
    tenant.owner.post(version(&tenant, &config, &first, "/activate")).send().expect(200);
    let active = tenant.viewer.get(version(&tenant, &config, &first, "")).send().expect(200).json();
    assert!(active["active"] == true && active["active_since"].is_string(), "{active:#}");
    let refused = tenant.owner.post(version(&tenant, &config, &first, "/archive")).send();
    let problem = refused.problem(409, "version_active");
    assert_eq!(problem["config_version_id"], first["config_version_id"]);
    assert!(problem["detail"].as_str().unwrap().contains("deactivate"), "it says the way out: {problem}");
    tenant.owner.delete(of(&tenant, &config, "")).send().problem(409, "version_active");

    let second = publish(&tenant, &config, &titled("two").zip()).expect(201).json();
    tenant.owner.post(version(&tenant, &config, &second, "/activate")).send().expect(200);
    tenant.owner.post(version(&tenant, &config, &first, "/archive")).send().expect(200);
    tenant.editor.post(version(&tenant, &config, &second, "/deactivate")).send().problem(403, "forbidden");
    let back = tenant.owner.post(version(&tenant, &config, &second, "/deactivate")).send().expect(200).json();
    assert_eq!((&back["active"], &back["active_since"]), (&json!(false), &Value::Null));
    tenant.submit(&json!({"document_id": tenant.names()})).problem(400, "no_active_config");
    tenant.owner.delete(of(&tenant, &config, "")).send().expect(200);

    let route = of(&tenant, &config, "/history");
    let history = tenant.viewer.get(&route).send().expect(200).json();
    let entries = history["items"].as_array().unwrap();
    entries.iter().for_each(|entry| schema::assert_valid("HistoryRecord", entry));
    let (one, two) = (&first["config_version_id"], &second["config_version_id"]);
    let told: Vec<(&str, &Value, &Value, &str)> = entries
        .iter()
        .rev()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap();
            (text("action"), &entry["config_version_id"], &entry["previous_version_id"], text("key_name"))
        })
        .collect();
    let none = &Value::Null;
    assert_eq!(
        told,
        [
            ("config.create", one, none, "the owner"),
            ("config.activate", one, none, "the owner"),
            ("version.publish", two, none, "the editor"),
            ("config.activate", two, one, "the owner"),
            ("version.archive", one, none, "the owner"),
            ("config.deactivate", two, none, "the owner"),
            ("config.archive", none, none, "the owner"),
        ]
    );
    let page = tenant.viewer.get(format!("{route}?limit=4")).send().expect(200).json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = tenant.viewer.get(format!("{route}?limit=4&cursor={cursor}")).send().expect(200).json();
    assert_eq!([ids(&page, "audit_id"), ids(&rest, "audit_id")].concat(), ids(&history, "audit_id"));
    let audit = tenant.owner.get(tenant.path(&format!("/audit?target_id={}", config.config))).send().expect(200).json();
    assert_eq!(ids(&audit, "audit_id"), ids(&history, "audit_id"), "the audit has the same, and more of it");
}

#[test]
fn a_version_and_a_draft_are_found_under_their_own_config_only() {
    let server = shared();
    let tenant = server.tenant();
    let (config, other) = (tenant.config(&titled("one")), tenant.config(&titled("two")));
    let theirs = versions(&tenant, &other).remove(0);
    for route in ["", "/export"] {
        let get = tenant.viewer.get(version(&tenant, &config, &theirs, route)).send();
        get.problem(404, "version_not_found");
    }
    for route in ["activate", "deactivate", "archive", "restore", "clone"] {
        let post = tenant.owner.post(version(&tenant, &config, &theirs, &format!("/{route}"))).send();
        post.problem(404, "version_not_found");
    }
    let made = tenant.editor.post(of(&tenant, &other, "/drafts")).json(&json!({})).send().expect(201).json();
    let draft = of(&tenant, &config, &format!("/drafts/{}", made["draft_id"].as_str().unwrap()));
    for route in ["", "/files", "/files/manifest.json", "/download"] {
        tenant.viewer.get(format!("{draft}{route}")).send().problem(404, "draft_not_found");
    }
    tenant.editor.delete(&draft).send().problem(404, "draft_not_found");
    let put = tenant.editor.put(format!("{draft}/files/manifest.json")).body("text/plain", "x").send();
    put.problem(404, "draft_not_found");
    for route in ["validate", "publish"] {
        let post = tenant.editor.post(format!("{draft}/{route}")).json(&json!({})).send();
        post.problem(404, "draft_not_found");
    }
}

#[test]
fn validating_says_all_of_it_and_keeps_nothing() {
    let server = shared();
    let tenant = server.tenant();
    let validate = |zip: &[u8]| {
        let (content_type, body) = form(&[("package", Some("p.zip"), zip)]);
        let answer = tenant.editor.post(tenant.path("/configs/validate")).body(&content_type, body).send();
        let record = answer.expect(200).json();
        schema::assert_valid("ValidationRecord", &record);
        record
    };
    let good = validate(&Package::new().zip());
    assert_eq!((&good["valid"], &good["errors"], &good["dry_run"]), (&json!(true), &json!(0), &json!(true)));
    let config = tenant.config(&Package::new());
    assert_eq!(good["package_sha256"], versions(&tenant, &config)[0]["package_sha256"]);
    let broken = Package::new().manifest(json!({"colums": {}, "info": {"version": 3}}));
    let bad = validate(&broken.file("requirements.txt", "https://example.com/x.whl\n").zip());
    assert_eq!((&bad["valid"], &bad["dry_run"]), (&json!(false), &json!(false)));
    let codes: Vec<&str> =
        bad["diagnostics"].as_array().unwrap().iter().map(|said| said["code"].as_str().unwrap()).collect();
    assert!(["unknown_key", "wrong_type", "requirement_source"].iter().all(|code| codes.contains(code)), "{codes:?}");
    for (zip, code) in [
        (b"no zip".to_vec(), "package_not_a_zip"),
        (zips::archive(&[zips::Entry::file("a.txt", "no manifest")]), "package_no_manifest"),
        (zips::archive(&[zips::Entry::file("../manifest.json", "{}")]), "package_entry_unsafe"),
    ] {
        let none = validate(&zip);
        assert_eq!((&none["valid"], &none["package_sha256"]), (&json!(false), &Value::Null));
        assert_eq!(none["diagnostics"][0]["code"], code);
        assert!(!none.to_string().contains(server.temporary().to_str().unwrap()), "no path of this machine: {none}");
    }
    assert_eq!(versions(&tenant, &config).len(), 1);
}

/// What only an import or a call can show, for a package that is sent and for a draft of it.
#[test]
fn validating_tries_scripts_out_in_a_container_and_leaves_none() {
    let server = Server::start(&["--pool-max", "0"]);
    let tenant = server.tenant();
    let raises = Package::new().hook("on_job_start", "import no_such_module\ndef run(**_):\n    pass\n");
    let (content_type, body) = form(&[("package", Some("p.zip"), &raises.zip())]);
    let validate = || {
        let answer = tenant.editor.post(tenant.path("/configs/validate")).body(&content_type, &body).send();
        answer.expect(200).json()
    };
    let said = validate();
    assert_eq!((&said["valid"], &said["dry_run"]), (&json!(false), &json!(true)), "{said:#}");
    let first = &said["diagnostics"][0];
    assert_eq!((&first["code"], &first["level"]), (&json!("script_import_failed"), &json!("error")), "{said:#}");
    assert_eq!((&first["path"], &first["line"]), (&json!("hooks/on_job_start.py"), &json!(1)), "{said:#}");
    let config = tenant.config(&raises);
    let made = tenant.editor.post(of(&tenant, &config, "/drafts")).json(&json!({})).send().expect(201).json();
    let draft = of(&tenant, &config, &format!("/drafts/{}/validate", made["draft_id"].as_str().unwrap()));
    let drafted = tenant.editor.post(&draft).send().expect(200).json();
    assert_eq!((&drafted["diagnostics"], &drafted["revision"]), (&said["diagnostics"], &made["revision"]));

    // Without scripts there is still an answer.
    server.admin.put("/api/v1/system/safe-mode").json(&json!({"enabled": true})).send().expect(200);
    let skipped = validate();
    server.admin.put("/api/v1/system/safe-mode").json(&json!({"enabled": false})).send().expect(200);
    assert_eq!((&skipped["valid"], &skipped["dry_run"]), (&json!(true), &json!(false)), "{skipped:#}");
    assert_eq!(skipped["diagnostics"][0]["code"], "dry_run_skipped");
    let instance = server.status()["instance_id"].as_str().unwrap().to_owned();
    eventually("no container is left", || Docker::connect().containers_of_instance(&instance).is_empty());
}
