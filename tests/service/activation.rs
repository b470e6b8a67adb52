//! Activations: what makes a version the active one, and what does not.

use crate::schema;
use crate::support::http::{Answer, Api};
use crate::support::server::{Registered, Server, Tenant, eventually, ids, shared, shared_on_postgres};
use crate::support::{Docker, Package, function};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn path(tenant: &Tenant, registered: &Registered) -> String {
    tenant.path(&format!("/configs/{}/versions/{}/activate", registered.config, registered.version))
}

fn activate(tenant: &Tenant, registered: &Registered) -> Answer {
    tenant.owner.post(path(tenant, registered)).send()
}

fn active(tenant: &Tenant) -> Value {
    tenant.viewer.get(&tenant.base).send().expect(200).json()["active_version_id"].clone()
}

fn audit(tenant: &Tenant) -> Vec<Value> {
    let page = tenant.owner.get(tenant.path("/audit?action=config.activate")).send().expect(200).json();
    page["items"].as_array().unwrap().clone()
}

/// A package whose `on_activate` hook is this function body.
fn hooked(body: &str) -> Package {
    Package::new().hook("on_activate", &format!("def run(**_):\n    {}\n", body.replace('\n', "\n    ")))
}

fn texts(output: &Value) -> Vec<&str> {
    output["lines"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap()).collect()
}

/// Containers of the server that there are now.
fn containers(server: &Server) -> usize {
    let instance = server.status()["instance_id"].as_str().unwrap().to_owned();
    Docker::connect().containers_of_instance(&instance).len()
}

#[test]
fn a_version_becomes_active_when_its_hooks_have_returned_and_jobs_run_it() {
    for server in [shared(), shared_on_postgres()] {
        let tenant = server.tenant();
        let document = tenant.names();
        tenant.submit(&json!({"document_id": document})).problem(400, "no_active_config");
        let first = tenant.config(
            &hooked("print('hello')\nreturn {'model': 'warm', 'rows': [1, 2]}")
                .hook("on_activate", "import sys\ndef run(stage, **_):\n    print(stage, file=sys.stderr)\n"),
        );
        let record = activate(&tenant, &first).expect(200).json();
        schema::assert_valid("ActivationRecord", &record);
        assert_eq!(
            (&record["config_version_id"], &record["config_id"], &record["version"], &record["previous_version_id"]),
            (&json!(first.version), &json!(first.config), &json!("v1"), &Value::Null)
        );
        assert_eq!(record["dependencies"], json!({"status": "none"}));
        let hooks = record["hooks"].as_array().unwrap();
        assert_eq!(
            (&hooks[0]["hook"], &hooks[0]["returned"]),
            (&json!("hooks/on_activate.py"), &json!({"model": "warm", "rows": [1, 2]}))
        );
        assert_eq!((hooks.len(), &hooks[1]["returned"]), (2, &Value::Null));
        let line = |stream: &str, text: &str| json!({"stream": stream, "text": text});
        assert_eq!(
            record["hook_output"],
            json!({"lines": [line("stdout", "hello"), line("stderr", "on_activate")], "dropped": 0})
        );
        assert_eq!(active(&tenant), json!(first.version));

        let versions = tenant.path(&format!("/configs/{}/versions", first.config));
        assert_eq!(tenant.viewer.get(&versions).send().expect(200).json()["items"][0]["active"], true);
        let listed = tenant.viewer.get(tenant.path("/configs")).send().expect(200).json();
        assert_eq!(listed["items"][0]["latest_version"]["active"], true);
        let job = tenant.submit(&json!({"document_id": document})).expect(202).json();
        assert_eq!(job["config_version"]["config_version_id"], json!(first.version));
        let ended = tenant.end(job["job_id"].as_str().unwrap());
        assert_eq!(ended["status"], "succeeded", "the hooks of an activation are none of a job: {ended:#}");

        let second = tenant.config(&Package::new());
        let record = activate(&tenant, &second).expect(200).json();
        assert_eq!(record["previous_version_id"], json!(first.version));
        assert_eq!((&record["hooks"], &record["hook_output"]["lines"]), (&json!([]), &json!([])));
        assert_eq!(tenant.viewer.get(&versions).send().expect(200).json()["items"][0]["active"], false);
        let entries = audit(&tenant);
        let pointer = |version: Value| json!({"active_version_id": version});
        assert_eq!(
            entries[0]["detail"],
            json!({"before": pointer(json!(first.version)), "after": pointer(json!(second.version))})
        );
        assert_eq!(entries[1]["detail"]["before"], pointer(Value::Null));
        assert_eq!((&entries[0]["target_kind"], &entries[0]["target_id"]), (&json!("config"), &json!(second.config)));
        assert_eq!(entries.len(), 2);
    }
}

#[test]
fn whatever_fails_leaves_the_earlier_version_active_and_says_why() {
    let server = shared();
    let tenant = server.tenant();
    let good = tenant.config(&Package::new());
    activate(&tenant, &good).expect(200);
    let limited = |package: Package, ms: u64| package.manifest(json!({"engine": {"defaults": {"timeout_ms": ms}}}));
    let fails = |package: &Package, kind: &str| {
        let problem = activate(&tenant, &tenant.config(package)).problem(400, "activation_failed");
        assert_eq!(problem["error"]["kind"], kind, "{problem:#}");
        assert_eq!(active(&tenant), json!(good.version));
        problem
    };

    let problem = fails(&hooked("print('about to')\nraise ValueError('no model')"), "hook_failed");
    assert_eq!((&problem["error"]["script"], &problem["error"]["line"]), (&json!("hooks/on_activate.py"), &json!(3)));
    let said = texts(&problem["hook_output"]);
    assert_eq!(said[0], "about to");
    assert!(said[1].contains("ValueError") && said[1].contains("no model"), "{said:?}");
    assert_eq!(problem["hooks"][0]["hook"], "hooks/on_activate.py");
    assert!(problem["detail"].as_str().unwrap().ends_with("nothing was changed"), "{problem:#}");

    // The alias, and a second hook that is not reached.
    let alias = Package::new()
        .hook("on_prepare", "def run(**_):\n    raise SystemExit(3)\n")
        .hook("on_prepare", "def run(**_):\n    print('reached')\n");
    let problem = fails(&alias, "hook_failed");
    assert!(!texts(&problem["hook_output"]).contains(&"reached"));

    let began = Instant::now();
    let problem =
        fails(&limited(hooked("print('waiting', flush=True)\nimport time\ntime.sleep(120)"), 1_500), "timeout");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(texts(&problem["hook_output"]), ["waiting"]);
    assert_eq!(problem["error"]["pass"], "on_activate");

    let problem = fails(
        &hooked("for number in range(200_000):\n    print(number, 'x' * 200)\nraise RuntimeError('flooded')"),
        "hook_failed",
    );
    let said = texts(&problem["hook_output"]);
    assert!(said[0].starts_with("0 x") && said.last().unwrap().contains("flooded"), "{:?}", said.last());
    assert!(said.len() < 400 && problem.to_string().len() < 300_000, "{}", said.len());
    assert!(problem["hook_output"]["dropped"].as_u64().unwrap() > 190_000, "{}", problem["hook_output"]["dropped"]);

    let unusable = Package::new().column("name", "def transform(values, nothing):\n    return {}\n");
    let problem = tenant.register("unusable", &unusable.zip()).problem(400, "package_invalid");
    assert_eq!(problem["diagnostics"][0]["code"], "script_unknown_parameter");
    let changed = "def decorated(function):\n    return lambda nothing: function(nothing)\n\n@decorated\ndef transform(values):\n    return {}\n";
    let problem = fails(&Package::new().column("name", changed), "package_invalid");
    assert_eq!(problem["error"]["function"], "transform", "{problem:#}");
    let problem = fails(
        &Package::new().column("name", "import nowhere\ndef transform(values):\n    return {}\n"),
        "script_error",
    );
    assert_eq!(problem["error"]["script"], "columns/name.py", "{problem:#}");
    fails(&hooked("import os\nos.kill(os.getpid(), 9)"), "script_error");
    fails(&hooked("import os, pathlib\npathlib.Path('/job/out/activation.json').mkdir()"), "script_error");
    fails(&hooked("x = []\nwhile True:\n    x.append(bytearray(16 << 20))"), "out_of_memory");

    let wants = Package::new()
        .file("requirements.txt", "six==1.16.0\n")
        .hook("on_activate", "import six\ndef run(**_):\n    pass\n");
    let problem = fails(&wants, "dependency_network_denied");
    assert_eq!(problem["dependencies"]["status"], "failed", "{problem:#}");
    assert!(problem["install_log"].as_str().unwrap().contains("six"), "{problem:#}");
    assert_eq!(audit(&tenant).len(), 1, "what failed is no change");
}

#[test]
fn what_a_hook_returns_is_bounded_and_may_be_anything() {
    let server = shared();
    let tenant = server.tenant();
    let config = tenant.config(
        &hooked("return {'big': 'x' * 60_000, 'stage': 'mine', 'esc': '\\x1b[2J'}")
            .hook("on_activate", "def run(**_):\n    return {'big': 'y' * 100_000}\n")
            .hook("on_activate", "def run(**_):\n    return ['no dict']\n")
            .hook(
                "on_activate",
                "def run(job_context, artifact, network=None, **_):\n    return {'inputs': len(artifact['inputs'])}\n",
            ),
    );
    let record = activate(&tenant, &config).expect(200).json();
    let returned = |index: usize| &record["hooks"][index]["returned"];
    assert_eq!(returned(0)["big"].as_str().unwrap().len(), 60_000);
    assert_eq!(returned(0).get("stage"), None, "what the engine says of a hook is not the hook's to say");
    assert_eq!((returned(1), returned(2), returned(3)), (&Value::Null, &Value::Null, &json!({"inputs": 0})));
    let codes: Vec<&str> =
        record["diagnostics"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["runtime.hook.annotation_dropped", "runtime.hook.invalid_result"]);
}

#[test]
fn activations_of_a_workspace_run_one_after_the_other_in_order() {
    let server = Server::start(&["--pool-max", "0"]);
    let tenant = server.tenant();
    let slow = |name: &str| {
        tenant.config(&hooked(&format!("import time\nprint('{name}')\ntime.sleep(1)\nreturn {{'name': '{name}'}}")))
    };
    let configs: Vec<Registered> = ["a", "b", "c"].into_iter().map(slow).collect();
    let records: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = configs
            .iter()
            .map(|config| {
                let tenant = &tenant;
                let asked = scope.spawn(move || activate(tenant, config).expect(200).json());
                std::thread::sleep(Duration::from_millis(300));
                asked
            })
            .collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let mut before = Value::Null;
    for (record, config) in records.iter().zip(&configs) {
        assert_eq!(record["previous_version_id"], before, "one order: {records:#?}");
        assert_eq!(texts(&record["hook_output"]).len(), 1, "no mixture: {record:#}");
        before = json!(config.version);
    }
    assert_eq!(active(&tenant), before);
    let chain: Vec<Value> =
        audit(&tenant).iter().rev().map(|entry| entry["detail"]["after"]["active_version_id"].clone()).collect();
    assert_eq!(chain, configs.iter().map(|config| json!(config.version)).collect::<Vec<_>>());

    // So many may wait; one more is sent away, and other workspaces are not held up.
    let long = tenant.config(&hooked("import time\ntime.sleep(60)"));
    let calls: Vec<Cut> = (0..8).map(|_| Cut::send(&tenant.owner, &path(&tenant, &long))).collect();
    // Time for all of them to be in line: one that asks too early takes the place of another.
    std::thread::sleep(Duration::from_secs(2));
    eventually("the line is full", || {
        let answer = Cut::send(&tenant.owner, &path(&tenant, &long)).answer(Duration::from_millis(300));
        answer.is_some_and(|answer| answer.contains("429") && answer.contains("activations_busy"))
    });
    let neighbour = server.tenant();
    activate(&neighbour, &neighbour.config(&Package::new())).expect(200);
    drop(calls);
    eventually("nothing is left of what was given up", || containers(&server) == 0);
    assert_eq!(active(&tenant), before);
}

/// A request that can be given up before it is answered.
struct Cut(std::net::TcpStream);

impl Cut {
    fn send(api: &Api, path: &str) -> Self {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(&api.address).unwrap();
        let key = api.key.as_ref().unwrap();
        write!(stream, "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        Self(stream)
    }

    /// What has come within this time.
    fn answer(mut self, within: Duration) -> Option<String> {
        use std::io::Read;
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer).ok();
        (!answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
    }
}

#[test]
fn a_client_that_goes_away_cancels_its_activation() {
    let server = Server::start(&["--pool-max", "0"]);
    let tenant = server.tenant();
    let good = tenant.config(&Package::new());
    activate(&tenant, &good).expect(200);
    let slow = tenant.config(&hooked("import time\ntime.sleep(4)"));
    let given_up = Cut::send(&tenant.owner, &path(&tenant, &slow));
    eventually("its hooks run", || containers(&server) == 1);
    std::thread::sleep(Duration::from_secs(1));
    drop(given_up);
    let began = Instant::now();
    eventually("its container is gone", || containers(&server) == 0);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(active(&tenant), json!(good.version));
    assert_eq!(audit(&tenant).len(), 1);
    // And its turn is over.
    activate(&tenant, &slow).expect(200);
}

#[test]
fn an_activation_is_cut_off_by_the_end_of_the_process_and_changes_nothing() {
    let mut server = Server::start(&["--drain-seconds", "1", "--pool-max", "0"]);
    let tenant = server.tenant();
    let slow = tenant.config(&hooked("import time\ntime.sleep(60)"));
    let waiting = Cut::send(&tenant.owner, &path(&tenant, &slow));
    eventually("its hooks run", || containers(&server) == 1);
    std::thread::sleep(Duration::from_secs(1));
    let heard = std::thread::spawn(move || waiting.answer(Duration::from_secs(60)));
    server.restart(&["--pool-max", "0"]);
    let answer = heard.join().unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("draining"), "{answer}");
    let workspace = server.admin.get(&tenant.base).send().expect(200).json();
    assert_eq!((containers(&server), &workspace["active_version_id"]), (0, &Value::Null));
}

#[test]
fn a_job_keeps_the_version_that_was_active_when_it_was_submitted() {
    let server = shared();
    let tenant = server.tenant();
    let says = |word: &str| Package::new().hook("on_job_start", &format!("def run(**_):\n    print('{word}')\n"));
    let (first, second) = (tenant.config(&says("first")), tenant.config(&says("second")));
    activate(&tenant, &first).expect(200);
    tenant.pause(true);
    let document = tenant.names();
    let submit =
        || tenant.submit(&json!({"document_id": document})).expect(202).json()["job_id"].as_str().unwrap().to_owned();
    let before = submit();
    activate(&tenant, &second).expect(200);
    let after = submit();
    tenant.pause(false);
    for (job, word, config) in [(&before, "first", &first), (&after, "second", &second)] {
        let record = tenant.end(job);
        assert_eq!(record["config_version"]["config_version_id"], json!(config.version));
        let events = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/events"))).send().expect(200).text();
        assert!(events.contains(&format!("\"text\":\"{word}\"")), "{events}");
    }
    assert_eq!(ids(&tenant.viewer.get(tenant.path("/jobs")).send().json(), "job_id").len(), 2);
}

#[test]
fn who_may_activate_what_and_when() {
    let server = Server::start(&[]);
    let tenant = server.tenant();
    let (one, other) = (tenant.config(&Package::new()), tenant.config(&Package::new()));
    for api in [&tenant.viewer, &tenant.editor] {
        api.post(path(&tenant, &one)).send().problem(403, "forbidden");
    }
    let mixed = Registered { config: one.config.clone(), version: other.version.clone() };
    activate(&tenant, &mixed).problem(404, "version_not_found");
    server.admin.put("/api/v1/system/safe-mode").json(&json!({"enabled": true})).send().expect(200);
    activate(&tenant, &one).problem(503, "safe_mode");
    server.admin.put("/api/v1/system/safe-mode").json(&json!({"enabled": false})).send().expect(200);
    assert_eq!(active(&tenant), Value::Null);
    tenant.admin.post(path(&tenant, &one)).send().expect(200);
    // A paused workspace has an active version all the same.
    tenant.pause(true);
    activate(&tenant, &other).expect(200);
    assert_eq!(active(&tenant), json!(other.version));
}

#[test]
fn the_container_of_an_activation_has_the_profile_of_a_job_and_no_network() {
    let server = shared();
    let tenant = server.tenant();
    let probes = "attempt('root', lambda: open('/x', 'w'))\nattempt('etc', lambda: open('/etc/x', 'w'))\nattempt('connect', lambda: socket.create_connection(('1.1.1.1', 80), 2))\nattempt('uid', lambda: os.setuid(0))";
    let package = Package::new().hook("on_activate", &function(probes));
    let record = activate(&tenant, &tenant.config(&package)).expect(200).json();
    let said = texts(&record["hook_output"]);
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said.iter().all(|line| !line.contains("allowed")), "{said:?}");
}
