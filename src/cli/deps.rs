//! `ade deps`: the dependency sets of this machine.

use super::style::{self, DIM, bytes, paint};
use super::{Exit, Output, fail, node};
use crate::deps::{Deps, Listed};
use crate::sandbox::{Failure, FailureKind};
use crate::settings::{ClientSettings, Settings};
use crate::text::plain;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    client: ClientSettings,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the sets, the most recently used first
    List,
    /// Show one set: where it came from and what is in it
    Show {
        /// Id of the set, or its beginning
        set: String,
        /// Print its lock, as a requirements file with hashes, and nothing else
        #[arg(long, conflicts_with = "log")]
        lock: bool,
        /// Print what its installer said, and nothing else
        #[arg(long)]
        log: bool,
    },
    /// Remove sets that nobody uses right now: without arguments what is over the budget, and what crashes left
    Prune {
        /// Ids of sets, or their beginnings
        #[arg(conflicts_with_all = ["all", "unused_days"])]
        sets: Vec<String>,
        /// Remove all
        #[arg(long)]
        all: bool,
        /// Remove those that were not used for so many days
        #[arg(long, value_name = "DAYS", conflicts_with = "all", value_parser = clap::value_parser!(u64).range(0..=36_500))]
        unused_days: Option<u64>,
    },
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let deps = settings.deps(&args.client.data_dir());
    let result = match args.command {
        Command::List => {
            list(&deps, output);
            Ok(())
        }
        Command::Show { set, lock, log } => show(&deps, &set, lock, log, output),
        Command::Prune { sets, all, unused_days } => {
            prune(&deps, settings, &Choice { sets, all, unused_days }, output).await
        }
    };
    match result {
        Ok(()) => Exit::Success.into(),
        Err(failure) => fail(&failure, &[], output),
    }
}

fn list(deps: &Deps, output: Output) {
    let sets = deps.sets().list();
    if output.json {
        println!("{}", json!({"items": sets.iter().map(summary).collect::<Vec<_>>()}));
        return;
    }
    if sets.is_empty() {
        anstream::println!("no dependency sets yet: the first job of a package with requirements.txt makes one");
        return;
    }
    let rows: Vec<[String; 7]> = sets.iter().map(row).collect();
    style::table(["SET", "WORKSPACE", "SIZE", "PACKAGES", "FROM", "LAST USED", "REQUIREMENTS"], &rows);
    let total = sets.iter().map(|set| set.record.bytes).sum();
    anstream::println!("{}", paint(DIM, format!("{} in all", bytes(total))));
}

fn row(set: &Listed) -> [String; 7] {
    let record = &set.record;
    [
        record.set_id.chars().take(16).collect(),
        record.workspace_id.clone(),
        bytes(record.bytes),
        record.packages.len().to_string(),
        record.source.clone(),
        moment(set.last_used),
        plain(&record.requirements.join(", "), 60),
    ]
}

/// A set without its lock, which `show` has.
fn summary(set: &Listed) -> Value {
    let record = &set.record;
    json!({
        "set_id": record.set_id,
        "workspace_id": record.workspace_id,
        "requirements": record.requirements,
        "source": record.source,
        "packages": record.packages.len(),
        "bytes": record.bytes,
        "created_at": record.created_at,
        "last_used": moment(set.last_used),
        "volume": record.volume,
    })
}

fn show(deps: &Deps, id: &str, lock: bool, log: bool, output: Output) -> Result<(), Failure> {
    let set = one(deps, id)?;
    let record = &set.record;
    if lock {
        print!("{}", record.lock);
    } else if log {
        print!("{}", deps.sets().log(record));
    } else if output.json {
        let mut shown = json!(record);
        shown["last_used"] = moment(set.last_used).into();
        println!("{shown}");
    } else {
        style::fields(&[
            ("set", Some(record.set_id.clone())),
            ("workspace", Some(record.workspace_id.clone())),
            ("volume", Some(record.volume.clone())),
            ("created", Some(record.created_at.clone())),
            ("last used", Some(moment(set.last_used))),
            (
                "installed",
                Some(format!("by {} {} in {}", record.tool, record.tool_version, style::seconds(record.install_ms))),
            ),
            ("from", Some(record.source.clone())),
            ("python", Some(record.python.clone())),
            ("size", Some(format!("{} in {} files", bytes(record.bytes), style::thousands(record.files)))),
            ("lock sha256", Some(record.lock_sha256.clone())),
        ]);
        let rows: Vec<[String; 3]> = record
            .packages
            .iter()
            .map(|one| [one.name.clone(), one.version.clone(), if one.requested { "requested" } else { "" }.to_owned()])
            .collect();
        anstream::println!();
        style::table(["PACKAGE", "VERSION", ""], &rows);
    }
    Ok(())
}

/// Which sets are to go.
struct Choice {
    sets: Vec<String>,
    all: bool,
    unused_days: Option<u64>,
}

async fn prune(deps: &Deps, settings: &Settings, choice: &Choice, output: Output) -> Result<(), Failure> {
    let docker = node::connect(settings).await?;
    let before = deps.sets().list();
    let chosen: Vec<Listed> = if !choice.sets.is_empty() {
        choice.sets.iter().map(|id| one(deps, id)).collect::<Result<_, _>>()?
    } else if choice.all {
        before.clone()
    } else if let Some(days) = choice.unused_days {
        let oldest = SystemTime::now().checked_sub(Duration::from_secs(days * 24 * 60 * 60));
        let oldest = oldest.and_then(|oldest| oldest.duration_since(SystemTime::UNIX_EPOCH).ok());
        before.iter().filter(|set| oldest.is_some_and(|oldest| set.last_used <= oldest.as_secs())).cloned().collect()
    } else {
        Vec::new()
    };
    let mut in_use = Vec::new();
    for set in &chosen {
        if !deps.sets().remove(&docker, &set.record).await {
            in_use.push(set.record.set_id.clone());
        }
    }
    deps.sweep(&docker).await;
    deps.sets().evict(&docker).await;
    let after = deps.sets().list();
    let gone: Vec<&Listed> =
        before.iter().filter(|old| !after.iter().any(|new| new.record.volume == old.record.volume)).collect();
    let freed: u64 = gone.iter().map(|set| set.record.bytes).sum();
    if output.json {
        let removed: Vec<&str> = gone.iter().map(|set| set.record.set_id.as_str()).collect();
        println!("{}", json!({"removed": removed, "in_use": in_use, "freed_bytes": freed}));
        return Ok(());
    }
    anstream::println!("removed {} sets, {}", gone.len(), bytes(freed));
    for id in in_use {
        anstream::println!("{id} is in use and stays");
    }
    Ok(())
}

/// The one set whose id begins like this.
fn one(deps: &Deps, id: &str) -> Result<Listed, Failure> {
    let mut found: Vec<Listed> = match id {
        // What a variable of a shell comes to that is not set: it must not mean the only set that there is.
        "" => Vec::new(),
        id => deps.sets().list().into_iter().filter(|set| set.record.set_id.starts_with(id)).collect(),
    };
    match found.pop() {
        Some(set) if found.is_empty() => Ok(set),
        Some(_) => {
            Err(Failure::new(FailureKind::InputMissing, format!("more than one set has an id that begins with {id:?}")))
        }
        None => Err(Failure::new(
            FailureKind::InputMissing,
            format!("no set of this machine has an id that begins with {id:?}; `ade deps list` shows them"),
        )),
    }
}

fn moment(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}
