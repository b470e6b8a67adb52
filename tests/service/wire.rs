//! Requests that are wrong, down to the bytes.

use crate::support::Package;
use crate::support::server::shared;
use serde_json::{Value, json};
use std::io::{Read, Write};

#[test]
fn a_body_that_is_wrong_is_refused_with_the_place() {
    let server = shared();
    let tenant = server.tenant();
    let post = |body: &[u8]| tenant.editor.post(tenant.path("/jobs")).body("application/json", body).send();
    for (body, place) in [
        (&b"{\n  \"document_ids\": [,]\n}"[..], "line 2 column 20"),
        (b"{", "line 1 column 1"),
        (b"", "line 1 column 0"),
        (b"{} x", "line 1 column 4"),
        (b"\xff\xfe{}", "line 1 column 1"),
        (b"{\"document_ids\": [\"\xff\"]}", "line 1 column"),
        (b"{\"metadata\": {\"x\": \"\\ud800\"}}", "line 1 column"),
        (b"{\"metadata\": {\"x\": 1e999}}", "line 1 column"),
    ] {
        let problem = post(body).problem(400, "malformed_json");
        assert!(problem["detail"].as_str().unwrap().contains(place), "{place}: {problem}");
    }
    for (body, code, pointer) in [
        (json!({"document_ids": "x"}), "invalid_body", "/document_ids"),
        (json!({"document_ids": [1]}), "invalid_body", "/document_ids/0"),
        (json!({"priority": 1.5}), "invalid_body", "/priority"),
        (json!({"priority": 1e30}), "invalid_body", "/priority"),
        (json!({"a/b~c": 1}), "unknown_field", "/a~1b~0c"),
        (json!([]), "invalid_body", ""),
        (json!([null, null, null, ["doc_00000000000000000000000000"]]), "invalid_body", ""),
        (json!("x"), "invalid_body", ""),
        (Value::Null, "invalid_body", ""),
    ] {
        let problem = post(body.to_string().as_bytes()).problem(400, code);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    post(b"{\"priority\": 1, \"priority\": 2}").problem(400, "invalid_body");
    for deep in ["[", "{\"metadata\":"] {
        assert_eq!(post(deep.repeat(50_000).as_bytes()).status, 400);
    }
    let problem = post(&vec![b' '; (1 << 20) + 1]).problem(413, "payload_too_large");
    assert_eq!(problem["max_bytes"], 1 << 20);
    let call = || tenant.editor.post(tenant.path("/jobs"));
    for wrong in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", "application/json/x"] {
        call().body(wrong, "{}").send().problem(415, "unsupported_media_type");
    }
    call().send().problem(415, "unsupported_media_type");
    call().body("Application/JSON; charset=utf-8", "{}").send().problem(400, "documents_required");
}

#[test]
fn what_is_not_there_is_a_problem_too() {
    let server = shared();
    let tenant = server.tenant();
    for path in [
        "/", "/api", "/api/v1", "/api/v1/", "/api/v2/whoami", "/api/v1/nothing", "//", "/api/v1/whoami/",
        "/..%2f..%2fetc/passwd", "/%00", "/%ff",
    ] {
        assert_eq!(server.admin.get(path).send().status, 404, "{path}");
    }
    for id in [
        "x",
        "job_x",
        "JOB_00000000000000000000000000",
        "%00",
        "%ff",
        "..",
        "job_0000000000000000000000000%00",
        &"x".repeat(5000),
    ] {
        assert_eq!(tenant.viewer.get(tenant.path(&format!("/jobs/{id}"))).send().status, 404, "{id}");
        assert_eq!(server.admin.get(format!("/api/v1/workspaces/{id}/jobs")).send().status, 404, "{id}");
    }
    for (method, path, allowed) in [
        ("DELETE", "/livez", "GET,HEAD"),
        ("POST", "/api/v1/whoami", "GET,HEAD"),
        ("TRACE", "/api/v1/whoami", "GET,HEAD"),
        ("PUT", &tenant.path("/jobs"), "GET,HEAD,POST"),
        ("BREW", &tenant.path("/documents"), "GET,HEAD,POST"),
    ] {
        let answer = tenant.owner.call(method, path).send();
        answer.problem(405, "method_not_allowed");
        let mut allow: Vec<&str> = answer.header("allow").unwrap().split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow.join(","), allowed, "{method} {path}");
    }
}

#[test]
fn a_callers_request_id_is_taken_over_when_it_is_plain() {
    let server = shared();
    let tenant = server.tenant();
    for path in ["/livez", "/nothing", "/api/v1/whoami", "/docs/", "/problems", "/openapi.json"] {
        let with = |id: &str| tenant.viewer.get(path).header("X-Request-ID", id).send();
        assert_eq!(with("mine-1.2_3").header("x-request-id"), Some("mine-1.2_3"), "{path}");
        for odd in ["", "a b", "<script>", &"x".repeat(65)] {
            assert_eq!(with(odd).header("x-request-id").map(str::len), Some(26), "{path}");
        }
        let (a, b) = (tenant.viewer.get(path).send(), tenant.viewer.get(path).send());
        assert_ne!(a.header("x-request-id"), b.header("x-request-id"));
    }
    let problem = server.admin.get("/nothing").header("X-Request-ID", "mine").send().problem(404, "not_found");
    assert_eq!(problem["request_id"], "mine");
    assert!(!server.log().contains("<script>"), "an id of a stranger's making is not logged");
}

#[test]
fn heads_that_are_too_large_or_badly_written_end_the_connection_and_nothing_else() {
    let server = shared();
    let key = server.admin.key.clone().unwrap();
    let get = |rest: &str| {
        server.admin.raw(format!("GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{rest}\r\n"))
    };
    assert!(get(&format!("X: {}\r\n", "y".repeat(40_000))).starts_with("HTTP/1.1 431"));
    assert!(get(&"X: y\r\n".repeat(150)).starts_with("HTTP/1.1 431"));
    for wrong in [
        "X y\r\n",
        "X : y\r\n",
        "X: a\0b\r\n",
        " X: y\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let answer = get(wrong);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{wrong:?} {answer}");
    }
    for wrong in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01",
        "GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = server.admin.raw([wrong.as_bytes(), b"\r\n\r\n"].concat());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{wrong:?} {answer}");
    }
    // A second request in what looks like the body of the first is a request of its own, with its own key.
    let smuggled = format!(
        "POST /api/v1/workspaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{{}}GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    let answer = server.admin.raw(smuggled);
    assert!(answer.contains("HTTP/1.1 400") && answer.contains("HTTP/1.1 401"), "{answer}");
    server.admin.get("/api/v1/whoami").send().expect(200);
}

#[test]
fn a_body_in_drops_is_taken_and_the_neighbours_are_answered_meanwhile() {
    let server = shared();
    let tenant = server.tenant();
    let key = tenant.editor.key.clone().unwrap();
    let mut slow = tenant.editor.connect();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\nContent-Type: text/csv\r\nContent-Length: 8\r\n\r\n",
        tenant.path("/documents?filename=slow.csv")
    );
    slow.write_all(head.as_bytes()).unwrap();
    for byte in b"Name\nAd\n" {
        slow.write_all(&[*byte]).unwrap();
        tenant.viewer.get("/api/v1/whoami").send().expect(200);
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[test]
fn text_with_nul_or_half_a_character_is_refused_on_both_databases_alike() {
    for server in [shared(), crate::support::server::shared_on_postgres()] {
        let tenant = server.tenant();
        let (config, document) = (tenant.config(&Package::new()), tenant.names());
        for hash in ["a\u{0}b", "\u{0}"] {
            let body = json!({"config_version_id": config.version, "document_id": document, "input_hash": hash});
            tenant.submit(&body).problem(400, "invalid_body");
        }
        tenant.pause(true);
        let body = json!({"config_version_id": config.version, "document_id": document, "metadata": {"nul": "\u{0}", "\u{0}": "ü\u{10ffff}"}});
        let made = tenant.submit(&body).expect(202).json();
        assert_eq!(made["metadata"], body["metadata"], "data of the caller comes back as it was");
        server.admin.patch(&tenant.base).json(&json!({"title": "\u{0}"})).send().problem(400, "invalid_body");
        server
            .admin
            .post("/api/v1/workspaces")
            .json(&json!({"slug": "fine", "title": "\u{0}"}))
            .send()
            .problem(400, "invalid_body");
        server.admin.get("/api/v1/workspaces/%00").send().problem(404, "workspace_not_found");
    }
}
