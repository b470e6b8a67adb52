//! What a job leaves, over HTTP.

use crate::schema;
use crate::support::Package;
use crate::support::http::Api;
use crate::support::server::{holds, shared};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Asserts that a download honours ranges and validators (RFC 9110, 13 and 14).
#[track_caller]
pub fn ranges(api: &Api, uri: &str, content: &[u8]) {
    let size = content.len();
    let whole = api.get(uri).send().expect(200);
    assert!(whole.body == content);
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let etag = whole.header("etag").unwrap().to_owned();
    let get = |range: &str| api.get(uri).header("Range", range);
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=2-5", 2, 6),
        ("bytes=-3", size - 3, size),
        (&format!("bytes={}-", size - 1), size - 1, size),
        ("bytes=1-99999999999999999999999", 1, size),
        ("bytes=-99999999999999999999999", 0, size),
    ] {
        let part = get(range).send().expect(206);
        assert!(part.body == content[from..to], "{range}");
        assert_eq!(part.header("content-range"), Some(format!("bytes {from}-{}/{size}", to - 1).as_str()), "{range}");
        assert_eq!(part.header("etag"), Some(etag.as_str()));
    }
    for range in [format!("bytes={size}-"), "bytes=99999999999999999999999-".into(), "bytes=-0".into()] {
        let answer = get(&range).send();
        answer.problem(416, "range_not_satisfiable");
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{size}").as_str()), "{range}");
    }
    for range in ["bytes=5-2", "bytes=x-", "rows=0-1", "bytes=0-1,3-4", "bytes", "bytes=-"] {
        assert!(get(range).send().expect(200).body == content, "{range}");
    }
    for tags in [etag.clone(), format!("W/{etag}"), "*".into(), format!("\"x\", {etag}")] {
        let answer = api.get(uri).header("If-None-Match", tags.clone()).send().expect(304);
        assert_eq!(answer.header("etag"), Some(etag.as_str()), "{tags}");
    }
    api.get(uri).header("If-None-Match", "\"other\"").send().expect(200);
    get("bytes=0-0").header("If-Range", etag.clone()).send().expect(206);
    assert!(get("bytes=0-0").header("If-Range", "\"other\"").send().expect(200).body == content);
    assert!(get("bytes=999999999-").header("If-Range", "\"other\"").send().expect(200).body == content);
    let head = api.call("HEAD", uri).send().expect(200);
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
}

#[test]
fn the_files_of_a_job_are_listed_with_sizes_and_hashes_that_are_true() {
    let server = shared();
    let tenant = server.tenant();
    let job = tenant.finished();
    let outputs = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/outputs"))).send().expect(200).json();
    schema::assert_valid("Outputs", &outputs);
    let files = outputs["items"].as_array().unwrap();
    let mut names: Vec<&str> = files.iter().map(|file| file["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["artifact.json", "events.ndjson", "normalized.xlsx", "run-request.json"]);
    for file in files {
        let answer = tenant.viewer.get(file["uri"].as_str().unwrap()).send().expect(200);
        if file["name"] != "events.ndjson" {
            assert_eq!(file["bytes"], answer.body.len(), "{file}");
            assert_eq!(file["sha256"], format!("{:x}", Sha256::digest(&answer.body)), "{file}");
        }
    }
    let output = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/output"))).send().expect(200);
    assert!(output.body.starts_with(b"PK"));
    assert!(output.header("content-disposition").unwrap().contains("filename=\"normalized.xlsx\""));
    ranges(&tenant.viewer, &tenant.path(&format!("/jobs/{job}/output")), &output.body);
    let artifact = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/artifact"))).send().expect(200);
    assert_eq!(artifact.header("content-type"), Some("application/json"));
    schema::assert_artifact(&artifact.json());
    assert_eq!(artifact.json()["job"]["job_id"], job);
    for name in ["passwd", "..%2F..%2Fdocuments", "events.ndjson", "packages.txt", "%00"] {
        tenant.viewer.get(tenant.path(&format!("/jobs/{job}/outputs/{name}"))).send().problem(404, "not_found");
    }
}

#[test]
fn a_run_request_names_what_ran_and_neither_a_path_of_the_host_nor_a_secret() {
    let server = shared();
    let tenant = server.tenant();
    let job = tenant.finished();
    let answer = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/run-request"))).send().expect(200);
    let (request, record): (Value, Value) = (answer.json(), tenant.record(&job));
    assert_eq!(request["schema"], "ade.run_request/v1");
    assert_eq!((&request["job_id"], &request["workspace_id"]), (&json!(job), &record["workspace_id"]));
    assert_eq!(request["inputs"][0]["document_id"], record["document_ids"][0]);
    assert_eq!(request["inputs"][0]["sha256"], record["documents"][0]["sha256"]);
    assert_eq!(record["network"], request["network"]);
    let everything = tenant.path("/jobs/");
    for route in ["run-request", "artifact", "events"] {
        let text = tenant.viewer.get(format!("{everything}{job}/{route}")).send().expect(200).text();
        for secret in [
            server.data().to_str().unwrap(),
            server.temporary().to_str().unwrap(),
            tenant.editor.key.as_ref().unwrap(),
            "docker.sock",
        ] {
            assert!(!text.contains(secret), "{secret} in {route}: {text}");
        }
    }
    let text = record.to_string();
    assert!(!text.contains(server.data().to_str().unwrap()), "{text}");
    assert!(holds(&server.data().join("blobs"), "ade.run_request/v1").is_some(), "the search finds what is there");
}

#[test]
fn a_job_without_outputs_has_a_list_of_what_there_is() {
    let server = shared();
    let tenant = server.tenant();
    tenant.pause(true);
    let job = tenant.job(&tenant.config(&Package::new()), &tenant.names());
    let outputs = || tenant.viewer.get(tenant.path(&format!("/jobs/{job}/outputs"))).send().expect(200).json();
    assert_eq!(outputs(), json!({"items": []}));
    tenant.editor.post(tenant.path(&format!("/jobs/{job}/cancel"))).send().expect(202);
    assert_eq!(outputs()["items"].as_array().unwrap().len(), 1);
    for route in ["output", "artifact", "run-request"] {
        tenant.viewer.get(tenant.path(&format!("/jobs/{job}/{route}"))).send().problem(404, "not_found");
    }
}
