//! Where a client wants to go.

use crate::network::is_number;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host as a client named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name, in lower case and without a dot at its end.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl Host {
    /// Reads a host of a URL. There is one spelling of an address and one of a name: no user before it, no escapes, no letters
    /// beyond ASCII, no zone, and none of the numbers that resolvers take for addresses.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            return address.map(|address| Self::Address(address.into())).ok_or("the IPv6 address is none");
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if name.contains('@') {
            return Err("a user name does not belong there");
        }
        if name.len() > 253 || !name.split('.').all(label) {
            return Err("the host is no name and no address");
        }
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err("an address has four decimal numbers, or is an IPv6 address in brackets");
        }
        Ok(Self::Name(name))
    }
}

impl Target {
    /// Reads `host:port`; a missing port is `default`, where there is one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, default: Option<u16>) -> Result<Self, &'static str> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port.parse().ok().filter(|port| digits && *port > 0);
                (host, port.ok_or("a port is a number from 1 to 65535")?)
            }
            _ => (text, default.ok_or("the port is missing")?),
        };
        Ok(Self { host: Host::parse(host)?, port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a56_a_host_has_one_spelling() {
        for (text, read) in [
            ("API.Example.com.:443", "api.example.com:443"),
            ("1.2.3.4:80", "1.2.3.4:80"),
            ("[2606:4700::1111]:443", "[2606:4700::1111]:443"),
            ("[::FFFF:10.0.0.1]:80", "[::ffff:10.0.0.1]:80"),
            ("xn--bcher-kva.example:65535", "xn--bcher-kva.example:65535"),
        ] {
            assert_eq!(Target::parse(text, None).unwrap().to_string(), read);
        }
        for text in [
            "example.com", "example.com:", "example.com:0", "example.com:65536", "example.com:+80", "example.com: 80",
            ":80", "a..b:80", "user@example.com:80", "user:pass@example.com:80", "exa mple.com:80", "ex%61mple.com:80",
            "bücher.example:80", "example.com/:80", "example.com\\:80", "example.com#:80", "2130706433:80",
            "0x7f000001:80", "0x7f.0.0.1:80", "017700000001:80", "0177.0.0.1:80", "127.1:80", "127.0.0.1.:80",
            "1.2.3.4.5:80", "1.2.3.256:80", "[::1%25lo]:80", "[fe80::1%1]:80", "[1.2.3.4]:80", "[::1:80", "::1:80",
            "[::1]]:80",
        ] {
            assert!(Target::parse(text, None).is_err(), "{text}");
        }
        assert_eq!(Target::parse("[::1]", Some(80)).unwrap().port, 80);
        assert_eq!(Target::parse("a.b", Some(80)).unwrap().port, 80);
    }
}
