//! Settings of the commands that speak to a service.

use super::default_data_dir;
use clap::Args;
use std::path::PathBuf;

/// Settings of the commands that speak to a service. A flag wins over its environment variable, which wins over the default.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Client settings")]
pub struct ClientSettings {
    /// The service and who asks it.
    #[command(flatten)]
    pub target: Target,

    /// Data folder of a service on this machine [default: /var/lib/ade for root, else ~/.local/share/ade]
    #[arg(long, env = "ADE_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
}

/// The service and who asks it: what clients have that services have not.
#[derive(Clone, Args)]
#[command(next_help_heading = "Client settings")]
pub struct Target {
    /// The service [default: the address in the data folder, else http://127.0.0.1:8700]
    #[arg(long, env = "ADE_SERVER", value_name = "URL", global = true)]
    pub server: Option<String>,

    /// API key [default: the first admin's, from the data folder, for a service on this machine]
    #[arg(long, env = "ADE_API_KEY", value_name = "KEY", global = true, hide_env_values = true)]
    pub api_key: Option<String>,

    /// Workspace, by id or slug [default: the key's own, else the only one, else `default`]
    #[arg(long, env = "ADE_WORKSPACE", value_name = "WORKSPACE", global = true)]
    pub workspace: Option<String>,
}

impl ClientSettings {
    /// Data folder of a service on this machine.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(default_data_dir)
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("server", &self.server).finish_non_exhaustive()
    }
}
