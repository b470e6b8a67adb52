//! Settings of the service: of `ade serve`, and shown by `ade settings`.

use crate::sandbox::PoolSize;
use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings with two published spellings: ids of the arguments, the one that is documented first.
pub(super) const TWINS: [(&str, &str); 2] =
    [("max_concurrency", "queue_max_concurrency"), ("queue_size", "queue_max_size")];

const QUEUE_SIZE: u64 = 10_000;

/// Settings of the service. A flag wins over its environment variable, which wins over the default. Call
/// [`settle`](Self::settle) once after parsing.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service settings")]
pub struct ServeSettings {
    /// Folder of the embedded database and of files [default: /var/lib/ade for root, else ~/.local/share/ade]
    #[arg(long, env = "ADE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Address to listen on
    #[arg(long, env = "ADE_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8700")]
    pub listen: SocketAddr,

    /// Database, as `sqlite://…` or `postgres://…` [default: ade.db in the data folder]
    #[arg(long, env = "ADE_DATABASE_URL", value_name = "URL")]
    pub database_url: Option<String>,

    /// Storage of files, as a folder or `file:///…` [default: blobs in the data folder]
    #[arg(long, env = "ADE_BLOB_URL", value_name = "URL")]
    pub blob_url: Option<String>,

    /// Job containers at once on this node [default: its CPUs]
    #[arg(long, env = "ADE_MAX_CONCURRENCY", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_concurrency: Option<u32>,

    /// Another spelling of --max-concurrency
    #[arg(long, env = "ADE_QUEUE_MAX_CONCURRENCY", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub queue_max_concurrency: Option<u32>,

    /// Containers that wait for a job, whether any is asked for or not [default: the job containers at once, at most 8]
    #[arg(long, env = "ADE_POOL_MIN", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub pool_min: Option<u32>,

    /// Containers that wait for a job at most; 0 starts one for every job [default: four times the job containers at once]
    #[arg(long, env = "ADE_POOL_MAX", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub pool_max: Option<u32>,

    /// What all jobs in waiting containers together may use, MiB
    #[arg(long, env = "ADE_POOL_MEMORY_MB", value_name = "MIB", default_value_t = 8192, value_parser = clap::value_parser!(u64).range(0..=1_073_741_824))]
    pub pool_memory_mb: u64,

    /// Queued jobs of the whole instance; above it, new ones are refused [default: 10000]
    #[arg(long, env = "ADE_QUEUE_SIZE", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub queue_size: Option<u64>,

    /// Another spelling of --queue-size
    #[arg(long, env = "ADE_QUEUE_MAX_SIZE", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub queue_max_size: Option<u64>,

    /// Queued jobs of one workspace, where it has no bound of its own
    #[arg(long, env = "ADE_WORKSPACE_QUEUE_SIZE", value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub workspace_queue_size: u64,

    /// Running jobs of one workspace, where it has no bound of its own; 0 for no bound
    #[arg(long, env = "ADE_WORKSPACE_MAX_CONCURRENCY", value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub workspace_max_concurrency: u32,

    /// Time that a job may wait in the queue before it fails, seconds; 0 for any time
    #[arg(long, env = "ADE_QUEUE_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=31_536_000))]
    pub queue_timeout_seconds: u64,

    /// Executions of one job, after crashes and lost nodes, before it fails
    #[arg(long, env = "ADE_MAX_EXECUTIONS", value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub max_executions: u32,

    /// Time after which a node that no longer reports loses its jobs to others, seconds
    #[arg(long, env = "ADE_LEASE_SECONDS", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(3..=3_600))]
    pub lease_seconds: u64,

    /// Time for requests and jobs to end after SIGTERM, seconds
    #[arg(long, env = "ADE_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub drain_seconds: u64,

    /// Whether this node takes and runs jobs
    #[arg(long, env = "ADE_QUEUE", value_name = "SWITCH", default_value = "on")]
    pub queue: Switch,

    /// Run no script at all: jobs and activations are refused
    #[arg(
        long, env = "ADE_SAFE_MODE", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new()
    )]
    pub safe_mode: bool,

    /// Largest document, MiB
    #[arg(long, env = "ADE_MAX_DOCUMENT_MB", value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub max_document_mb: u64,

    /// Drafts of configs of one workspace
    #[arg(long, env = "ADE_MAX_DRAFTS", value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_drafts: u32,

    /// Memory for packages that are published, imported, validated or downloaded just now, MiB; half of it for one workspace
    #[arg(long, env = "ADE_PACKAGE_MEMORY_MB", value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(272..=1_048_576))]
    pub package_memory_mb: u64,

    /// Connections at once; above it, new ones wait
    #[arg(long, env = "ADE_MAX_CONNECTIONS", value_name = "COUNT", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Event streams, exports of the audit and waiting requests of one key at once
    #[arg(long, env = "ADE_MAX_STREAMS_PER_KEY", value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_streams_per_key: u32,

    /// Requests per second of one key, twice as many in a burst; 0 for any number
    #[arg(long, env = "ADE_RATE_LIMIT", value_name = "PER_SECOND", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rate_limit: u32,

    /// What to log: a level, or a filter such as `info,ade::queue=debug`
    #[arg(long = "log", env = "ADE_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// Shape of the log on stderr
    #[arg(long, env = "ADE_LOG_FORMAT", value_name = "FORMAT", default_value = "pretty")]
    pub log_format: LogFormat,

    /// Time to keep finished jobs and their files, days; 0 for ever
    #[arg(long, env = "ADE_RETENTION_JOBS_DAYS", value_name = "DAYS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=36_500))]
    pub retention_jobs_days: u32,

    /// Time to keep documents that no job needs, days; 0 for ever
    #[arg(long, env = "ADE_RETENTION_DOCUMENTS_DAYS", value_name = "DAYS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=36_500))]
    pub retention_documents_days: u32,

    /// Time to keep the events of finished jobs, days; 0 for as long as the job
    #[arg(long, env = "ADE_RETENTION_EVENTS_DAYS", value_name = "DAYS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=36_500))]
    pub retention_events_days: u32,

    /// Finished jobs to keep per workspace, the newest; 0 for all
    #[arg(long, env = "ADE_QUOTA_JOBS", value_name = "COUNT", default_value_t = 0)]
    pub quota_jobs: u64,

    /// Documents of one workspace in sum, MiB; 0 for any size
    #[arg(long, env = "ADE_QUOTA_DOCUMENTS_MB", value_name = "MIB", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_073_741_824))]
    pub quota_documents_mb: u64,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Shape of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Both spellings of a setting were used, with different values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{first} and {second} are the same setting, and have the values {first_value} and {second_value}: drop one of them"
)]
pub struct Disagreement {
    first: String,
    first_value: String,
    second: String,
    second_value: String,
}

impl ServeSettings {
    /// Brings the two spellings of a setting together. `matches` is what these settings were parsed from.
    ///
    /// # Errors
    /// When both are given with different values and neither is a flag against the other's environment variable.
    pub fn settle(&mut self, matches: &ArgMatches) -> Result<(), Disagreement> {
        let [concurrency, size] = TWINS;
        self.max_concurrency = settled(matches, concurrency, self.max_concurrency, self.queue_max_concurrency)?;
        self.queue_max_concurrency = None;
        self.queue_size = settled(matches, size, self.queue_size, self.queue_max_size)?;
        self.queue_max_size = None;
        Ok(())
    }

    /// Folder of the embedded database and of files.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(default_data_dir)
    }

    /// URL of the database.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.database_url.clone().unwrap_or_else(|| sqlite_url(&self.data_dir().join("ade.db")))
    }

    /// Folder or URL of the storage of files.
    #[must_use]
    pub fn blob_url(&self) -> String {
        self.blob_url.clone().unwrap_or_else(|| self.data_dir().join("blobs").to_string_lossy().into_owned())
    }

    /// How many containers may wait for a job on this node.
    #[must_use]
    pub fn pool_size(&self) -> PoolSize {
        if self.safe_mode {
            return PoolSize::NONE;
        }
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let most = count(self.pool_max.unwrap_or_else(|| self.max_concurrency().saturating_mul(4)));
        // A node that takes no jobs still activates versions.
        let floor = count(self.pool_min.unwrap_or_else(|| self.max_concurrency().min(8))).min(most);
        let floor = if self.queue == Switch::On { floor } else { 0 };
        PoolSize { floor, most, memory_mb: self.pool_memory_mb }
    }

    /// Job containers at once on this node.
    #[must_use]
    pub fn max_concurrency(&self) -> u32 {
        let cpus = || std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1));
        self.max_concurrency.or(self.queue_max_concurrency).unwrap_or_else(cpus)
    }

    /// Queued jobs of the whole instance.
    #[must_use]
    pub fn queue_size(&self) -> u64 {
        self.queue_size.or(self.queue_max_size).unwrap_or(QUEUE_SIZE)
    }

    /// Running jobs of one workspace; `None` for no bound.
    #[must_use]
    pub fn workspace_max_concurrency(&self) -> Option<u32> {
        Some(self.workspace_max_concurrency).filter(|count| *count > 0)
    }

    /// Time that a job may wait in the queue; `None` for any time.
    #[must_use]
    pub fn queue_timeout(&self) -> Option<Duration> {
        Some(self.queue_timeout_seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs)
    }

    /// Largest document, bytes.
    #[must_use]
    pub fn max_document_bytes(&self) -> u64 {
        self.max_document_mb * 1024 * 1024
    }

    /// What the defaults that depend on the machine or on other settings come to, by id of the argument.
    pub(super) fn computed(&self, id: &str) -> Option<String> {
        match id {
            "data_dir" => Some(self.data_dir().to_string_lossy().into_owned()),
            "database_url" => Some(self.database_url()),
            "blob_url" => Some(self.blob_url()),
            "max_concurrency" => Some(self.max_concurrency().to_string()),
            "pool_min" => Some(self.pool_size().floor.to_string()),
            "pool_max" => Some(self.pool_size().most.to_string()),
            "queue_size" => Some(self.queue_size().to_string()),
            _ => None,
        }
    }
}

/// Which of two spellings counts.
pub(super) fn winner<'a>(matches: &ArgMatches, (first, second): (&'a str, &'a str)) -> &'a str {
    match (matches.value_source(first), matches.value_source(second)) {
        (None, Some(_)) | (Some(ValueSource::EnvVariable), Some(ValueSource::CommandLine)) => second,
        _ => first,
    }
}

fn settled<T: PartialEq + std::fmt::Display>(
    matches: &ArgMatches,
    twins: (&str, &str),
    first: Option<T>,
    second: Option<T>,
) -> Result<Option<T>, Disagreement> {
    let source = matches.value_source(twins.0);
    match (&first, &second) {
        (Some(a), Some(b)) if a != b && source == matches.value_source(twins.1) => {
            let name = |id: &str| match source {
                Some(ValueSource::CommandLine) => format!("--{}", id.replace('_', "-")),
                _ => format!("ADE_{}", id.to_uppercase()),
            };
            Err(Disagreement {
                first: name(twins.0),
                first_value: a.to_string(),
                second: name(twins.1),
                second_value: b.to_string(),
            })
        }
        _ => Ok(if winner(matches, twins) == twins.1 { second } else { first }),
    }
}

/// Where data lies unless told otherwise: `/var/lib/ade` for root; else `ade` in `$XDG_DATA_HOME` where that is an absolute
/// path (XDG Base Directory Specification), or in `~/.local/share`.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    data_dir(rustix::process::geteuid().is_root(), std::env::var_os("XDG_DATA_HOME"), std::env::home_dir())
}

/// Where commands that speak to no service keep what they must keep: as [`default_data_dir`], unless `ADE_DATA_DIR` says otherwise.
#[must_use]
pub fn local_data_dir() -> PathBuf {
    std::env::var_os("ADE_DATA_DIR").filter(|dir| !dir.is_empty()).map_or_else(default_data_dir, PathBuf::from)
}

fn data_dir(root: bool, xdg: Option<OsString>, home: Option<PathBuf>) -> PathBuf {
    if root {
        return "/var/lib/ade".into();
    }
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    // Without a home there is no better place than here.
    xdg.unwrap_or_else(|| home.unwrap_or_else(|| ".".into()).join(".local/share")).join("ade")
}

/// The path as sqlx takes it: it decodes percent signs, and a question mark begins options.
fn sqlite_url(path: &Path) -> String {
    format!("sqlite://{}", path.to_string_lossy().replace('%', "%25").replace('?', "%3F"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches};

    fn parse(args: &[&str]) -> Result<ServeSettings, String> {
        // Without the environment: the machine that runs the tests may have some of it set.
        let command = ServeSettings::augment_args(Command::new("ade")).mut_args(|arg| arg.env(None::<&str>));
        let matches = command.try_get_matches_from([&["ade"], args].concat()).map_err(|error| error.to_string())?;
        let mut settings = ServeSettings::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        settings.settle(&matches).map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn defaults_are_as_documented() {
        let settings = parse(&["--data-dir", "/x y?"]).unwrap();
        assert_eq!(settings.database_url(), "sqlite:///x y%3F/ade.db");
        assert_eq!(settings.blob_url(), "/x y?/blobs");
        assert_eq!((settings.queue_size(), settings.queue_timeout()), (10_000, None));
        assert!(settings.max_concurrency() >= 1 && settings.queue == Switch::On && !settings.safe_mode);
    }

    #[test]
    fn both_spellings_work_and_must_agree() {
        assert_eq!(parse(&["--queue-max-size=5"]).unwrap().queue_size(), 5);
        assert_eq!(parse(&["--queue-size=5", "--queue-max-size=5"]).unwrap().queue_size(), 5);
        let error = parse(&["--max-concurrency=1", "--queue-max-concurrency=2"]).unwrap_err();
        assert!(error.contains("--max-concurrency and --queue-max-concurrency"), "{error}");
    }

    #[test]
    fn safe_mode_is_a_flag_that_may_have_a_value() {
        assert!(parse(&["--safe-mode"]).unwrap().safe_mode);
        assert!(!parse(&["--safe-mode=off"]).unwrap().safe_mode);
        assert!(parse(&["--safe-mode=maybe"]).is_err());
    }

    #[test]
    fn data_goes_where_the_user_may_write() {
        let dir =
            |root, xdg: Option<&str>, home: Option<&str>| data_dir(root, xdg.map(Into::into), home.map(Into::into));
        assert_eq!(dir(true, Some("/x"), Some("/h")), Path::new("/var/lib/ade"));
        assert_eq!(dir(false, Some("/x"), Some("/h")), Path::new("/x/ade"));
        assert_eq!(dir(false, Some("relative"), Some("/h")), Path::new("/h/.local/share/ade"));
        assert_eq!(dir(false, None, None), Path::new("./.local/share/ade"));
    }
}
