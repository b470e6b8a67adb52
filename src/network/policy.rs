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

impl Switch {
    /// What counts on a node: the switch that an admin stored wins over the node's setting, but where the setting is `off`, that
    /// is the end of it.
    #[must_use]
    pub fn on_node(setting: Self, stored: Option<Self>) -> Self {
        if setting == Self::Off { Self::Off } else { stored.unwrap_or(setting) }
    }

    /// Reads the setting: a switch, or one of the spellings of true and false that were published for it.
    ///
    /// # Errors
    /// What it can be.
    pub fn from_setting(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Self::Manifest),
            "false" | "no" | "0" => Ok(Self::Off),
            switch => switch.parse(),
        }
    }
}

/// What is stored of the layers, for one package: all but the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The switch of the instance; none takes the setting of the node.
    pub instance: Option<Switch>,
    /// The setting of the workspace.
    pub workspace: Access,
    /// The setting of the package.
    pub package: Access,
    /// Hosts that the scripts of the package may reach; empty for every public one.
    pub allowed_hosts: Vec<HostPattern>,
    /// Whether requirements of the package may be built from source, which runs foreign code during the install.
    pub source_builds: bool,
}

impl Stored {
    /// The decision for a job on a node with this setting, and a manifest that asks for network or does not.
    #[must_use]
    pub fn decide(&self, setting: Switch, manifest: bool) -> Decision {
        let place = if setting == Switch::Off { Place::Node } else { Place::Service };
        let layers = Layers {
            instance: Switch::on_node(setting, self.instance),
            workspace: self.workspace,
            package: self.package,
            allowed_hosts: self.allowed_hosts.clone(),
            manifest,
        };
        decide(&layers).at(place)
    }
}

/// The most patterns of hosts that a package has.
pub const MAX_ALLOWED_HOSTS: usize = 200;

/// Where the layers above the manifest were set, and so where they are changed: what a denial names as the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a service, by its admins.
    Service,
    /// In a service, with the switch turned off by the setting of the node.
    Node,
    /// On the command line of `ade run`.
    CommandLine,
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
    place: Place,
}

const SWITCHED_OFF: &str = "network is switched off for the whole instance";
const SWITCHED_OFF_HERE: &str = "network is switched off on this machine, by the setting ADE_RUNTIME_NETWORK_ACCESS";

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
    Decision { install, run, allowed_hosts, place: Place::Service }
}

/// The uppermost layer that says no.
fn denied(layers: &Layers, run: bool) -> Option<Ruling> {
    let no = |by, reason| Some(Ruling { allowed: false, by, reason });
    if layers.instance == Switch::Off {
        return no(Layer::Instance, SWITCHED_OFF);
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
    /// The same decision, of layers that were set elsewhere than in a service by its admins.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = place;
        for ruling in [&mut self.install, &mut self.run] {
            if place != Place::Service && ruling.reason == SWITCHED_OFF {
                ruling.reason = SWITCHED_OFF_HERE;
            }
        }
        self
    }

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
        let access = match purpose {
            Purpose::Install => Access::InstallOnly,
            Purpose::Run => Access::Allow,
        };
        let package = match self.place {
            Place::CommandLine => format!("allow it with `ade run --network {access}`"),
            Place::Service | Place::Node => {
                format!(
                    "an admin can allow it with `ade network set --workspace WORKSPACE --package PACKAGE --access {access}`"
                )
            }
        };
        let way_out = match (ruling.by, purpose) {
            (Layer::Instance, _) if ruling.reason == SWITCHED_OFF_HERE => {
                "set it to manifest, or to deny and allow single packages".to_owned()
            }
            (Layer::Instance, _) if ruling.reason == SWITCHED_OFF => {
                "an admin can switch it on with `ade network set --switch manifest`".to_owned()
            }
            (Layer::Workspace, _) => {
                format!("an admin can allow it with `ade network set --workspace WORKSPACE --access {access}`")
            }
            (Layer::Instance | Layer::Package, _) => package,
            (Layer::Manifest, Purpose::Run) => {
                "set engine.defaults.runtime_network_access to true in manifest.json".to_owned()
            }
            (Layer::Manifest, Purpose::Install) => {
                format!("set engine.defaults.runtime_network_access to true in manifest.json, or {package}")
            }
        };
        format!("{}; {way_out}", ruling.reason)
    }

    /// Whose list the allowed hosts are, and how to ask for more: the end of a sentence about one that is not on it.
    #[must_use]
    pub fn host_denial(&self) -> &'static str {
        match self.place {
            Place::CommandLine => "the allow-list of this job; add it with `ade run --allow-host`",
            Place::Service | Place::Node => {
                "the allow-list of the package; an admin can add it with `ade network set --package PACKAGE --allow-host HOST`"
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Layers> {
        let mut all = Vec::new();
        for instance in Switch::ALL {
            for workspace in Access::ALL {
                for package in Access::ALL {
                    for manifest in [false, true] {
                        all.push(Layers {
                            instance: *instance,
                            workspace: *workspace,
                            package: *package,
                            allowed_hosts: vec!["api.example.com".parse().unwrap()],
                            manifest,
                        });
                    }
                }
            }
        }
        all
    }

    /// The policy in other words: as conditions on the whole, not layer by layer. Whether, and by whom, for both purposes.
    fn oracle(layers: &Layers) -> [(bool, Layer); 2] {
        let admins = [layers.workspace, layers.package];
        let says = |wanted: &[Access]| admins.map(|access| wanted.contains(&access));
        let layer_of = |[workspace, package]: [bool; 2], last: bool| match (workspace, package) {
            (true, true) => Some(if last { Layer::Package } else { Layer::Workspace }),
            (true, false) => Some(Layer::Workspace),
            (false, true) => Some(Layer::Package),
            (false, false) => None,
        };
        let silent = admins == [Access::Inherit; 2];
        let purpose = |refusing: &[Access], granting: &[Access], needs_asking: bool| {
            let (refusal, grant) = (layer_of(says(refusing), false), layer_of(says(granting), true));
            if layers.instance == Switch::Off {
                return (false, Layer::Instance);
            }
            match (refusal, grant) {
                (Some(layer), _) => (false, layer),
                (None, Some(layer)) if layers.manifest || !needs_asking => (true, layer),
                (None, _) if layers.instance == Switch::Deny && silent => (false, Layer::Instance),
                (None, _) => (layers.manifest, Layer::Manifest),
            }
        };
        [
            purpose(&[Access::Deny], &[Access::InstallOnly, Access::Allow], false),
            purpose(&[Access::Deny, Access::InstallOnly], &[Access::Allow], true),
        ]
    }

    #[test]
    fn all_combinations_are_decided_as_the_rules_in_other_words_have_it() {
        assert_eq!(all().len(), 96);
        for layers in all() {
            let decision = decide(&layers);
            let made = [decision.install, decision.run].map(|ruling| (ruling.allowed, ruling.by));
            assert_eq!(made, oracle(&layers), "{layers:?}");
        }
    }

    #[test]
    fn a_deny_above_wins_and_off_kills_all() {
        for layers in all() {
            let Decision { install, run, .. } = decide(&layers);
            let denied = [layers.workspace, layers.package].contains(&Access::Deny);
            if layers.instance == Switch::Off || denied {
                assert!(!install.allowed && !run.allowed, "{layers:?}");
            }
            if layers.instance == Switch::Off {
                assert_eq!((install.by, run.by), (Layer::Instance, Layer::Instance), "{layers:?}");
            } else if layers.workspace == Access::Deny {
                assert_eq!((install.by, run.by), (Layer::Workspace, Layer::Workspace), "{layers:?}");
            }
        }
    }

    #[test]
    fn scripts_get_network_only_when_the_manifest_asks_and_never_by_install_only() {
        for layers in all() {
            let decision = decide(&layers);
            let only = [layers.workspace, layers.package].contains(&Access::InstallOnly);
            assert!(!decision.run.allowed || (layers.manifest && !only && decision.install.allowed), "{layers:?}");
            assert_eq!(decision.allowed_hosts.is_empty(), !decision.run.allowed, "no hosts for who may reach none");
        }
    }

    #[test]
    fn a_stricter_layer_never_gives_more() {
        let stricter = |from: Access| match from {
            Access::Allow => vec![Access::InstallOnly, Access::Deny],
            Access::InstallOnly => vec![Access::Deny],
            _ => vec![Access::Deny],
        };
        for layers in all() {
            let before = decide(&layers);
            let mut tighter = vec![Layers { instance: Switch::Off, ..layers.clone() }];
            if layers.instance == Switch::Manifest {
                tighter.push(Layers { instance: Switch::Deny, ..layers.clone() });
            }
            tighter
                .extend(stricter(layers.workspace).into_iter().map(|workspace| Layers { workspace, ..layers.clone() }));
            tighter.extend(stricter(layers.package).into_iter().map(|package| Layers { package, ..layers.clone() }));
            tighter.push(Layers { manifest: false, ..layers.clone() });
            for layers in tighter {
                let after = decide(&layers);
                assert!(before.run.allowed || !after.run.allowed, "{layers:?}");
                assert!(before.install.allowed || !after.install.allowed, "{layers:?}");
            }
        }
    }

    #[test]
    fn off_in_the_setting_of_a_node_is_final_and_elsewhere_what_is_stored_wins() {
        for setting in Switch::ALL {
            assert_eq!(Switch::on_node(*setting, None), *setting);
            for stored in Switch::ALL {
                let counts = if *setting == Switch::Off { Switch::Off } else { *stored };
                assert_eq!(Switch::on_node(*setting, Some(*stored)), counts);
            }
        }
    }

    #[test]
    fn the_setting_is_read_in_every_published_spelling() {
        for (switch, texts) in [
            (Switch::Manifest, &["manifest", "true", "TRUE", "yes", "on", "1"][..]),
            (Switch::Deny, &["deny", "Deny"]),
            (Switch::Off, &["off", "false", "no", "0"]),
        ] {
            for text in texts {
                assert_eq!(Switch::from_setting(text), Ok(switch), "{text}");
            }
        }
        for text in ["", "allow", "2", " on"] {
            assert!(Switch::from_setting(text).unwrap_err().contains("off, deny, manifest"), "{text}");
        }
    }

    /// Every denial says who denied and names something to do; what it names lifts it.
    #[test]
    fn a_denial_names_the_layer_and_a_way_out_that_works() {
        for layers in all() {
            for place in [Place::Service, Place::Node, Place::CommandLine] {
                if (place == Place::Node && layers.instance != Switch::Off)
                    || (place == Place::CommandLine && layers.workspace != Access::Inherit)
                {
                    continue;
                }
                let decision = decide(&layers).at(place);
                for purpose in Purpose::ALL {
                    let ruling = decision.ruling(*purpose);
                    if ruling.allowed {
                        continue;
                    }
                    let said = decision.denial(*purpose);
                    let (reason, way_out) = said.split_once("; ").unwrap();
                    assert_eq!(reason, ruling.reason);
                    let mut lifted = layers.clone();
                    for (words, lift) in [
                        ("--switch manifest", Layers { instance: Switch::Manifest, ..layers.clone() }),
                        ("set it to manifest", Layers { instance: Switch::Manifest, ..layers.clone() }),
                        ("true in manifest.json", Layers { manifest: true, ..layers.clone() }),
                        ("--access allow`", Layers { workspace: Access::Allow, ..layers.clone() }),
                        ("--access install_only`", Layers { workspace: Access::InstallOnly, ..layers.clone() }),
                        ("PACKAGE --access allow`", Layers { package: Access::Allow, ..layers.clone() }),
                        ("PACKAGE --access install_only`", Layers { package: Access::InstallOnly, ..layers.clone() }),
                        ("--network allow`", Layers { package: Access::Allow, ..layers.clone() }),
                        ("--network install_only`", Layers { package: Access::InstallOnly, ..layers.clone() }),
                    ] {
                        if way_out.contains(words) {
                            lifted = lift;
                        }
                    }
                    assert_ne!(lifted, layers, "{said}");
                    assert_eq!(
                        way_out.contains("ade run"),
                        place == Place::CommandLine
                            && !matches!((ruling.by, *purpose), (Layer::Manifest, Purpose::Run))
                            && layers.instance != Switch::Off,
                        "{said}"
                    );
                    // One layer may stand behind another; the way out then leads to that one's message, and on.
                    let after = decide(&lifted);
                    let after = after.ruling(*purpose);
                    assert!(
                        after.allowed || after.by != ruling.by || after.reason != ruling.reason,
                        "{layers:?} {said}"
                    );
                }
            }
        }
    }
}
