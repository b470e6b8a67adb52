//! Every setting, in three structs: [`Settings`] of the instance for every command, [`ServeSettings`] of the service,
//! [`ClientSettings`] of the commands that speak to one. Parsed
//! once from flags and environment, documented in `--help` and `docs/operations/settings.md` (a test compares the two).

mod client;
mod mask;
mod resolved;
mod serve;

pub use client::{ClientSettings, Target};
pub use mask::mask;
pub use resolved::{Resolved, resolved};
pub use serve::{Disagreement, LogFormat, ServeSettings, Switch, default_data_dir, local_data_dir};

use crate::deps::{Deps, Index, PUBLIC_INDEX, Sets, Tool, Wheelhouse};
use crate::egress::Upstream;
use crate::network;
use crate::network::HostPattern;
use crate::sandbox::Caps;
use clap::Args;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings of the instance. A flag wins over its environment variable, which wins over the default.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Instance settings")]
pub struct Settings {
    /// Docker Engine to use, as `unix:///…`, `tcp://…` or `http://…` [default: unix:///var/run/docker.sock]
    #[arg(long, env = "DOCKER_HOST", value_name = "URL", global = true)]
    pub docker_host: Option<String>,

    /// Base image to use instead of the one that this program builds
    #[arg(long, env = "ADE_IMAGE", value_name = "REFERENCE", global = true)]
    pub image: Option<String>,

    /// OCI runtime for job containers, such as `runsc`; a missing one fails the job [default: Docker's default]
    #[arg(long, env = "ADE_RUNTIME", value_name = "NAME", global = true)]
    pub runtime: Option<String>,

    /// Cap on the wall-clock time of a job, and its default, seconds
    #[arg(long, env = "ADE_JOB_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400), global = true)]
    pub job_timeout_seconds: u64,

    /// Cap on the memory of a job's container, scratch space included, MiB
    #[arg(long, env = "ADE_WORKER_MEM_MB", value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(64..=1_048_576), global = true)]
    pub worker_mem_mb: u64,

    /// Cap on the CPU time of a job, seconds
    #[arg(long, env = "ADE_WORKER_CPU_SECONDS", value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400), global = true)]
    pub worker_cpu_seconds: u64,

    /// Cap on the size of one output file, MiB
    #[arg(long, env = "ADE_WORKER_FSIZE_MB", value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1_048_576), global = true)]
    pub worker_fsize_mb: u64,

    /// CPUs of a job's container
    #[arg(long, env = "ADE_WORKER_CPUS", value_name = "CPUS", default_value_t = 1.0, value_parser = cpus, global = true)]
    pub worker_cpus: f64,

    /// Processes and threads of a job's container
    #[arg(long, env = "ADE_WORKER_PIDS", value_name = "COUNT", default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=32_768), global = true)]
    pub worker_pids: u32,

    /// Registry image that the base image is built from, where a registry is reachable
    #[arg(long, env = "ADE_BASE_IMAGE", value_name = "REFERENCE", global = true)]
    pub base_image: Option<String>,

    /// Debian mirror for the base image, where no registry is reachable [default: the host's own]
    #[arg(long, env = "ADE_DEBIAN_MIRROR", value_name = "URL", global = true)]
    pub debian_mirror: Option<String>,

    /// Debian security mirror for the base image, or `none` [default: derived from the Debian mirror]
    #[arg(long, env = "ADE_DEBIAN_SECURITY_MIRROR", value_name = "URL", global = true)]
    pub debian_security_mirror: Option<String>,

    /// Python package index for the wheels of the base image and the dependencies of packages [default: pip's own; for
    /// dependencies that of PyPI]
    #[arg(long, env = "ADE_INDEX_URL", value_name = "URL", hide_env_values = true, global = true)]
    pub index_url: Option<String>,

    /// Wheels that are asked before the index: a folder (with a slash), or a Docker volume
    #[arg(long, env = "ADE_WHEELHOUSE", value_name = "DIR|VOLUME", global = true)]
    pub wheelhouse: Option<Wheelhouse>,

    /// Folder of wheelhouses of workspaces: the one named with a workspace's id is asked first
    #[arg(long, env = "ADE_WORKSPACE_WHEELHOUSES", value_name = "DIR", global = true)]
    pub workspace_wheelhouses: Option<PathBuf>,

    /// Further package indexes for the dependencies of packages, asked before --index-url; the first that knows a name has it
    #[arg(
        long,
        env = "ADE_EXTRA_INDEX_URLS",
        value_name = "URLS",
        value_delimiter = ',',
        hide_env_values = true,
        global = true
    )]
    pub extra_index_urls: Vec<String>,

    /// Hosts that have the files of the indexes, where these are other hosts
    #[arg(long, env = "ADE_INDEX_FILE_HOSTS", value_name = "HOSTS", value_delimiter = ',', global = true)]
    pub index_file_hosts: Vec<HostPattern>,

    /// Program that installs dependencies
    #[arg(long, env = "ADE_INSTALLER", value_name = "uv|pip", default_value = "uv", global = true)]
    pub installer: Tool,

    /// Longest install of the dependencies of one package, seconds
    #[arg(long, env = "ADE_INSTALL_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(5..=86_400), global = true)]
    pub install_timeout_seconds: u64,

    /// Largest dependency set, MiB on disk
    #[arg(long, env = "ADE_DEPS_MAX_SET_MB", value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(8..=1_048_576), global = true)]
    pub deps_max_set_mb: u64,

    /// All dependency sets together, MiB on disk; above it the least recently used go
    #[arg(long, env = "ADE_DEPS_BUDGET_MB", value_name = "MIB", default_value_t = 10_240, value_parser = clap::value_parser!(u64).range(0..=1_073_741_824), global = true)]
    pub deps_budget_mb: u64,

    /// Folder of the records of dependency sets, one for each machine [default: deps in the data folder]
    #[arg(long, env = "ADE_DEPS_DIR", value_name = "DIR", global = true)]
    pub deps_dir: Option<PathBuf>,

    /// PEM file of certificate authorities that installs and jobs with network trust, for hosts behind a TLS-intercepting proxy
    #[arg(long, env = "ADE_CA_BUNDLE", value_name = "FILE", global = true)]
    pub ca_bundle: Option<PathBuf>,

    /// Network for jobs: `off` for none, `deny` for those that an admin allowed it, `manifest` for those that ask; true is
    /// manifest, false is off
    #[arg(long, env = "ADE_RUNTIME_NETWORK_ACCESS", value_name = "off|deny|manifest", default_value = "manifest", value_parser = network::Switch::from_setting, global = true)]
    pub runtime_network_access: network::Switch,

    /// Addresses that jobs with network may reach although they are not public, such as `10.1.0.0/16,192.0.2.7/32`
    #[arg(long, env = "ADE_EGRESS_ALLOW_CIDRS", value_name = "CIDRS", value_delimiter = ',', value_parser = cidr, global = true)]
    pub egress_allow_cidrs: Vec<IpNet>,

    /// HTTP proxy that connections of jobs go out through, `http://user:password@host:port` [default: none]
    #[arg(long, env = "ADE_UPSTREAM_PROXY", value_name = "URL", hide_env_values = true, value_parser = upstream, global = true)]
    pub upstream_proxy: Option<Result<Upstream, String>>,

    /// Connections of one job at once
    #[arg(long, env = "ADE_EGRESS_CONNECTIONS", value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512), global = true)]
    pub egress_connections: u16,

    /// Connections of one job in all; each is an event
    #[arg(long, env = "ADE_EGRESS_CONNECTIONS_IN_ALL", value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=50_000), global = true)]
    pub egress_connections_in_all: u16,

    /// Bytes of all connections of one job together, each way, MiB
    #[arg(long, env = "ADE_EGRESS_MB", value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1_048_576), global = true)]
    pub egress_mb: u64,

    /// Time for a connection of a job to come about, seconds
    #[arg(long, env = "ADE_EGRESS_CONNECT_SECONDS", value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=300), global = true)]
    pub egress_connect_seconds: u64,

    /// Time after which a connection of a job ends that no byte passes, seconds
    #[arg(long, env = "ADE_EGRESS_IDLE_SECONDS", value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400), global = true)]
    pub egress_idle_seconds: u64,
}

impl Settings {
    /// Dependency sets as set, with their records below `data_dir` unless told otherwise.
    #[must_use]
    pub fn deps(&self, data_dir: &Path) -> Deps {
        let index = Index {
            tool: self.installer,
            url: self.index_url.clone().unwrap_or_else(|| PUBLIC_INDEX.to_owned()),
            extra_urls: self.extra_index_urls.clone(),
            file_hosts: self.index_file_hosts.clone(),
            wheelhouse: self.wheelhouse.clone(),
            workspace_wheelhouses: self.workspace_wheelhouses.clone(),
            max_set_mb: self.deps_max_set_mb,
            timeout: Duration::from_secs(self.install_timeout_seconds),
        };
        let root = self.deps_dir.clone().unwrap_or_else(|| data_dir.join("deps"));
        Deps::new(index, Sets::new(root, self.deps_budget_mb * 1024 * 1024))
    }

    /// The caps as the sandbox takes them.
    #[must_use]
    pub fn caps(&self) -> Caps {
        Caps {
            timeout: Duration::from_secs(self.job_timeout_seconds),
            memory_mb: self.worker_mem_mb,
            cpu_seconds: self.worker_cpu_seconds,
            output_mb: self.worker_fsize_mb,
            cpus: self.worker_cpus,
            pids: self.worker_pids,
        }
    }
}

/// A network, or one address.
fn cidr(text: &str) -> Result<IpNet, String> {
    let net = text.trim().parse::<IpNet>().or_else(|_| text.trim().parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| "write networks such as 10.1.0.0/16 or fd00::/8, separated by commas".into())
}

/// A proxy, or what is wrong with it: an error here would be shown with the whole text, password and all.
#[expect(clippy::unnecessary_wraps, reason = "the signature of a parser")]
fn upstream(text: &str) -> Result<Result<Upstream, String>, String> {
    Ok(text.parse())
}

fn cpus(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.1..=1024.0).contains(&value) => Ok(value),
        _ => Err("must be a number from 0.1 to 1024".into()),
    }
}
