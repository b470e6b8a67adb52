//! A client of the REST service that says no more than the tests need. It blocks.

use crate::support::Package;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// One column `Name`, whose cells say what the job does: `sleep 1.5` sleeps and prints ten lines a second, `fail` fails.
pub fn package() -> Package {
    let column = r#"
import os, time


def transform(values, **context):
    for value in values:
        word, _, number = str(value).partition(" ")
        if word == "sleep":
            end = time.monotonic() + float(number)
            ticks = 0
            while (left := end - time.monotonic()) > 0:
                ticks += 1
                print(f"tick {ticks}")
                time.sleep(min(0.1, left))
        if word == "fail":
            os.environ["FAIL"] = "yes"
    return {"values": list(values)}
"#;
    let hook =
        "import os\n\n\ndef run(**context):\n    if os.environ.get('FAIL'):\n        raise ValueError('as told')\n";
    Package::new().column("name", column).hook("on_after_extract", hook)
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The `code` of a problem.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

/// A connection to one process.
pub struct Api {
    runtime: Runtime,
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Api {
    pub fn new(base: &str, key: &str) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(90)).build().unwrap();
        Self { runtime, client, base: base.to_owned(), key: key.to_owned() }
    }

    /// Another one, for another thread.
    pub fn again(&self) -> Self {
        Self::new(&self.base, &self.key)
    }

    /// Sends a request. An error is one of the connection: the process is gone.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<Vec<u8>>,
    ) -> Result<Answer, reqwest::Error> {
        self.runtime.block_on(async {
            let method = method.parse().unwrap();
            let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if let Some(body) = body {
                request = request.body(body);
            }
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
        })
    }

    fn sent(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, reqwest::Error> {
        let headers = [("content-type", "application/json".to_owned())];
        self.try_send(method, path, &headers, body.map(|body| body.to_string().into_bytes()))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.try_send("GET", path, &[], None).expect("the service answers")
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.sent("POST", path, Some(body)).expect("the service answers")
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.sent("PUT", path, Some(body)).expect("the service answers")
    }

    #[track_caller]
    pub fn patch(&self, path: &str, body: &Value) -> Answer {
        self.sent("PATCH", path, Some(body)).expect("the service answers")
    }

    /// Uploads a document.
    pub fn upload(&self, workspace: &str, name: &str, body: Vec<u8>) -> Result<Answer, reqwest::Error> {
        let path = format!("/api/v1/workspaces/{workspace}/documents?filename={name}");
        self.try_send("POST", &path, &[("content-type", "text/csv".to_owned())], Some(body))
    }

    /// Registers [`package`]; the config's id.
    pub fn config(&self, workspace: &str) -> String {
        self.config_of(workspace, package().zip())
    }

    pub fn config_of(&self, workspace: &str, package: Vec<u8>) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let slug = format!("config-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let form = reqwest::multipart::Form::new()
            .text("slug", slug)
            .part("package", reqwest::multipart::Part::bytes(package).file_name("package.zip"));
        let url = format!("{}/api/v1/workspaces/{workspace}/configs", self.base);
        let answer = self.runtime.block_on(async {
            let response = self.client.post(url).bearer_auth(&self.key).multipart(form).send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
        });
        answer.expect(201).json()["config_id"].as_str().unwrap().to_owned()
    }

    /// Uploads what a job has to do, one cell a line, and submits it.
    pub fn try_submit(
        &self,
        workspace: &str,
        config: &str,
        does: &str,
        also: &Value,
    ) -> Result<Answer, reqwest::Error> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let uploaded = self.upload(workspace, "does.csv", format!("Name\n{does}\n").into_bytes())?;
        if uploaded.status != 201 {
            return Ok(uploaded);
        }
        let mut body = json!({
            "config_id": config,
            "document_id": uploaded.json()["document_id"],
            "input_hash": format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)),
        });
        for (key, value) in also.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.sent("POST", &format!("/api/v1/workspaces/{workspace}/jobs"), Some(&body))
    }

    /// As [`try_submit`](Self::try_submit); the accepted job's id.
    #[track_caller]
    pub fn submit(&self, config: &str, does: &str) -> String {
        self.submit_to("default", config, does, &json!({}))
    }

    #[track_caller]
    pub fn submit_to(&self, workspace: &str, config: &str, does: &str, also: &Value) -> String {
        let answer = self.try_submit(workspace, config, does, also).expect("the service answers").expect(202);
        answer.json()["job_id"].as_str().unwrap().to_owned()
    }

    pub fn cancel(&self, job: &str) -> Result<Answer, reqwest::Error> {
        self.sent("POST", &format!("/api/v1/workspaces/default/jobs/{job}/cancel"), None)
    }

    #[track_caller]
    pub fn job(&self, job: &str) -> Value {
        self.job_in("default", job)
    }

    #[track_caller]
    pub fn job_in(&self, workspace: &str, job: &str) -> Value {
        self.get(&format!("/api/v1/workspaces/{workspace}/jobs/{job}")).expect(200).json()
    }

    /// The record once `is` says yes; waits for changes, not for time.
    #[track_caller]
    pub fn job_when(&self, job: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.job_in_when("default", job, what, is)
    }

    #[track_caller]
    pub fn job_in_when(&self, workspace: &str, job: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(90);
        let mut etag = String::new();
        loop {
            let headers = [("prefer", "wait=5".to_owned()), ("if-none-match", etag.clone())];
            let headers = if etag.is_empty() { &headers[..0] } else { &headers[..] };
            let path = format!("/api/v1/workspaces/{workspace}/jobs/{job}");
            let answer = self.try_send("GET", &path, headers, None).expect("the service answers");
            if answer.status == 200 {
                let record = answer.json();
                if is(&record) {
                    return record;
                }
                answer.headers["etag"].to_str().unwrap().clone_into(&mut etag);
            } else if answer.status == 503 {
                std::thread::sleep(Duration::from_millis(100));
            } else {
                assert_eq!(answer.status, 304, "{}", String::from_utf8_lossy(&answer.body));
            }
            assert!(Instant::now() < deadline, "{job} is not {what}: {:#}", self.job_in(workspace, job));
        }
    }

    #[track_caller]
    pub fn ended(&self, job: &str) -> Value {
        self.job_when(job, "ended", |record| is_final(record["status"].as_str().unwrap()))
    }

    #[track_caller]
    pub fn running(&self, job: &str) -> Value {
        self.job_when(job, "running", |record| record["phase"] == "running")
    }

    /// The events of a job, parsed.
    #[track_caller]
    pub fn events(&self, job: &str) -> Vec<Value> {
        self.events_in("default", job)
    }

    #[track_caller]
    pub fn events_in(&self, workspace: &str, job: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/workspaces/{workspace}/jobs/{job}/events")).expect(200);
        String::from_utf8(answer.body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Follows a job's events until it ends: each with the moment it came.
    pub fn follow(&self, job: &str) -> Vec<(Value, Instant)> {
        self.runtime.block_on(async {
            let url = format!("{}/api/v1/workspaces/default/jobs/{job}/events", self.base);
            let request = self.client.get(url).bearer_auth(&self.key).header("accept", "text/event-stream");
            let mut response = request.send().await.unwrap();
            let (mut text, mut events) = (String::new(), Vec::new());
            while let Some(chunk) = response.chunk().await.unwrap() {
                text.push_str(&String::from_utf8_lossy(&chunk));
                while let Some(end) = text.find("\n\n") {
                    let message: String = text.drain(..end + 2).collect();
                    let data = message.lines().find_map(|line| line.strip_prefix("data:"));
                    if let Some(data) = data
                        && !message.contains("event: progress")
                    {
                        events.push((serde_json::from_str(data.trim()).unwrap(), Instant::now()));
                    }
                }
            }
            events
        })
    }

    /// `/readyz`: the parts that are not ready.
    pub fn not_ready(&self) -> Vec<String> {
        let answer = self.get("/readyz").json();
        let parts = answer["parts"].as_object().expect("parts").iter();
        parts.filter(|(_, state)| *state != "ok").map(|(part, _)| part.clone()).collect()
    }
}

pub fn is_final(status: &str) -> bool {
    matches!(status, "succeeded" | "failed" | "cancelled")
}

/// Waits until `is` is true, looking again and again.
#[track_caller]
pub fn eventually(what: &str, seconds: u64, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !is() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
