//! Keys, roles, and limits of a key.

use crate::schema;
use crate::support::Package;
use crate::support::http::{Answer, Api};
use crate::support::server::{Server, eventually, holds, ids, shared};
use serde_json::{Value, json};

#[test]
fn a_key_says_who_it_is_and_is_shown_once() {
    let server = Server::start(&[]);
    let tenant = server.tenant();
    let asked = json!({"name": "nightly", "role": "editor", "expires_in_days": 30});
    let made = tenant.owner.post(tenant.path("/keys")).json(&asked).send().expect(201).json();
    schema::assert_valid("KeyRecord", &made);
    let secret = made["key"].as_str().unwrap();
    assert!(secret.starts_with(&format!("ade_{}_", made["prefix"].as_str().unwrap())));
    let who = server.admin.with_key(secret).get("/api/v1/whoami").send().expect(200).json();
    schema::assert_valid("Whoami", &who);
    assert_eq!(
        (&who["role"], &who["workspace_id"], &who["name"]),
        (&json!("editor"), &json!(tenant.id), &json!("nightly"))
    );
    assert_eq!(who["expires_at"], made["expires_at"]);
    let listed = tenant.owner.get(tenant.path("/keys")).send().expect(200);
    assert!(
        !listed.text().contains(secret)
            && listed.json()["items"].as_array().unwrap().iter().all(|key| key.get("key").is_none())
    );
    let revoked =
        tenant.owner.delete(tenant.path(&format!("/keys/{}", made["key_id"].as_str().unwrap()))).send().expect(200);
    assert!(!revoked.text().contains(secret) && !server.log().contains(secret));
    eventually("the owner's key was used, and that is noted beside the answers", || {
        let listed = tenant.owner.get(tenant.path("/keys")).send().expect(200).json();
        let owners = listed["items"].as_array().unwrap().iter().find(|key| key["role"] == "owner");
        owners.is_some_and(|key| key["last_used_at"].is_string())
    });

    // At rest there is the hash only. The first admin's own copy is the file that says so.
    assert_eq!(server.stop(), Some(0));
    let (_, tail) = secret.split_at(secret.len() - 32);
    assert_eq!(holds(&server.data(), tail), None);
    assert!(holds(&server.data(), made["prefix"].as_str().unwrap()).is_some(), "the search finds what is there");
    let admin = server.admin.key.clone().unwrap();
    assert_eq!(holds(&server.data(), &admin[admin.len() - 32..]), Some(server.data().join("admin-key")));
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(server.data()), mode(server.data().join("admin-key"))), (0o700, 0o600));
}

#[test]
fn a_revoked_key_stops_with_the_answer_and_stays_revoked() {
    let server = shared();
    let tenant = server.tenant();
    let who = || tenant.editor.get("/api/v1/whoami").send();
    let id = who().expect(200).json()["key_id"].as_str().unwrap().to_owned();
    let route = tenant.path(&format!("/keys/{id}"));
    let first = tenant.owner.delete(&route).send().expect(200).json();
    who().problem(401, "key_revoked");
    assert_eq!(tenant.owner.delete(&route).send().expect(200).json()["revoked_at"], first["revoked_at"]);
    let neighbour = server.tenant();
    neighbour.owner.delete(neighbour.path(&format!("/keys/{id}"))).send().problem(404, "key_not_found");
    // An admin's: any key, and admins' own.
    let made = server.admin.post("/api/v1/keys").json(&json!({"name": "second"})).send().expect(201).json();
    let second = server.admin.with_key(made["key"].as_str().unwrap());
    assert_eq!(second.get("/api/v1/whoami").send().expect(200).json()["role"], "admin");
    server.admin.delete(format!("/api/v1/keys/{}", made["key_id"].as_str().unwrap())).send().expect(200);
    second.get("/api/v1/whoami").send().problem(401, "key_revoked");
    let listed = server.admin.get("/api/v1/keys").send().expect(200).json();
    assert!(ids(&listed, "key_id").contains(&made["key_id"].as_str().unwrap().to_owned()));
}

#[test]
fn an_expired_key_opens_nothing() {
    let server = Server::start(&[]);
    let tenant = server.tenant();
    tenant.editor.get("/api/v1/whoami").send().expect(200);
    // A day is too long to wait for: the day is put into the past.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let changed = runtime.block_on(async {
        use sqlx::Connection;
        let path = server.data().join("ade.db");
        let mut connection = sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
        let sql = "UPDATE api_keys SET expires_at = 1000 WHERE role = 'editor'";
        sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected()
    });
    assert_eq!(changed, 1);
    let expired = || tenant.editor.get("/api/v1/whoami").send().status == 401;
    eventually("what is believed of a key is looked up again", expired);
    tenant.editor.get("/api/v1/whoami").send().problem(401, "key_expired");
    tenant.viewer.get("/api/v1/whoami").send().expect(200);
}

#[test]
fn what_is_asked_of_a_new_key_is_checked() {
    let server = shared();
    let tenant = server.tenant();
    for (body, code, pointer) in [
        (json!({"name": "x", "role": "admin"}), "invalid_body", "/role"),
        (json!({"name": "x", "role": "root"}), "invalid_body", "/role"),
        (json!({"name": "", "role": "viewer"}), "invalid_body", "/name"),
        (json!({"name": " ", "role": "viewer"}), "invalid_body", "/name"),
        (json!({"name": "nul \u{0}", "role": "viewer"}), "invalid_body", "/name"),
        (json!({"name": "x".repeat(256), "role": "viewer"}), "invalid_body", "/name"),
        (json!({"name": "x", "role": "viewer", "expires_in_days": 0}), "invalid_body", "/expires_in_days"),
        (json!({"name": "x", "role": "viewer", "expires_in_days": 36_501}), "invalid_body", "/expires_in_days"),
        (json!({"name": "x", "role": "viewer", "workspace_id": "other"}), "unknown_field", "/workspace_id"),
    ] {
        let problem = tenant.owner.post(tenant.path("/keys")).json(&body).send().problem(400, code);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
}

#[test]
fn what_is_no_key_is_a_401_that_says_how() {
    let server = shared();
    let tenant = server.tenant();
    let key = tenant.viewer.key.clone().unwrap();
    let other = tenant.owner.key.clone().unwrap();
    let anonymous = server.admin.anonymous();
    let with = |value: &str| anonymous.get("/api/v1/whoami").header("Authorization", value).send();
    anonymous.get("/api/v1/whoami").send().problem(401, "unauthorized");
    // Its prefix with the secret of another.
    let mixed = format!("{}{}", &key[..15], &other[15..]);
    for wrong in [
        "",
        "Bearer",
        "Bearer ",
        &key,
        &format!("Basic {key}"),
        &format!("Token {key}"),
        &format!("Bearer {key}x"),
        &format!("Bearer{key}"),
        &format!("Bearer {}", &key[..key.len() - 1]),
        &format!("Bearer {}", key.to_uppercase()),
        &format!("Bearer {mixed}"),
        "Bearer ade_0000000000_00000000000000000000000000000000",
        "Bearer ade__",
        &format!("Bearer {}", "x".repeat(10_000)),
        "Bearer ü",
    ] {
        with(wrong).problem(401, "unauthorized");
    }
    with(&format!("bearer  {key}")).expect(200);
    with(&format!("BEARER {key}")).expect(200);
    anonymous.get(format!("/api/v1/whoami?api_key={key}")).send().problem(401, "unauthorized");
}

/// Which role an operation needs, by what the document says and what this test knows.
fn needs(method: &str, path: &str) -> usize {
    const VIEWER: usize = 0;
    const EDITOR: usize = 1;
    const OWNER: usize = 2;
    const ADMIN: usize = 3;
    let below = path.strip_prefix("/api/v1/workspaces/{workspace}");
    match (method, below) {
        ("GET", Some("/keys" | "/audit")) => OWNER,
        ("GET", Some(_)) => VIEWER,
        ("PATCH", Some("")) => ADMIN,
        ("PUT", Some("/network" | "/configs/{config_id}/network" | "/configs/{config_id}/concurrency")) => ADMIN,
        ("POST", Some("/jobs" | "/documents" | "/jobs/{job_id}/retry" | "/jobs/{job_id}/cancel")) => EDITOR,
        ("DELETE", Some("/documents/{document_id}")) => EDITOR,
        ("POST", Some("/configs/validate" | "/configs/{config_id}/versions")) => EDITOR,
        ("POST", Some("/configs/{config_id}/versions/{version_id}/clone" | "/configs/{config_id}/drafts")) => EDITOR,
        (_, Some(path)) if path.starts_with("/configs/{config_id}/drafts/") => EDITOR,
        ("POST", Some("/configs" | "/keys" | "/configs/{config_id}/restore")) => OWNER,
        ("POST", Some(path)) if path.starts_with("/configs/{config_id}/versions/{version_id}/") => OWNER,
        ("DELETE", Some("/keys/{key_id}" | "/configs/{config_id}")) => OWNER,
        ("GET", None) if matches!(path, "/api/v1/whoami" | "/api/v1/workspaces") => VIEWER,
        (_, None) if path.starts_with("/api/v1/") || path == "/metrics" => ADMIN,
        _ => panic!("{method} {path} is new: which role does it need?"),
    }
}

#[test]
fn every_route_is_open_to_the_roles_that_the_table_names_and_to_no_other() {
    let server = Server::start(&[]);
    let tenant = server.tenant();
    let zeros = "0".repeat(26);
    for (path, item) in schema::document()["paths"].as_object().unwrap() {
        for (method, operation) in item
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| ["get", "put", "post", "delete", "patch"].contains(&name.as_str()))
        {
            if operation["security"].as_array().is_some_and(|security| security.iter().any(|way| way == &json!({}))) {
                continue;
            }
            let method = method.to_uppercase();
            let needed = needs(&method, path);
            let filled = path.replace("{workspace}", &tenant.id);
            let filled = ["job", "document", "config", "draft", "key"].iter().fold(filled, |filled, kind| {
                let prefix = match *kind {
                    "document" => "doc",
                    "config" => "cfg",
                    other => other,
                };
                filled.replace(&format!("{{{kind}_id}}"), &format!("{prefix}_{zeros}"))
            });
            let filled = filled.replace("{name}", "artifact.json");
            let filled = filled.replace("{version_id}", &format!("cfgv_{zeros}")).replace("{path}", "columns/name.py");
            let call = |api: &Api| -> Answer {
                let call = api.call(&method, &filled);
                match operation["requestBody"]["content"].as_object().and_then(|content| content.keys().next()) {
                    None => call.send(),
                    Some(kind) if kind == "application/json" => call.json(&harmless(operation)).send(),
                    Some(_) => call.body("multipart/form-data; boundary=x", "--x--\r\n").send(),
                }
            };
            call(&server.admin.anonymous()).problem(401, "unauthorized");
            for (role, api) in [&tenant.viewer, &tenant.editor, &tenant.owner, &server.admin].into_iter().enumerate() {
                let answer = call(api);
                if role < needed {
                    answer.problem(403, "forbidden");
                } else {
                    assert!(answer.status != 403 && answer.status != 401, "{answer}");
                }
            }
        }
    }
}

/// A body that is taken and changes little.
fn harmless(operation: &Value) -> Value {
    let schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
    match schema.rsplit('/').next().unwrap() {
        "CreateKey" => json!({"name": "x", "role": "viewer"}),
        "CreateAdminKey" => json!({"name": "x"}),
        "CreateWorkspace" => json!({"slug": "made-by-the-table"}),
        "ChangeSwitch" => json!({"switch": null}),
        "ChangeWorkspaceNetwork" => json!({"access": "inherit"}),
        "SafeMode" => json!({"enabled": false}),
        "ChangeConcurrency" | "SetConcurrency" | "Concurrency" => json!({"max_concurrency": null}),
        _ => json!({}),
    }
}

#[test]
fn a_key_that_asks_too_often_is_told_when_to_come_back_and_nobody_else_is() {
    let server = Server::start(&["--rate-limit", "5"]);
    let tenant = server.tenant();
    let refused = (0..40).map(|_| tenant.viewer.get("/api/v1/whoami").send()).find(|answer| answer.status != 200);
    let refused = refused.expect("a limit");
    assert!(refused.problem(429, "rate_limited")["retry_after"].as_u64().is_some_and(|seconds| seconds >= 1));
    tenant.editor.get("/api/v1/whoami").send().expect(200);
    eventually("it may again", || tenant.viewer.get("/api/v1/whoami").send().status == 200);
}

#[test]
fn a_key_has_a_number_of_streams_and_gets_them_back() {
    let server = Server::start(&["--max-streams-per-key", "2"]);
    let tenant = server.tenant();
    tenant.pause(true);
    let job = tenant.job(&tenant.config(&Package::new()), &tenant.names());
    let route = tenant.path(&format!("/jobs/{job}/events?follow=true"));
    let first = tenant.viewer.get(&route).open();
    let second = tenant.viewer.get(&route).header("Accept", "text/event-stream").open();
    assert_eq!((first.status, second.status), (200, 200));
    tenant.viewer.get(&route).send().problem(429, "too_many_streams");
    let waiting = tenant.viewer.get(tenant.path(&format!("/jobs/{job}"))).header("Prefer", "wait=1");
    waiting.send().problem(429, "too_many_streams");
    tenant.viewer.get(tenant.path(&format!("/jobs/{job}/events"))).send().expect(200);
    tenant.editor.get(tenant.path(&format!("/jobs/{job}"))).header("Prefer", "wait=1").send().expect(200);
    first.connection.shutdown(std::net::Shutdown::Both).unwrap();
    drop(first);
    eventually("a place is free again", || waiting.send().status == 200);
}
