//! Patterns of hosts that an admin allows.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A host that may be reached: `api.example.com`, `*.example.com` for every name below it, or an IP address; with `:port` for
/// this port only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Host {
    Name(String),
    Below(String),
    Address(IpAddr),
}

/// A text that is no [`HostPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no host pattern: {reason}")]
pub struct PatternError {
    text: String,
    reason: &'static str,
}

impl HostPattern {
    /// Whether a connection to this host and port is allowed. `host` is as a client wrote it: a name in any case, with or without
    /// the dot at its end, or an IP address, in brackets or not.
    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = host.strip_suffix('.').unwrap_or(host);
        match &self.host {
            Host::Address(address) => host.parse() == Ok(*address),
            Host::Name(name) => host.eq_ignore_ascii_case(name),
            Host::Below(parent) => host.len().checked_sub(parent.len() + 1).is_some_and(|dot| {
                dot > 0
                    && host.as_bytes().get(dot) == Some(&b'.')
                    && host.get(dot + 1..).is_some_and(|tail| tail.eq_ignore_ascii_case(parent))
            }),
        }
    }
}

/// Whether a resolver may take a name in lower case for an IPv4 address in another spelling: `127.1`, `0x7f000001`.
pub(crate) fn spells_an_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x")
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let wrong = |reason| PatternError { text: text.chars().take(100).collect(), reason };
        let (host, port) = match text.rsplit_once(':') {
            _ if text.parse::<IpAddr>().is_ok() => (text, None),
            None => (text, None),
            Some((host, port)) => {
                let port = port.parse::<u16>().ok().filter(|port| *port > 0);
                (host, Some(port.ok_or_else(|| wrong("a port is a number from 1 to 65535"))?))
            }
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(Self { host: Host::Address(address), port });
        }
        let (name, below) = match host.strip_prefix("*.") {
            Some(parent) => (parent, true),
            None => (host, false),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if name.contains('*') {
            return Err(wrong("a star stands only at the beginning, for everything below a name: *.example.com"));
        }
        if !name.is_ascii() {
            return Err(wrong("names with other letters are written in their xn-- form"));
        }
        // RFC 1123, section 2.1, and the underscore that some names have in practice.
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(wrong("write a host such as api.example.com, without scheme or path"));
        }
        // What a resolver may take for an address in another spelling is no name.
        if spells_an_address(&name) {
            return Err(wrong("an address has four numbers, 192.0.2.1, or is an IPv6 address"));
        }
        Ok(Self { host: if below { Host::Below(name) } else { Host::Name(name) }, port })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::Below(parent) => write!(f, "*.{parent}")?,
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            Host::Address(address) => write!(f, "{address}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl TryFrom<String> for HostPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}
