//! Uploading and downloading.

use crate::schema;
use crate::support::Package;
use crate::support::http::form;
use crate::support::server::{Server, Tenant, eventually, ids, shared};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn upload(tenant: &Tenant, query: &str, content: &[u8]) -> crate::support::http::Answer {
    tenant.editor.post(tenant.path(&format!("/documents{query}"))).body("text/csv", content).send()
}

fn count(tenant: &Tenant) -> usize {
    ids(&tenant.viewer.get(tenant.path("/documents")).send().expect(200).json(), "document_id").len()
}

#[test]
fn a_document_comes_back_byte_for_byte_however_it_was_sent() {
    let server = shared();
    let tenant = server.tenant();
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let raw = upload(&tenant, "?filename=a%20b.bin", &content).expect(201);
    let (content_type, body) = form(&[("file", Some("a b.bin"), &content)]);
    let formed = tenant.editor.post(tenant.path("/documents")).body(&content_type, &body).send().expect(201);
    for answer in [raw, formed] {
        let record = answer.json();
        schema::assert_valid("DocumentRecord", &record);
        for (member, value) in [
            ("filename", json!("a b.bin")),
            ("bytes", json!(content.len())),
            ("sha256", json!(sha256(&content))),
            ("content_type", json!("text/csv")),
            ("workspace_id", json!(tenant.id)),
        ] {
            assert_eq!(record[member], value, "{member}");
        }
        assert_eq!(tenant.viewer.get(answer.header("location").unwrap()).send().expect(200).json(), record);
        let download = tenant.viewer.get(record["content_uri"].as_str().unwrap()).send().expect(200);
        assert!(download.body == content);
        assert_eq!(download.header("content-type"), Some("application/octet-stream"), "never a page of this server");
        assert_eq!(download.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(
            download.header("content-disposition"),
            Some("attachment; filename=\"a b.bin\"; filename*=UTF-8''a%20b.bin")
        );
    }
    let empty = upload(&tenant, "?filename=empty", b"").expect(201).json();
    assert_eq!((&empty["bytes"], &empty["sha256"]), (&json!(0), &json!(sha256(b""))));
    let download = tenant.viewer.get(empty["content_uri"].as_str().unwrap()).send().expect(200);
    assert_eq!((download.body.len(), download.header("content-length")), (0, Some("0")));
    tenant
        .viewer
        .get(empty["content_uri"].as_str().unwrap())
        .header("Range", "bytes=0-0")
        .send()
        .problem(416, "range_not_satisfiable");
}

#[test]
fn a_form_may_have_a_file_of_many_megabytes() {
    let server = shared();
    let tenant = server.tenant();
    let content = vec![b'x'; 9 << 20];
    let (content_type, body) = form(&[("file", Some("large.csv"), &content)]);
    let made = tenant.editor.post(tenant.path("/documents")).body(&content_type, &body).send().expect(201).json();
    assert_eq!(made["sha256"], sha256(&content));
}

#[test]
fn a_hash_that_was_announced_is_checked_and_nothing_else_is_kept() {
    let server = Server::start(&[]);
    let tenant = server.tenant();
    let content = b"Name\nAda\n";
    let right = sha256(content);
    upload(&tenant, &format!("?filename=a&sha256={right}"), content).expect(201);
    let digest = |text: &str| {
        let call = tenant.editor.post(tenant.path("/documents?filename=b")).header("Content-Digest", text);
        call.body("text/csv", content).send()
    };
    // By openssl dgst -sha256 -binary | base64.
    let base64 = "x+XtmHWtPeWB5YGDaTTlznYhCbUFiOoiMUD8vUFexyU=";
    let computed = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(Sha256::digest(content))
    };
    digest(&format!("md5=:AAAA:, sha-256=:{computed}:")).expect(201);
    digest("md5=:AAAA:").expect(201);
    let before = server.blobs();
    let wrong = "0".repeat(64);
    let problem = upload(&tenant, &format!("?filename=c&sha256={wrong}"), content).problem(400, "hash_mismatch");
    assert_eq!(problem["sha256"], right);
    digest(&format!("sha-256=:{base64}:")).problem(400, "hash_mismatch");
    let (content_type, body) = form(&[("file", Some("c"), content)]);
    let call = tenant.editor.post(tenant.path(&format!("/documents?sha256={wrong}")));
    call.body(&content_type, &body).send().problem(400, "hash_mismatch");
    for bad in ["sha-256=:AAAA:", "sha-256=AAAA", "sha-256=:***:"] {
        digest(bad).problem(400, "invalid_parameter");
    }
    for bad in ["", "xyz", &right.to_uppercase()] {
        upload(&tenant, &format!("?filename=d&sha256={bad}"), content).problem(400, "invalid_parameter");
    }
    let call = tenant.editor.post(tenant.path(&format!("/documents?filename=e&sha256={wrong}")));
    call.header("Content-Digest", format!("sha-256=:{computed}:"))
        .body("text/csv", content)
        .send()
        .problem(400, "invalid_parameter");
    assert_eq!(server.blobs(), before, "what was refused is gone when the answer comes");
    assert_eq!(count(&tenant), 3);
}

#[test]
fn an_upload_that_breaks_off_or_lies_about_its_length_leaves_nothing() {
    let server = Server::start(&["--max-document-mb", "1"]);
    let tenant = server.tenant();
    let path = tenant.path("/documents?filename=a");
    let key = tenant.editor.key.clone().unwrap();
    let head = |length: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\nContent-Type: text/csv\r\n{length}\r\n"
        )
    };
    // Half of a body, then the end of the connection, in both framings.
    for (length, body) in [
        ("Content-Length: 100000\r\n", vec![b'x'; 50_000]),
        ("Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n".to_vec()),
    ] {
        let mut stream = tenant.editor.connect();
        stream.write_all(head(length).as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    // More than was announced: what is after the length is no part of the body.
    let answer = tenant.editor.raw(head("Content-Length: 5\r\n") + "hello and more");
    assert!(answer.starts_with("HTTP/1.1 201") && answer.contains("\"bytes\":5"), "{answer}");
    for wrong in [
        "Content-Length: -1\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: x\r\n",
        "Content-Length: 99999999999999999999999\r\n",
    ] {
        let answer = tenant.editor.raw(head(wrong) + "hello");
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 413"), "{wrong} {answer}");
    }
    assert_eq!(count(&tenant), 1);
    let kept = server.blobs();
    assert_eq!(kept.len(), 1);

    // Above the cap, announced or not.
    let call = tenant.editor.post(&path).header("Content-Type", "text/csv");
    let large = vec![b'x'; (1 << 20) + 1];
    let problem = call.stream(Some(large.len() as u64), large.as_slice()).finish().problem(413, "payload_too_large");
    assert_eq!(problem["max_bytes"], 1 << 20);
    let mut chunked = b"200000\r\n".to_vec();
    chunked.extend(vec![b'x'; 0x20_0000]);
    chunked.extend(b"\r\n0\r\n\r\n");
    let answer = tenant.editor.raw([head("Transfer-Encoding: chunked\r\n").as_bytes(), &chunked].concat());
    assert!(answer.contains("413") && answer.contains("payload_too_large"), "{answer}");
    let (content_type, body) = form(&[("file", Some("a"), &large)]);
    tenant.editor.post(tenant.path("/documents")).body(&content_type, &body).send().problem(413, "payload_too_large");
    let exact = &large[1..];
    upload(&tenant, "?filename=exact", exact).expect(201);
    assert_eq!(count(&tenant), 2);
    eventually("nothing is left of what was refused", || server.blobs().len() == 2);
    assert_eq!(std::fs::read_dir(server.temporary()).unwrap().count(), 0);
}

/// 200 MiB that are nowhere in memory.
struct Blanks(u64);

impl Read for Blanks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.0).unwrap().min(buffer.len());
        buffer[..most].fill(b' ');
        self.0 -= most as u64;
        Ok(most)
    }
}

#[test]
fn an_upload_and_a_download_of_200_mib_do_not_grow_the_server() {
    let server = Server::start(&[]);
    let tenant = server.tenant();
    upload(&tenant, "?filename=warm", b"up").expect(201);
    let before = server.memory_kib("VmRSS");
    let size = 200 << 20;
    let call = tenant.editor.post(tenant.path("/documents?filename=large")).header("Content-Type", "text/csv");
    let made = call.stream(Some(size), Blanks(size)).finish().expect(201).json();
    assert_eq!(made["bytes"], size);
    let mut download = tenant.viewer.get(made["content_uri"].as_str().unwrap()).open();
    assert_eq!(std::io::copy(&mut download.body, &mut std::io::sink()).unwrap(), size);
    let most = server.memory_kib("VmHWM");
    assert!(most.saturating_sub(before) < 40 * 1024, "from {before} KiB to {most} KiB");
}

#[test]
fn a_name_is_data_on_the_way_in_and_on_the_way_out() {
    let server = shared();
    let tenant = server.tenant();
    for (sent, name) in [
        ("..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("%2Fetc%2Fshadow", "shadow"),
        ("C%3A%5Cx%5Cr%C3%B6ster.csv", "röster.csv"),
        ("a%22%3B%20x%3D%22.csv", "a\"; x=\".csv"),
        ("%3Cscript%3E.csv", "<script>.csv"),
    ] {
        let made = upload(&tenant, &format!("?filename={sent}"), b"x").expect(201).json();
        assert_eq!(made["filename"], name);
        let download = tenant.viewer.get(made["content_uri"].as_str().unwrap()).send().expect(200);
        let disposition = download.header("content-disposition").unwrap();
        assert_eq!(disposition.matches('"').count(), 2, "{disposition}");
        assert!(disposition.is_ascii());
    }
    let before = count(&tenant);
    for sent in
        ["", ".", "..", "%00", "a%00b", "a%0D%0ASet-Cookie%3A%20x%3Dy", "a%E2%80%AEb.csv", "x%2F", &"x".repeat(256)]
    {
        let problem = upload(&tenant, &format!("?filename={sent}"), b"x").problem(400, "invalid_parameter");
        assert_eq!(problem["errors"][0]["pointer"], "filename", "{sent}");
    }
    upload(&tenant, "", b"x").problem(400, "invalid_parameter");
    upload(&tenant, "?filename=a&path=/etc", b"x").problem(400, "invalid_parameter");
    // The same names in a form.
    for sent in ["..", "a\u{202e}b"] {
        let (content_type, body) = form(&[("file", Some(sent), b"x")]);
        let status = tenant.editor.post(tenant.path("/documents")).body(&content_type, &body).send().status;
        assert_eq!(status, 400, "{sent}");
    }
    assert_eq!(count(&tenant), before);
}

#[test]
fn a_form_has_exactly_one_file() {
    let server = shared();
    let tenant = server.tenant();
    let before = server.blobs().iter().filter(|(path, _)| path.to_string_lossy().contains(&tenant.id)).count();
    let file = ("file", Some("a.csv"), b"x".as_slice());
    let post = || tenant.editor.post(tenant.path("/documents"));
    for parts in
        [vec![], vec![file, file], vec![("other", None, b"x".as_slice())], vec![file, ("other", None, b"x".as_slice())]]
    {
        let (content_type, body) = form(&parts);
        post().body(&content_type, &body).send().problem(400, "invalid_body");
    }
    let (content_type, body) = form(&[file]);
    for cut in [10, body.len() / 2, body.len() - 6] {
        post().body(&content_type, &body[..cut]).send().expect(400);
    }
    assert_eq!(count(&tenant), 0);
    eventually("nothing is left of what was refused", || {
        server.blobs().iter().filter(|(path, _)| path.to_string_lossy().contains(&tenant.id)).count() == before
    });
}

#[test]
fn ranges_and_validators_are_honoured() {
    let server = shared();
    let tenant = server.tenant();
    let made = upload(&tenant, "?filename=a", b"0123456789").expect(201).json();
    let uri = made["content_uri"].as_str().unwrap();
    crate::files::ranges(&tenant.viewer, uri, b"0123456789");
}

#[test]
fn a_document_that_a_job_needs_stays_and_any_other_goes() {
    let server = shared();
    let tenant = server.tenant();
    tenant.pause(true);
    let (config, document) = (tenant.config(&Package::new()), tenant.names());
    let delete = || tenant.editor.delete(tenant.path(&format!("/documents/{document}"))).send();
    let job = tenant.job(&config, &document);
    delete().problem(409, "document_in_use");
    tenant.pause(false);
    tenant.end(&job);
    delete().expect(204);
    delete().problem(404, "document_not_found");
    for rest in ["", "/download"] {
        tenant
            .viewer
            .get(tenant.path(&format!("/documents/{document}{rest}")))
            .send()
            .problem(404, "document_not_found");
    }
    assert_eq!(count(&tenant), 0);
    // Its job's record still says what it ran over, and cannot be run again.
    let record: Value = tenant.record(&job);
    assert_eq!(record["documents"][0]["filename"], "names.csv");
    tenant.editor.post(tenant.path(&format!("/jobs/{job}/retry"))).send().problem(404, "document_not_found");
}

#[test]
fn a_form_that_never_comes_to_its_file_does_not_grow_the_server() {
    let server = Server::start(&[]);
    let tenant = server.tenant();
    upload(&tenant, "?filename=warm", b"up").expect(201);
    let before = server.memory_kib("VmRSS");
    for begin in ["", "--x\r\nContent-Disposition: form-data; name=\""] {
        let size = 60_u64 << 20;
        let call =
            tenant.editor.post(tenant.path("/documents")).header("Content-Type", "multipart/form-data; boundary=x");
        let answer = call.stream(Some(size), begin.as_bytes().chain(Blanks(size - begin.len() as u64))).finish();
        answer.problem(413, "payload_too_large");
    }
    let most = server.memory_kib("VmHWM");
    assert!(most.saturating_sub(before) < 20 * 1024, "from {before} KiB to {most} KiB");
    assert_eq!(count(&tenant), 1);
}
