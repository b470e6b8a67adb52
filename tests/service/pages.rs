//! What is not a resource: health, metrics, documentation.

use crate::schema;
use crate::support::server::{Server, shared};
use serde_json::json;

#[test]
fn health_needs_no_key_and_metrics_an_admins() {
    let server = shared();
    let tenant = server.tenant();
    let anonymous = server.admin.anonymous();
    assert_eq!(anonymous.get("/livez").send().expect(200).json(), json!({"status": "ok"}));
    let ready = anonymous.get("/readyz").send().expect(200).json();
    assert_eq!(ready["status"], "ready");
    for part in ["database", "storage", "docker", "image", "process"] {
        assert_eq!(ready["parts"][part], "ok", "{ready}");
    }
    anonymous.get("/metrics").send().problem(401, "unauthorized");
    tenant.owner.get("/metrics").send().problem(403, "forbidden");
    let job = tenant.finished();
    let metrics = server.admin.get("/metrics").send().expect(200);
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = metrics.text();
    assert!(text.ends_with("# EOF\n"), "OpenMetrics has an end");
    let mut samples = 0;
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok() && name.starts_with("ade_"), "{line}");
        assert!(!name.contains(&job), "no job is a label: {line}");
        samples += 1;
    }
    assert!(samples > 20, "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("ade_jobs_finished_total{") && line.contains("succeeded")),
        "{text}"
    );
    assert!(text.contains("/api/v1/workspaces/{workspace}"), "routes are labels, not paths: {text}");
    assert!(!text.contains(&tenant.id) || text.contains("workspace="), "{text}");
}

#[test]
fn the_served_document_is_the_published_one() {
    let server = shared();
    let served = server.admin.anonymous().get("/openapi.json").send().expect(200);
    assert_eq!(served.header("content-type"), Some("application/json"));
    assert_eq!(&served.json(), schema::document());
    let page = server.admin.anonymous().get("/docs/").send().expect(200).text();
    assert!(page.contains("swagger-ui"), "{page}");
    // Everything the page loads comes from here.
    for script in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        let file = server.admin.anonymous().get(format!("/docs/{script}")).send().expect(200).text();
        assert!(!file.is_empty() && !page.contains("https://"), "{script}");
    }
}

#[test]
fn every_code_has_its_place_on_the_page_of_problems() {
    let page = shared().admin.anonymous().get("/problems").send().expect(200).text();
    for code in ade::api::Code::ALL {
        assert_eq!(page.matches(&format!("id=\"{}\"", code.as_str())).count(), 1, "{}", code.as_str());
    }
}

#[test]
fn the_status_of_the_system_is_as_described() {
    let server = shared();
    let status = server.status();
    schema::assert_valid("SystemStatus", &status);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|node| node["node_id"] == status["node_id"] && node["draining"] == false),
        "{status}"
    );
    assert!(status["parts"].as_array().unwrap().iter().all(|part| part["ready"] == true), "{status}");
}

#[test]
fn a_server_that_stops_says_so_and_leaves_in_peace() {
    let server = Server::start(&[]);
    let address = server.data().join("address");
    assert!(address.exists());
    assert_eq!(server.stop(), Some(0));
    assert!(!address.exists() && std::net::TcpStream::connect(&server.admin.address).is_err());
    let left: Vec<String> = std::fs::read_dir(server.data().join("scratch"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, [""; 0]);
    assert!(!server.log().contains(server.admin.key.as_ref().unwrap()), "no key in the log");
}
