//! Attacks 44 and 45: the sandbox itself cannot be chosen, loosened or missed.

use crate::support::{Docker, Package, Upload, run, start};
use serde_json::json;

#[test]
fn a44_a_runtime_that_is_not_there_fails_closed() {
    let run = run(&Package::attacking("print('ran')"), &[Upload::names()], &["--runtime", "nosuch"]);
    run.assert_failed("runtime_missing", &["nosuch", "nothing was run", "ADE_RUNTIME"]);
    assert_eq!(run.code, Some(3));
    assert!(run.log().is_empty() && run.events_named("worker.spawn").is_empty());
    assert!(!run.out.join("normalized.xlsx").exists());
}

#[test]
fn a45_no_manifest_can_express_a_container_option() {
    for patch in [
        json!({"HostConfig": {"Privileged": true}}),
        json!({"privileged": true}),
        json!({"engine": {"defaults": {"privileged": true}}}),
        json!({"engine": {"defaults": {"runtime": "runc"}}}),
        json!({"engine": {"defaults": {"image": "evil"}}}),
        json!({"engine": {"defaults": {"cap_add": ["SYS_ADMIN"]}}}),
        json!({"engine": {"image": "evil"}}),
        json!({"engine": {"defaults": {"network_mode": "host"}}}),
        json!({"engine": {"defaults": {"mounts": ["/:/host"]}}}),
        json!({"engine": {"defaults": {"memory_mb": 1_000_000}}}),
        json!({"engine": {"defaults": {"memory_mb": -1}}}),
        json!({"engine": {"defaults": {"memory_mb": 1e300}}}),
        json!({"engine": {"defaults": {"timeout_ms": 10_000_000_000_u64}}}),
        json!({"hooks": {"on_job_start": [{"script": "../../etc/passwd"}]}}),
        json!({"hooks": {"on_job_start": [{"script": "/etc/passwd"}]}}),
        json!({"columns": {"meta": {"name": {"script": "columns/../hooks/x.py"}}}}),
    ] {
        let package = Package::attacking("print('ran')").manifest(patch.clone());
        let run = run(&package, &[Upload::names()], &[]);
        assert_eq!((run.kind(), run.code, run.job_id()), ("package_invalid", Some(2), None), "{patch}: {}", run.stdout);
        let pointers: Vec<_> =
            run.json["diagnostics"].as_array().unwrap().iter().filter(|one| one["level"] == "error").collect();
        assert!(!pointers.is_empty(), "{patch}: a diagnostic says where");
    }
}

#[test]
fn a45_a_limit_above_the_cap_is_refused_with_both_numbers() {
    let asked = run(&Package::new(), &[Upload::names()], &["--memory-mb", "4096", "--worker-mem-mb", "1024"]);
    asked.assert_failed("limit_invalid", &["4096", "1024", "ADE_WORKER_MEM_MB"]);
    let package = Package::new().manifest(json!({"engine": {"defaults": {"memory_mb": 4096}}}));
    run(&package, &[Upload::names()], &["--worker-mem-mb", "1024"]).assert_failed("package_invalid", &["4096", "1024"]);
}

#[test]
fn a45_docker_confirms_the_profile_of_a_running_container() {
    let package = Package::attacking("time.sleep(2)")
        .manifest(json!({"env": {"DOCKER_HOST": "tcp://evil:2375", "RUNTIME": "evil"}}));
    let running = start(&package, &[Upload::names()], &["--memory-mb", "128", "--worker-pids", "40"]);
    let container = Docker::connect().inspect(&running.container()).unwrap();
    let host = container.host_config.unwrap();
    let config = container.config.unwrap();
    assert_eq!((host.privileged, host.readonly_rootfs, host.publish_all_ports), (Some(false), Some(true), Some(false)));
    assert_eq!((host.network_mode.as_deref(), host.ipc_mode.as_deref()), (Some("none"), Some("private")));
    assert_eq!((host.memory, host.memory_swap, host.pids_limit), (Some(128 << 20), Some(128 << 20), Some(40)));
    assert_eq!(host.nano_cpus, Some(1_000_000_000));
    assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
    for (name, empty) in [
        ("CapAdd", host.cap_add.is_none_or(|list| list.is_empty())),
        ("Binds", host.binds.is_none_or(|list| list.is_empty())),
        ("Mounts", host.mounts.is_none_or(|list| list.is_empty())),
        ("Devices", host.devices.is_none_or(|list| list.is_empty())),
        ("DeviceRequests", host.device_requests.is_none_or(|list| list.is_empty())),
        ("VolumesFrom", host.volumes_from.is_none_or(|list| list.is_empty())),
        ("Links", host.links.is_none_or(|list| list.is_empty())),
        ("ExtraHosts", host.extra_hosts.is_none_or(|list| list.is_empty())),
        ("GroupAdd", host.group_add.is_none_or(|list| list.is_empty())),
        ("PidMode", host.pid_mode.is_none_or(|mode| mode.is_empty())),
        ("UTSMode", host.uts_mode.is_none_or(|mode| mode.is_empty())),
        ("UsernsMode", host.userns_mode.is_none_or(|mode| mode.is_empty())),
    ] {
        assert!(empty, "{name} is not empty");
    }
    let options = host.security_opt.unwrap();
    assert!(
        options.contains(&"no-new-privileges:true".to_owned())
            && options.iter().any(|option| option.starts_with("seccomp={"))
    );
    assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("none"));
    assert!(
        !config.env.unwrap_or_default().iter().any(|line| line.contains("evil")),
        "a manifest's env does not reach the supervisor"
    );
    assert!(config.user.unwrap().split(':').all(|id| id.parse::<u32>().unwrap() >= 65_536));
    running.wait().assert_succeeded();
}
