//! What a container may reach.

use super::answer::{Code, Refusal};
use super::target::Target;
use crate::network::{Decision, HostPattern, Purpose};

/// What a container may reach, and for which purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    purpose: Purpose,
    reach: Reach,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    /// Nothing: why, and how to ask for it.
    Nothing(String),
    /// Every public host.
    Public,
    /// These hosts; whose list it is, and how to ask for more.
    Hosts { patterns: Vec<HostPattern>, denial: String },
}

impl Grant {
    /// What a decision gives for a purpose.
    #[must_use]
    pub fn of(decision: &Decision, purpose: Purpose) -> Self {
        if !decision.ruling(purpose).allowed {
            return Self::denied(purpose, decision.denial(purpose));
        }
        let reach = match (purpose, decision.allowed_hosts.is_empty()) {
            (Purpose::Run, false) => {
                Reach::Hosts { patterns: decision.allowed_hosts.clone(), denial: decision.host_denial().to_owned() }
            }
            _ => Reach::Public,
        };
        Self { purpose, reach }
    }

    /// Nothing; `denial` says who denied it and how to ask.
    #[must_use]
    pub const fn denied(purpose: Purpose, denial: String) -> Self {
        Self { purpose, reach: Reach::Nothing(denial) }
    }

    /// No more than these hosts of what was granted; `denial` says whose list it is and how to ask for more.
    #[must_use]
    pub fn only(self, patterns: Vec<HostPattern>, denial: String) -> Self {
        match self.reach {
            Reach::Nothing(_) => self,
            Reach::Public | Reach::Hosts { .. } => {
                Self { purpose: self.purpose, reach: Reach::Hosts { patterns, denial } }
            }
        }
    }

    /// What it is for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether anything can be reached at all.
    #[must_use]
    pub const fn is_given(&self) -> bool {
        !matches!(self.reach, Reach::Nothing(_))
    }

    /// Whether hosts are allowed one by one; TLS clients are then held to the host that they asked for.
    pub(super) const fn lists_hosts(&self) -> bool {
        matches!(self.reach, Reach::Hosts { .. })
    }

    /// The rule that allows a target; none where every public host is.
    ///
    /// # Errors
    /// `network_denied` or `host_not_allowed`.
    pub(super) fn rule(&self, target: &Target) -> Result<Option<String>, Refusal> {
        match &self.reach {
            Reach::Nothing(denial) => Err(Refusal::new(Code::NetworkDenied, denial)),
            Reach::Public => Ok(None),
            Reach::Hosts { patterns, denial } => {
                let host = target.host.to_string();
                match patterns.iter().find(|pattern| pattern.matches(&host, target.port)) {
                    Some(pattern) => Ok(Some(pattern.to_string())),
                    None => Err(Refusal::new(Code::HostNotAllowed, &format!("{target} is not on {denial}"))),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::decision;
    use super::*;

    fn rule(grant: &Grant, target: &str) -> Result<Option<String>, &'static str> {
        grant.rule(&Target::parse(target, None).unwrap()).map_err(|refusal| refusal.code.as_str())
    }

    #[test]
    fn a56_only_listed_hosts_are_granted_in_every_spelling() {
        let grant =
            Grant::of(&decision(true, &["api.example.com:443", "*.internal.example", "192.0.2.7"]), Purpose::Run);
        assert_eq!(rule(&grant, "API.example.COM.:443"), Ok(Some("api.example.com:443".into())));
        assert_eq!(rule(&grant, "a.b.internal.example:80"), Ok(Some("*.internal.example".into())));
        for address in ["192.0.2.7:22", "[::ffff:192.0.2.7]:80"] {
            assert_eq!(rule(&grant, address), Ok(Some("192.0.2.7".into())), "the same address, and dialled as such");
        }
        for target in [
            "api.example.com:80", "example.com:443", "internal.example:443", "api.example.com.evil.example:443",
            "xapi.example.com:443", "192.0.2.8:80", "93.184.215.14:443",
        ] {
            assert_eq!(rule(&grant, target), Err("host_not_allowed"), "{target}");
        }
    }

    #[test]
    fn a_denial_says_who_and_how_to_ask() {
        let grant = Grant::of(&decision(false, &[]), Purpose::Run);
        let refusal = grant.rule(&Target::parse("example.com:443", None).unwrap()).unwrap_err();
        assert_eq!(refusal.code, Code::NetworkDenied);
        assert!(refusal.message.contains("runtime_network_access"), "{}", refusal.message);
        assert!(!grant.is_given() && !grant.only(Vec::new(), String::new()).is_given());
    }
}
