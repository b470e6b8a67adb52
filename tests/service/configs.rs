//! Registering packages.

use crate::schema;
use crate::support::http::form;
use crate::support::server::{eventually, ids, shared};
use crate::support::{Package, zips};
use serde_json::{Value, json};

#[test]
fn a_registered_package_is_a_config_with_its_first_version() {
    let server = shared();
    let tenant = server.tenant();
    let (content_type, body) = form(&[
        ("slug", None, b"rosters"),
        ("title", None, "Größe".as_bytes()),
        ("description", None, b"what it is for"),
        ("package", Some("x.zip"), &Package::new().zip()),
    ]);
    let answer = tenant.owner.post(tenant.path("/configs")).body(&content_type, &body).send().expect(201);
    let made = answer.json();
    schema::assert_valid("ConfigRecord", &made);
    assert_eq!(
        (&made["slug"], &made["title"], &made["description"]),
        (&json!("rosters"), &json!("Größe"), &json!("what it is for"))
    );
    let version = &made["latest_version"];
    assert_eq!((&version["version"], &version["manifest_version"]), (&json!("v1"), &json!("1.0.0")));
    let place = answer.header("location").unwrap();
    assert_eq!(tenant.viewer.get(place).send().expect(200).json(), made);
    let versions = tenant.viewer.get(format!("{place}/versions")).send().expect(200).json();
    assert_eq!(versions, json!({"items": [version], "next_cursor": null}));
    let listed = tenant.viewer.get(tenant.path("/configs")).send().expect(200).json();
    assert_eq!(listed["items"], json!([made]));

    let taken = tenant.register("rosters", &Package::new().zip());
    assert_eq!(taken.problem(409, "slug_taken")["errors"][0]["pointer"], "/slug");
    let neighbour = server.tenant();
    neighbour.register("rosters", &Package::new().zip()).expect(201);
    assert_eq!(ids(&tenant.viewer.get(tenant.path("/configs")).send().json(), "config_id").len(), 1);
}

#[test]
fn a_package_that_cannot_be_read_or_used_is_refused_with_the_reason() {
    let server = shared();
    let tenant = server.tenant();
    let refused = |zip: &[u8]| tenant.register("bad", zip);
    for (zip, code) in [
        (b"this is no zip".to_vec(), "not_a_zip"),
        (Vec::new(), "not_a_zip"),
        (zips::archive(&[zips::Entry::file("../manifest.json", "{}")]), "path"),
        (zips::archive(&[zips::Entry::file("readme.txt", "no manifest")]), "manifest"),
    ] {
        let problem = refused(&zip).problem(400, "package_invalid");
        let shown = problem.to_string();
        assert!(
            shown.contains(code) || !problem["package_error"].is_null() || problem.get("diagnostics").is_some(),
            "{code}: {shown}"
        );
        assert!(!shown.contains(server.temporary().to_str().unwrap()), "no path of this machine: {shown}");
    }
    let broken = Package::new().manifest(json!({"colums": {}, "info": {"version": 3}}));
    let problem = refused(&broken.zip()).problem(400, "package_invalid");
    let diagnostics = problem["diagnostics"].as_array().unwrap();
    assert!(diagnostics.len() >= 2, "{problem:#}");
    for diagnostic in diagnostics {
        for member in ["level", "code", "message"] {
            assert!(diagnostic[member].is_string(), "{member} in {diagnostic}");
        }
    }
    let bomb = zips::archive(&[
        zips::Entry::file("manifest.json", "{}"),
        zips::Entry::padded("resources/big.txt", b"", 200 << 20, b""),
    ]);
    let status = refused(&bomb).status;
    assert!(status == 413 || status == 400, "{status}");
    // The service is shared with tests that run at the same time and have files of their own there for a while.
    for left in std::fs::read_dir(server.temporary()).unwrap().flatten() {
        eventually("nothing stays in the temporary folder", || !left.path().exists());
    }
    assert!(tenant.viewer.get(tenant.path("/configs")).send().json()["items"].as_array().unwrap().is_empty());
}

/// Name, file name, content.
type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);

#[test]
fn a_form_that_is_not_as_described_is_refused_with_the_part() {
    let server = shared();
    let tenant = server.tenant();
    let zip = Package::new().zip();
    let package = ("package", Some("x.zip"), zip.as_slice());
    let slug = ("slug", None, b"fine".as_slice());
    let long = "x".repeat(256);
    let cases: Vec<(Vec<Part<'_>>, &str, &str)> = vec![
        (vec![slug], "invalid_body", "/package"),
        (vec![package], "invalid_body", "/slug"),
        (vec![slug, package, ("image", None, b"evil")], "unknown_field", "/image"),
        (vec![("slug", None, b"UPPER"), package], "invalid_body", "/slug"),
        (vec![("slug", None, b""), package], "invalid_body", "/slug"),
        (vec![("slug", None, b"../x"), package], "invalid_body", "/slug"),
        (vec![slug, slug, package], "invalid_body", "/slug"),
        (vec![slug, ("title", None, long.as_bytes()), package], "invalid_body", "/title"),
        (vec![slug, ("title", None, b"\xff\xfe"), package], "invalid_body", "/title"),
        (vec![slug, ("title", None, b"nul \0"), package], "invalid_body", "/title"),
        (vec![slug, ("description", None, b"nul \0"), package], "invalid_body", "/description"),
    ];
    for (parts, code, pointer) in cases {
        let (content_type, body) = form(&parts);
        let answer = tenant.owner.post(tenant.path("/configs")).body(&content_type, body).send();
        assert_eq!(answer.problem(400, code)["errors"][0]["pointer"], pointer);
    }
    let post = || tenant.owner.post(tenant.path("/configs"));
    post().json(&json!({"slug": "x"})).send().problem(415, "unsupported_media_type");
    post().send().problem(415, "unsupported_media_type");
    post().body("multipart/form-data", b"x").send().problem(400, "invalid_body");
    let (content_type, body) = form(&[slug, package]);
    post().body(&content_type, &body[..body.len() / 2]).send().problem(400, "invalid_body");
}

#[test]
fn a_package_of_several_megabytes_is_taken() {
    let server = shared();
    let tenant = server.tenant();
    // Bytes that do not compress.
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(6 << 20)
    .collect();
    tenant.register("large", &Package::new().file("resources/noise.bin", noise).zip()).expect(201);
}

#[test]
fn no_more_jobs_of_a_config_run_at_once_than_its_bound() {
    let server = shared();
    let tenant = server.tenant();
    let (bounded, free, document) =
        (tenant.config(&Package::attacking("time.sleep(120)")), tenant.config(&Package::new()), tenant.names());
    let route = tenant.path(&format!("/configs/{}/concurrency", bounded.config));
    for wrong in [json!({"max_running": 0}), json!({"max_running": 10_001}), json!({"max_running": "2"})] {
        assert_eq!(
            tenant.admin.put(&route).json(&wrong).send().problem(400, "invalid_body")["errors"][0]["pointer"],
            "/max_running"
        );
    }
    let set = tenant.admin.put(&route).json(&json!({"max_running": 1})).send().expect(200).json();
    assert_eq!(set["max_running"], 1);
    let jobs: Vec<String> = ["a", "b", "c"]
        .iter()
        .map(|hash| {
            let body = json!({"config_version_id": bounded.version, "document_id": document, "input_hash": hash});
            tenant.submit(&body).expect(202).json()["job_id"].as_str().unwrap().to_owned()
        })
        .collect();
    tenant.running(&jobs[0]);
    // Another config of the workspace is not held up by those that wait.
    assert_eq!(tenant.end(&tenant.job(&free, &document))["status"], "succeeded");
    assert_eq!(tenant.record(&jobs[1])["status"], "queued");
    tenant.editor.post(tenant.path(&format!("/jobs/{}/cancel", jobs[0]))).send().expect(202);
    tenant.running(&jobs[1]);
    assert_eq!(tenant.record(&jobs[2])["status"], "queued");
    tenant.admin.put(&route).json(&json!({"max_running": null})).send().expect(200);
    tenant.running(&jobs[2]);
    for job in &jobs[1..] {
        tenant.editor.post(tenant.path(&format!("/jobs/{job}/cancel"))).send().expect(202);
    }
    eventually("all are cancelled", || jobs.iter().all(|job| tenant.record(job)["status"] == "cancelled"));
}

#[test]
fn the_newest_package_comes_first_and_pages_have_all_of_them_once() {
    let server = shared();
    let tenant = server.tenant();
    let made: Vec<String> = (0..5).map(|_| tenant.config(&Package::new()).config).collect();
    let mut seen = Vec::new();
    let mut next = tenant.path("/configs?limit=2");
    loop {
        let page: Value = tenant.viewer.get(&next).send().expect(200).json();
        seen.extend(ids(&page, "config_id"));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        next = tenant.path(&format!("/configs?limit=2&cursor={cursor}"));
    }
    seen.reverse();
    assert_eq!(seen, made);
}
