//! `ade config`, on a service.

pub mod diff;
mod draft;
mod history;
mod package;

use super::{Listing, Remote, moment, submit};
use crate::api::routes::activation::ActivationRecord;
use crate::api::routes::configs::ConfigRecord;
use crate::api::routes::versions::VersionRecord;
use crate::cli::{Exit, Output, style};
use crate::client::{Blame, ClientError};
use crate::settings::{ClientSettings, Settings};
use crate::text::plain;
use reqwest::Method;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Publish a package: as the next version of a config, or as v1 of a new one; a package that has not changed is no new version
    #[command(alias = "register")]
    Push(package::Push),
    /// Fetch the package of a version into a new folder
    Pull {
        /// The config, by id or slug, and the version if not the newest, such as members@v3
        #[arg(value_name = "CONFIG[@VERSION]")]
        config: Named,
        /// Folder to make
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Make a new config of the package of a version
    Clone {
        /// The config, by id or slug, and the version if not the newest, such as members@v3
        #[arg(value_name = "CONFIG[@VERSION]")]
        config: Named,
        /// Name of the new config in commands and URLs: lower-case letters, digits and hyphens
        slug: String,
        /// Its name for people [default: the manifest's title]
        #[arg(long, value_name = "TEXT")]
        title: Option<String>,
    },
    /// Fetch the package of a version as a zip; published anywhere, it has the same hash
    Export {
        /// The config, by id or slug, and the version if not the newest, such as members@v3
        #[arg(value_name = "CONFIG[@VERSION]")]
        config: Named,
        /// Zip file to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Drafts of a config: files that are changed one by one, and become a version when they are published
    #[command(subcommand)]
    Draft(draft::Command),
    /// List configs, the newest first
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a config
    Get {
        /// The config, by id or slug
        config: String,
    },
    /// Show the versions of a config: who published them, and when they were active
    History {
        /// The config, by id or slug
        config: String,
    },
    /// Make a version the one that runs when a submission names none
    ///
    /// The service checks the package, installs its dependencies and runs its on_activate hooks first; when any of that fails,
    /// nothing changes. Interrupting the command cancels the activation.
    Activate {
        /// The config, by id or slug, and the version if not the newest, such as members@v3
        #[arg(value_name = "CONFIG[@VERSION]")]
        config: Named,
    },
    /// Activate the version of a config that was active before the one that is, with all that an activation checks
    Rollback {
        /// The config, by id or slug
        config: String,
    },
    /// Take the active version of a config back: submissions that name no config are then refused
    Deactivate {
        /// The config, by id or slug
        config: String,
    },
    /// Archive a config, or a version of it: it takes no jobs any more
    Archive {
        /// The config, by id or slug, or a version of it, such as members@v3
        #[arg(value_name = "CONFIG[@VERSION]")]
        config: Named,
    },
    /// Restore an archived config, or a version of it
    Restore {
        /// The config, by id or slug, or a version of it, such as members@v3
        #[arg(value_name = "CONFIG[@VERSION]")]
        config: Named,
    },
}

/// A config, and a version or a draft of it if one is named: `members`, `members@v3`.
#[derive(Debug, Clone)]
pub struct Named {
    config: String,
    version: Option<String>,
}

impl std::str::FromStr for Named {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('@') {
            Some((config, version)) => Self { config: config.to_owned(), version: Some(version.to_owned()) },
            None => Self { config: text.to_owned(), version: None },
        })
    }
}

/// Runs the command.
pub async fn main(command: Command, client: ClientSettings, settings: &Settings, output: Output) -> ExitCode {
    super::run(client, settings, output, async |remote: &Remote| run(remote, command).await).await
}

async fn run(remote: &Remote, command: Command) -> Result<Exit, ClientError> {
    match command {
        Command::Push(args) => package::push(remote, args).await,
        Command::Pull { config, folder } => package::pull(remote, &config, &folder).await,
        Command::Clone { config, slug, title } => package::clone(remote, &config, slug, title).await,
        Command::Export { config, file } => package::export(remote, &config, &file).await,
        Command::Draft(command) => draft::run(remote, command).await,
        Command::List { listing } => {
            let headers = ["CONFIG", "SLUG", "TITLE", "VERSION", "REGISTERED"];
            let configs = ["workspaces", remote.workspace().await?, "configs"];
            remote
                .list(&configs, &[], listing, headers, |config: &ConfigRecord| {
                    let latest = config.latest_version.as_ref();
                    [
                        config.config_id.to_string(),
                        plain(&config.slug, 100),
                        plain(&config.title, 40),
                        latest.map(|version| plain(&version.version, 10)).unwrap_or_default(),
                        moment(&config.created_at),
                    ]
                })
                .await
        }
        Command::Get { config } => Ok(show(remote, &submit::config(remote, &config).await?)),
        Command::History { config } => history::show(remote, &config).await,
        Command::Activate { config } => {
            let (config, version) = find(remote, &config).await?;
            activate(remote, &config, &version).await
        }
        Command::Rollback { config } => {
            let config = submit::config(remote, &config).await?;
            let version = history::before_the_active(remote, &config).await?;
            activate(remote, &config, &version).await
        }
        Command::Deactivate { config } => deactivate(remote, &config).await,
        Command::Archive { config } => archive(remote, &config, true).await,
        Command::Restore { config } => archive(remote, &config, false).await,
    }
}

/// All versions of a config, the newest first.
async fn versions(remote: &Remote, config: &ConfigRecord) -> Result<Vec<VersionRecord>, ClientError> {
    let path = ["workspaces", remote.workspace().await?, "configs", config.config_id.as_str(), "versions"];
    Ok(remote.client.list(&path, &[], None).await?.items)
}

/// A config and the version of it that is named: by number, by id, or the newest that is not archived.
async fn find(remote: &Remote, named: &Named) -> Result<(ConfigRecord, VersionRecord), ClientError> {
    let mut config = submit::config(remote, &named.config).await?;
    let missing = |what: String| ClientError::new(Blame::Request, "version_not_found", what);
    let version = match &named.version {
        None => config.latest_version.take(),
        Some(version) => {
            let all = versions(remote, &config).await?;
            all.into_iter().find(|one| one.version == *version || one.config_version_id.as_str() == version)
        }
    };
    let slug = plain(&config.slug, 100);
    let version = version.ok_or_else(|| match &named.version {
        None => missing(format!("{slug} has no version that is not archived")),
        Some(version) => missing(format!(
            "{slug} has no version {:?}; versions are named v1, v2 and so on, and `ade config history {slug}` lists them",
            plain(version, 40)
        )),
    })?;
    Ok((config, version))
}

async fn activate(remote: &Remote, config: &ConfigRecord, version: &VersionRecord) -> Result<Exit, ClientError> {
    let (workspace, config) = (remote.workspace().await?, config.config_id.as_str());
    let version = version.config_version_id.as_str();
    let path = ["workspaces", workspace, "configs", config, "versions", version, "activate"];
    let record: ActivationRecord = remote.client.json(remote.client.patient(Method::POST, &path)).await?;
    Ok(activated(remote, &record))
}

async fn deactivate(remote: &Remote, named: &str) -> Result<Exit, ClientError> {
    let config = submit::config(remote, named).await?;
    let active = versions(remote, &config).await?.into_iter().find(|version| version.active);
    let slug = plain(&config.slug, 100);
    let active = active.ok_or_else(|| {
        let message = format!("no version of {slug} is active; nothing was changed");
        ClientError::new(Blame::Request, "version_not_active", message)
    })?;
    let (config, id) = (config.config_id.as_str(), active.config_version_id.as_str());
    let path = ["workspaces", remote.workspace().await?, "configs", config, "versions", id, "deactivate"];
    let record: VersionRecord = remote.client.json(remote.client.request(Method::POST, &path)).await?;
    if remote.output.json {
        println!("{}", json!(record));
    } else {
        let version = plain(&record.version, 10);
        anstream::println!("{slug}@{version} is no longer active; a submission that names no config is refused now");
    }
    Ok(Exit::Success)
}

/// Archives or restores a version, or where none is named, the config.
async fn archive(remote: &Remote, named: &Named, archive: bool) -> Result<Exit, ClientError> {
    let workspace = remote.workspace().await?;
    if named.version.is_none() {
        let config = submit::config(remote, &named.config).await?;
        let path = ["workspaces", workspace, "configs", config.config_id.as_str()];
        let request = if archive {
            remote.client.request(Method::DELETE, &path)
        } else {
            remote.client.request(Method::POST, &[&path[..], &["restore"]].concat())
        };
        let record: ConfigRecord = remote.client.json(request).await?;
        return Ok(show(remote, &record));
    }
    let (config, version) = find(remote, named).await?;
    let action = if archive { "archive" } else { "restore" };
    let (config, id) = (config.config_id.as_str(), version.config_version_id.as_str());
    let path = ["workspaces", workspace, "configs", config, "versions", id, action];
    let record: VersionRecord = remote.client.json(remote.client.request(Method::POST, &path)).await?;
    Ok(remote.show(
        &record,
        &[
            ("version", Some(format!("{} ({})", plain(&record.version, 10), record.config_version_id))),
            ("config", Some(record.config_id.to_string())),
            ("sha256", Some(plain(&record.package_sha256, 64))),
            ("archived", record.archived_at.as_deref().map(moment)),
        ],
    ))
}

fn activated(remote: &Remote, record: &ActivationRecord) -> Exit {
    if !remote.output.json {
        style::diagnostics(&record.diagnostics);
        style::hook_output(&record.hook_output);
    }
    let text = |key: &str| record.dependencies[key].as_str().map(|text| plain(text, 80));
    let packages = record.dependencies["packages"].as_array().map(Vec::len);
    let dependencies = text("status").map(|status| match packages {
        Some(count) => format!("{status}, {count} packages ({})", text("set_id").unwrap_or_default()),
        None => status,
    });
    let exit = remote.show(
        record,
        &[
            ("active", Some(format!("{} ({})", plain(&record.version, 10), record.config_version_id))),
            ("config", Some(record.config_id.to_string())),
            ("before", record.previous_version_id.as_ref().map(ToString::to_string)),
            ("since", Some(moment(&record.activated_at))),
            ("took", Some(style::seconds(record.duration_ms))),
            ("dependencies", dependencies),
        ],
    );
    if !remote.output.json {
        for hook in &record.hooks {
            let returned = hook.returned.as_ref().map(|returned| plain(&serde_json::json!(returned).to_string(), 500));
            let returned = returned.map(|returned| format!("  returned {returned}")).unwrap_or_default();
            anstream::println!("  {}  {}{returned}", plain(&hook.hook, 240), style::seconds(hook.duration_ms));
        }
    }
    exit
}

fn show(remote: &Remote, config: &ConfigRecord) -> Exit {
    let latest = config.latest_version.as_ref();
    remote.show(
        config,
        &[
            ("config", Some(config.config_id.to_string())),
            ("slug", Some(plain(&config.slug, 100))),
            ("title", Some(plain(&config.title, 255))),
            ("description", Some(plain(&config.description, 500)).filter(|text| !text.is_empty())),
            ("version", latest.map(|version| format!("{} ({})", version.version, version.config_version_id))),
            ("manifest", latest.map(|version| plain(&version.manifest_version, 64))),
            ("sha256", latest.map(|version| plain(&version.package_sha256, 64))),
            ("max running", config.max_running.map(|max| max.to_string())),
            ("registered", Some(moment(&config.created_at))),
            ("archived", config.archived_at.as_deref().map(moment)),
        ],
    )
}
