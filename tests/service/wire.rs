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
fn a_head_over_the_bounds_is_a_problem_and_has_the_callers_request_id() {
    let server = shared();
    let get = |rest: &str| format!("GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\n{rest}\r\n");
    let over = |more: usize| get(&format!("X: {}\r\n", "y".repeat(32 * 1024 - get("X: \r\n").len() + more)));
    let last = get("Connection: close\r\n");
    let uri = format!("GET /{} HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\n\r\n", "y".repeat(40_000));
    for wrong in [over(1), over(90_000), get(&"X: y\r\n".repeat(150)), uri] {
        // The connection goes on.
        let answers = server.admin.anonymous().answers(wrong + &over(0) + &last);
        let [refused, whole, next] = answers.as_slice() else { panic!("{answers:?}") };
        let problem = refused.problem(431, "header_too_large");
        assert_eq!(problem["request_id"], "mine");
        assert_eq!((&problem["max_bytes"], &problem["max_headers"]), (&json!(32 * 1024), &json!(100)));
        whole.problem(401, "unauthorized");
        next.problem(401, "unauthorized");
    }
}

/// Heads that no parser takes, each with the code of what is wrong.
fn unreadable() -> Vec<(Vec<u8>, u16, &'static str)> {
    let get = |rest: &str| format!("GET /livez HTTP/1.1\r\nHost: x\r\n{rest}\r\n").into_bytes();
    let line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n").into_bytes();
    let bad = |bytes: Vec<u8>| (bytes, 400, "bad_request");
    let large = |bytes: Vec<u8>| (bytes, 431, "header_too_large");
    vec![
        bad(line("G@T /livez HTTP/1.1")),
        bad(line("GET")),
        bad(line(" GET /livez HTTP/1.1")),
        bad(line("GET /li vez HTTP/1.1")),
        bad(line("GET /\0 HTTP/1.1")),
        bad(line("GET http://[ HTTP/1.1")),
        bad(line("GET /livez HTTP/9.9")),
        bad(line("GET /livez HTTP/2.0")),
        bad(line("GET /livez http/1.1")),
        bad(line("GET /livez")),
        bad(line("HEAD /livez HTTP/3")),
        bad(b"\0\0\0\0\r\n\r\n".to_vec()),
        // A client that begins with TLS.
        bad(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec()),
        bad(get("X y\r\n")),
        bad(get("X : y\r\n")),
        bad(get("X: a\0b\r\n")),
        bad(get("X: a\rb\r\n")),
        bad(get(" X: y\r\n")),
        bad(get("X: y\r\n folded\r\n")),
        bad(get(": y\r\n")),
        bad(get("Content-Length: x\r\n")),
        bad(get("Content-Length: -1\r\n")),
        bad(get("Content-Length: 1\r\nContent-Length: 2\r\n")),
        bad(get("Content-Length: 99999999999999999999999\r\n")),
        bad(get("Transfer-Encoding: gzip\r\n")),
        bad(get("Transfer-Encoding: chunked, gzip\r\n")),
        bad(b"GET /livez HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
        large(get(&"X: y\r\n".repeat(500))),
        large(get(&format!("X: {}\r\n", "y".repeat(140_000)))),
        large(format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}", "y".repeat(400_000)).into_bytes()),
        large(line(&format!("GET /{} HTTP/1.1", "y".repeat(70_000)))),
        large(line(&format!("GET /{} HTTP/1.1", "y".repeat(200_000)))),
        large(vec![b'A'; 300_000]),
    ]
}

#[test]
fn what_is_no_request_is_a_problem_too_and_ends_the_connection_and_nothing_else() {
    let server = shared();
    let api = server.admin.anonymous();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    let refused = |answer: &crate::support::http::Answer, status, code, bytes: &[u8]| {
        assert_eq!(answer.status, status, "{:?}: {answer}", shown(bytes));
        answer.problem(status, code);
        assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
        assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")), "{answer:?}");
        answer.header("x-request-id").expect("an id").to_owned()
    };
    let mut ids = std::collections::BTreeSet::new();
    let unreadable = unreadable();
    for (bytes, status, code) in &unreadable {
        let answers = api.answers(bytes);
        let [answer] = answers.as_slice() else { panic!("{:?}: {answers:?}", shown(bytes)) };
        ids.insert(refused(answer, *status, code, bytes));
        // What a request before it is answered comes first and whole, whether or not the client waits for it.
        for good in ["GET /livez HTTP/1.1", "HEAD /livez HTTP/1.1", "GET /livez HTTP/1.0"] {
            let good = format!("{good}\r\nHost: x\r\nConnection: keep-alive\r\n\r\n");
            let mut stream = api.connect();
            stream.write_all(good.as_bytes()).unwrap();
            let mut head = vec![0; 12];
            stream.read_exact(&mut head).unwrap();
            stream.write_all(bytes).ok();
            let mut text = head;
            stream.read_to_end(&mut text).ok();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(text.contains(" 200 OK\r\n") && text.contains(code), "{:?} after {good:?}: {text}", shown(bytes));
            let pipelined = api.raw([good.as_bytes(), bytes].concat());
            assert!(
                pipelined.contains(" 200 OK\r\n") && pipelined.contains(code),
                "{:?} right after {good:?}: {pipelined}",
                shown(bytes)
            );
            assert_eq!(
                pipelined.matches("HTTP/1.").count(),
                2 + pipelined.matches("HTTP/1.1\"").count(),
                "{pipelined}"
            );
        }
        let good = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
        let answers = api.answers([good.repeat(3).as_bytes(), bytes].concat());
        assert_eq!(answers.len(), 4, "{:?}: {answers:?}", shown(bytes));
        assert!(answers[..3].iter().all(|answer| answer.status == 200), "{answers:?}");
        ids.insert(refused(&answers[3], *status, code, bytes));
    }
    assert_eq!(ids.len(), 2 * unreadable.len(), "every answer has an id of its own");
    let answers = api.answers("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    refused(&answers[0], 400, "bad_request", b"PRI");
    // What ends before it is a head is not answered.
    for part in ["GET /livez", "GET /livez HTTP/1.1", "GET /livez HTTP/1.1\r\nHost: x\r\n", ""] {
        let mut stream = api.connect();
        stream.write_all(part.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "", "{part:?}");
    }
    let metrics = server.admin.get("/metrics").send().expect(200).text();
    let line = "ade_http_requests_total{method=\"GET\",route=\"unmatched\",status_class=\"4xx\"} ";
    let count = metrics.lines().find_map(|known| known.strip_prefix(line)).expect("they are counted");
    assert!(count.parse::<usize>().unwrap() >= 2 * unreadable.len(), "{count}");
    server.admin.get("/api/v1/whoami").send().expect(200);
}

#[test]
fn a_request_in_what_looks_like_the_body_of_another_is_one_of_its_own() {
    let server = shared();
    let key = server.admin.key.clone().unwrap();
    let smuggled = format!(
        "POST /api/v1/workspaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{{}}GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    let answer = server.admin.raw(smuggled);
    assert!(answer.contains("HTTP/1.1 400") && answer.contains("HTTP/1.1 401"), "{answer}");
    // Both a length and chunks: the chunks count, and the connection ends after it (RFC 9112, 6.3).
    let both = "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answers = server.admin.answers([both, both].concat());
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers[0].problem(404, "not_found");
}

#[test]
fn a_file_that_ends_like_an_answer_of_the_servers_own_comes_whole() {
    let server = shared();
    let tenant = server.tenant();
    let own = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
    let content = format!("Name\r\n{own}");
    let made = tenant.editor.post(tenant.path("/documents?filename=a.csv")).body("text/csv", &content).send();
    let id = made.expect(201).json()["document_id"].as_str().unwrap().to_owned();
    let key = tenant.editor.key.clone().unwrap();
    let path = tenant.path(&format!("/documents/{id}/download"));
    for end in ["Connection: close\r\n\r\n", "\r\nGET /livez HTTP/1.1\r\nConnection: close\r\n\r\n", "\r\n?\r\n\r\n"] {
        let text = server.admin.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{end}"));
        assert!(text.contains(&content), "{end:?}: {text}");
    }
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
