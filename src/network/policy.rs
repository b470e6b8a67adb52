//! Four layers, one decision.

use super::HostPattern;
use crate::text::texts;
use serde_json::{Value, json};

texts! {
    /// The switch of the instance.
    Switch {
        /// Nobody gets network, whatever is set below.
        Off = "off",
        /// Only workspaces and packages that an admin allowed it get network.
        Deny = "deny",
        /// The manifest decides where no admin said anything.
        Manifest = "manifest",
    }
}

texts! {
    /// What an admin sets for a workspace or a package.
    Access {
        /// Nothing: the other layers decide.
        Inherit = "inherit",
        /// No network.
        Deny = "deny",
        /// Installs of dependencies get network, whatever the manifest asks for; scripts get none.
        InstallOnly = "install_only",
        /// Installs get network, whatever the manifest asks for, and scripts get it when the manifest asks.
        Allow = "allow",
    }
}

texts! {
    /// Where a ruling comes from.
    Layer {
        /// The switch of the instance.
        Instance = "instance",
        /// The setting of the workspace.
        Workspace = "workspace",
        /// The setting of the package.
        Package = "package",
        /// The manifest.
        Manifest = "manifest",
    }
}

texts! {
    /// What network is wanted for.
    Purpose {
        /// The install of dependencies, from the index that the admin configured.
        Install = "install",
        /// The scripts of a job.
        Run = "run",
    }
}

/// All four layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// The switch of the instance.
    pub instance: Switch,
    /// The setting of the workspace.
    pub workspace: Access,
    /// The setting of the package.
    pub package: Access,
    /// Hosts that the scripts of the package may reach; empty for every public one.
    pub allowed_hosts: Vec<HostPattern>,
    /// `engine.defaults.runtime_network_access`.
    pub manifest: bool,
}

/// Whether network is given for one purpose, and who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    /// Whether it is.
    pub allowed: bool,
    /// The layer that decided.
    pub by: Layer,
    /// One sentence for people.
    pub reason: &'static str,
}

/// What [`decide`] made of the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// For the install of dependencies.
    pub install: Ruling,
    /// For the scripts.
    pub run: Ruling,
    /// Hosts that the scripts may reach; empty for every public one. Empty, too, when they may reach none.
    pub allowed_hosts: Vec<HostPattern>,
}

/// The policy. A deny above wins over everything below it; what no admin said anything about follows the manifest, unless the
/// instance denies by default.
#[must_use]
pub fn decide(layers: &Layers) -> Decision {
    let install = denied(layers, false)
        .or_else(|| granted(layers, |access| matches!(access, Access::InstallOnly | Access::Allow)))
        .unwrap_or_else(|| unsaid(layers));
    let run = denied(layers, true)
        .or_else(|| if layers.manifest { granted(layers, |access| access == Access::Allow) } else { None })
        .unwrap_or_else(|| unsaid(layers));
    let allowed_hosts = if run.allowed { layers.allowed_hosts.clone() } else { Vec::new() };
    Decision { install, run, allowed_hosts }
}

/// The uppermost layer that says no.
fn denied(layers: &Layers, run: bool) -> Option<Ruling> {
    let no = |by, reason| Some(Ruling { allowed: false, by, reason });
    if layers.instance == Switch::Off {
        return no(Layer::Instance, "network is switched off for the whole instance");
    }
    match layers.workspace {
        Access::Deny => return no(Layer::Workspace, "the setting of the workspace denies network"),
        Access::InstallOnly if run => {
            return no(Layer::Workspace, "the setting of the workspace gives network to installs only");
        }
        _ => {}
    }
    match layers.package {
        Access::Deny => no(Layer::Package, "the setting of the package denies network"),
        Access::InstallOnly if run => no(Layer::Package, "the setting of the package gives network to installs only"),
        _ => None,
    }
}

/// The lowest setting of an admin that says yes.
fn granted(layers: &Layers, grants: impl Fn(Access) -> bool) -> Option<Ruling> {
    let yes = |by, reason| Some(Ruling { allowed: true, by, reason });
    if grants(layers.package) {
        yes(Layer::Package, "the setting of the package allows network")
    } else if grants(layers.workspace) {
        yes(Layer::Workspace, "the setting of the workspace allows network")
    } else {
        None
    }
}

/// Where no setting says anything.
fn unsaid(layers: &Layers) -> Ruling {
    let ruling = |allowed, by, reason| Ruling { allowed, by, reason };
    let nobody_allowed = layers.workspace == Access::Inherit && layers.package == Access::Inherit;
    match (layers.instance, layers.manifest) {
        (Switch::Off | Switch::Deny, _) if nobody_allowed => {
            ruling(false, Layer::Instance, "this instance denies network unless an admin allows it")
        }
        (_, false) => ruling(false, Layer::Manifest, "the manifest does not ask for network"),
        (_, true) => ruling(true, Layer::Manifest, "the manifest asks for network, and nothing denies it"),
    }
}

impl Decision {
    /// The ruling for a purpose.
    #[must_use]
    pub const fn ruling(&self, purpose: Purpose) -> &Ruling {
        match purpose {
            Purpose::Install => &self.install,
            Purpose::Run => &self.run,
        }
    }

    /// Who denied, and how to ask for it: one sentence for error messages, without a full stop.
    #[must_use]
    pub fn denial(&self, purpose: Purpose) -> String {
        let ruling = self.ruling(purpose);
        let way_out = match (ruling.by, purpose) {
            (Layer::Instance, _) => "an admin can change it with `ade network set`",
            (Layer::Workspace, _) => "an admin can change it with `ade network set --workspace`",
            (Layer::Package, _) => "an admin can change it with `ade network set --package`",
            (Layer::Manifest, Purpose::Run) => "set engine.defaults.runtime_network_access to true in manifest.json",
            (Layer::Manifest, Purpose::Install) => {
                "set engine.defaults.runtime_network_access to true in manifest.json, or have an admin allow installs with `ade network set --package`"
            }
        };
        format!("{}; {way_out}", ruling.reason)
    }

    /// The block of the job, the event and the artifact.
    #[must_use]
    pub fn block(&self) -> Value {
        json!({
            "install": self.install.allowed,
            "run": self.run.allowed,
            "allowed_hosts": self.allowed_hosts,
            "decided_by": self.run.by,
            "reason": self.run.reason,
            "install_decided_by": self.install.by,
            "install_reason": self.install.reason,
        })
    }
}
