//! `ade network`.

use super::{Remote, submit};
use crate::api::routes::network::{
    ChangeConfigNetwork, ChangeSwitch, ChangeWorkspaceNetwork, ConfigNetwork, EffectiveNetwork, InstanceNetwork,
    NetworkRuling, WorkspaceNetwork,
};
use crate::cli::style;
use crate::cli::{Exit, Output};
use crate::client::ClientError;
use crate::ids::ConfigId;
use crate::network::{Access, HostPattern, Switch};
use crate::settings::{self, ClientSettings, Settings};
use crate::text::plain;
use reqwest::Method;
use serde::Serialize;
use serde_json::json;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    client: ClientSettings,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what is set, and what comes of it: for this workspace, or the one of --workspace
    Get(Get),
    /// Set the access of this workspace, or of the one of --workspace; of a package in it; or the switch of the instance
    Set(Set),
}

#[derive(Debug, clap::Args)]
struct Get {
    /// Show it for a package of the workspace, by its config's id or slug
    #[arg(long, value_name = "SLUG_OR_ID", conflicts_with = "instance")]
    package: Option<String>,
    /// Show the switch of the instance
    #[arg(long)]
    instance: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Set {
    /// Set it for a package of the workspace, by its config's id or slug
    #[arg(long, value_name = "SLUG_OR_ID")]
    package: Option<String>,
    /// inherit: nothing is set; deny; install_only: installs of dependencies get network, scripts do not; allow: scripts too, if
    /// the manifest asks
    #[arg(long, value_name = "inherit|deny|install_only|allow")]
    access: Option<Access>,
    /// A host that the package's scripts may reach, such as api.example.com or *.example.com:443, instead of those that are set; may
    /// be given several times
    #[arg(long, value_name = "HOST", requires = "package")]
    allow_host: Vec<HostPattern>,
    /// Take back the list of hosts: where the package's scripts have network, they may reach every public host
    #[arg(long, requires = "package", conflicts_with = "allow_host")]
    no_allow_hosts: bool,
    /// Whether the package's requirements may be built from source, which runs code of theirs during the install
    #[arg(long, value_name = "on|off", requires = "package")]
    source_builds: Option<settings::Switch>,
    /// The switch of the instance. off: nobody gets network; deny: whom an admin allowed it; manifest: also whose manifest asks;
    /// default: the setting of each node
    #[arg(long, value_name = "off|deny|manifest|default", value_parser = switch, conflicts_with_all = ["package", "access"])]
    switch: Option<Stored>,
}

/// A switch, or what the settings say.
#[derive(Debug, Clone, Copy)]
struct Stored(Option<Switch>);

fn switch(text: &str) -> Result<Stored, String> {
    match text {
        "default" => Ok(Stored(None)),
        text => text.parse().map(|switch| Stored(Some(switch))).map_err(|error: String| format!("{error}, default")),
    }
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let command = args.command;
    super::run(args.client, settings, output, async |remote: &Remote| run(remote, command).await).await
}

async fn run(remote: &Remote, command: Command) -> Result<Exit, ClientError> {
    let instance = ["system", "network"];
    match command {
        Command::Get(Get { instance: true, .. }) => {
            Ok(show_instance(remote, &remote.client.json(remote.client.get(&instance)).await?))
        }
        Command::Get(Get { package: None, .. }) => {
            let path = ["workspaces", remote.workspace().await?, "network"];
            Ok(show_workspace(remote, &remote.client.json(remote.client.get(&path)).await?))
        }
        Command::Get(Get { package: Some(package), .. }) => {
            let id = submit::config(remote, &package).await?.config_id;
            Ok(show_package(remote, &remote.client.json(remote.client.get(&path_of(remote, &id).await?)).await?))
        }
        Command::Set(Set { switch: Some(Stored(switch)), .. }) => {
            let request = remote.client.request(Method::PUT, &instance).json(&ChangeSwitch { switch });
            Ok(show_instance(remote, &remote.client.json(request).await?))
        }
        Command::Set(Set { package: None, access, .. }) => {
            let access = access.ok_or_else(nothing)?;
            let path = ["workspaces", remote.workspace().await?, "network"];
            let request = remote.client.request(Method::PUT, &path).json(&ChangeWorkspaceNetwork { access });
            Ok(show_workspace(remote, &remote.client.json(request).await?))
        }
        Command::Set(Set { package: Some(package), access, allow_host, no_allow_hosts, source_builds, .. }) => {
            let hosts = no_allow_hosts || !allow_host.is_empty();
            let change = ChangeConfigNetwork {
                access,
                allowed_hosts: hosts.then_some(allow_host),
                source_builds: source_builds.map(|switch| switch == settings::Switch::On),
            };
            if change.access.is_none() && change.allowed_hosts.is_none() && change.source_builds.is_none() {
                return Err(nothing());
            }
            let id = submit::config(remote, &package).await?.config_id;
            let request = remote.client.request(Method::PUT, &path_of(remote, &id).await?).json(&change);
            Ok(show_package(remote, &remote.client.json(request).await?))
        }
    }
}

fn nothing() -> ClientError {
    ClientError::new(
        crate::client::Blame::Request,
        "nothing_to_set",
        "say what to set: --access, or for a package also --allow-host, --no-allow-hosts or --source-builds",
    )
}

async fn path_of<'a>(remote: &'a Remote, config: &'a ConfigId) -> Result<[&'a str; 5], ClientError> {
    Ok(["workspaces", remote.workspace().await?, "configs", config.as_str(), "network"])
}

fn show_instance(remote: &Remote, network: &InstanceNetwork) -> Exit {
    let source = match network.stored {
        Some(_) if network.setting == Switch::Off => "by ADE_RUNTIME_NETWORK_ACCESS, whatever is stored",
        Some(_) => "stored",
        None => "from the settings",
    };
    let fields = [("switch", Some(format!("{}, {source}", network.switch)))];
    show(remote, network, &fields, &network.effective)
}

fn show_workspace(remote: &Remote, network: &WorkspaceNetwork) -> Exit {
    let fields = [("workspace", Some(network.workspace_id.to_string())), ("access", Some(network.access.to_string()))];
    show(remote, network, &fields, &network.effective)
}

fn show_package(remote: &Remote, network: &ConfigNetwork) -> Exit {
    let hosts: Vec<String> = network.allowed_hosts.iter().map(ToString::to_string).collect();
    let fields = [
        ("package", Some(network.config_id.to_string())),
        ("access", Some(network.access.to_string())),
        ("hosts", Some(if hosts.is_empty() { "every public one".to_owned() } else { hosts.join(", ") })),
        ("source builds", Some(if network.source_builds { "on" } else { "off" }.to_owned())),
    ];
    show(remote, network, &fields, &network.effective)
}

fn show<T: Serialize>(
    remote: &Remote,
    network: &T,
    fields: &[(&str, Option<String>)],
    effective: &EffectiveNetwork,
) -> Exit {
    if remote.output.json {
        println!("{}", json!(network));
        return Exit::Success;
    }
    style::fields(fields);
    anstream::println!();
    let row = |manifest: &str, purpose: &str, ruling: &NetworkRuling| {
        let allowed = if ruling.allowed { "yes" } else { "no" };
        [manifest.to_owned(), purpose.to_owned(), allowed.to_owned(), plain(&ruling.reason, 200)]
    };
    let (asks, silent) = (&effective.manifest_asks, &effective.manifest_does_not_ask);
    style::table(
        ["MANIFEST", "PURPOSE", "NETWORK", "WHY"],
        &[
            row("asks", "install", &asks.install),
            row("asks", "run", &asks.run),
            row("does not ask", "install", &silent.install),
            row("does not ask", "run", &silent.run),
        ],
    );
    Exit::Success
}
