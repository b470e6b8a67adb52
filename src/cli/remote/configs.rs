//! `ade config`, on a service.

use super::{Listing, Remote, moment, submit};
use crate::api::routes::activation::ActivationRecord;
use crate::api::routes::configs::ConfigRecord;
use crate::api::routes::versions::VersionRecord;
use crate::cli::{Exit, Output, style};
use crate::client::{Blame, ClientError};
use crate::ids::VersionId;
use crate::job::open_package;
use crate::settings::{ClientSettings, Settings};
use crate::text::plain;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Register a package as version v1 of a new config
    Register(Register),
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
    /// Make a version the one that runs when a submission names none
    ///
    /// The service checks the package, installs its dependencies and runs its on_activate hooks first; when any of that fails,
    /// nothing changes. Interrupting the command cancels the activation.
    #[command(disable_version_flag = true)]
    Activate {
        /// The config, by id or slug
        config: String,
        /// The version: v1, v2 and so on, or an id [default: the newest]
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub struct Register {
    /// Config package: a folder, or a zip of one
    package: PathBuf,
    /// Its name in commands and URLs: lower-case letters, digits and hyphens
    #[arg(long, value_name = "SLUG")]
    slug: String,
    /// Its name for people [default: the manifest's title]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Runs the command.
pub async fn main(command: Command, client: ClientSettings, settings: &Settings, output: Output) -> ExitCode {
    super::run(client, settings, output, async |remote: &Remote| run(remote, command).await).await
}

async fn run(remote: &Remote, command: Command) -> Result<Exit, ClientError> {
    let configs = ["workspaces", remote.workspace().await?, "configs"];
    match command {
        Command::Register(args) => {
            let record = register(remote, &configs, args).await?;
            Ok(show(remote, &record))
        }
        Command::List { listing } => {
            let headers = ["CONFIG", "SLUG", "TITLE", "VERSION", "REGISTERED"];
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
        Command::Activate { config, version } => {
            let config = submit::config(remote, &config).await?;
            let version = find_version(remote, &configs, &config, version.as_deref()).await?;
            let (config, version) = (config.config_id.as_str(), version.as_str());
            let path = [&configs[..], &[config, "versions", version, "activate"]].concat();
            let record: ActivationRecord = remote.client.json(remote.client.patient(Method::POST, &path)).await?;
            Ok(activated(remote, &record))
        }
    }
}

/// The version of a config that was named: by number, by id, or the newest.
async fn find_version(
    remote: &Remote,
    configs: &[&str],
    config: &ConfigRecord,
    named: Option<&str>,
) -> Result<VersionId, ClientError> {
    let missing = |what: String| ClientError::new(Blame::Request, "version_not_found", what);
    let Some(named) = named else {
        let newest = config.latest_version.as_ref().map(|version| version.config_version_id.clone());
        return newest.ok_or_else(|| missing(format!("{} has no version", config.config_id)));
    };
    if let Ok(id) = named.parse::<VersionId>() {
        return Ok(id);
    }
    let path = [configs, &[config.config_id.as_str(), "versions"]].concat();
    let all = remote.client.list::<VersionRecord>(&path, &[], None).await?;
    let found = all.items.into_iter().find(|version| version.version == named);
    found.map(|version| version.config_version_id).ok_or_else(|| {
        missing(format!(
            "{} has no version {:?}; versions are named v1, v2 and so on",
            config.config_id,
            plain(named, 40)
        ))
    })
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

async fn register(remote: &Remote, configs: &[&str], args: Register) -> Result<ConfigRecord, ClientError> {
    // Its canonical zip, whatever it is: small, and the same wherever it is made.
    let packing = tokio::task::spawn_blocking(move || -> Result<_, ClientError> {
        let package = open_package(&args.package)?;
        let mut zip = Vec::new();
        package.write_canonical_zip(&mut zip).map_err(|error| ClientError::unreadable(&args.package, error))?;
        Ok((package.package_sha256().to_owned(), zip))
    });
    let (sha256, zip) =
        packing.await.map_err(|error| ClientError::new(Blame::Environment, "host_io", error.to_string()))??;
    let mut form = Form::new().text("slug", args.slug).part("package", Part::bytes(zip).file_name("package.zip"));
    for (name, text) in [("title", args.title), ("description", args.description)] {
        if let Some(text) = text {
            form = form.text(name, text);
        }
    }
    let record: ConfigRecord = remote.client.json(remote.client.request(Method::POST, configs).multipart(form)).await?;
    let stored = record.latest_version.as_ref().map(|version| version.package_sha256.as_str());
    if stored != Some(&*sha256) {
        let message = format!("the service has stored {} with another sha256 than {sha256}", record.config_id);
        return Err(ClientError::new(Blame::Environment, "hash_mismatch", message));
    }
    Ok(record)
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
        ],
    )
}
