//! Patterns of hosts that an admin allows.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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

/// A text that is no [`HostPattern`], and why.
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
        let bare = bracketed(host).unwrap_or(host);
        let name = host.strip_suffix('.').unwrap_or(host);
        match &self.host {
            Host::Address(address) => bare.parse::<IpAddr>().is_ok_and(|host| host.to_canonical() == *address),
            Host::Name(only) => name.eq_ignore_ascii_case(only),
            Host::Below(parent) => name.len().checked_sub(parent.len() + 1).is_some_and(|dot| {
                dot > 0
                    && name.as_bytes().get(dot) == Some(&b'.')
                    && name.get(dot + 1..).is_some_and(|tail| tail.eq_ignore_ascii_case(parent))
            }),
        }
    }
}

/// What stands in brackets.
fn bracketed(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// The host and the port of a pattern. An IPv6 address has colons of its own, and a port only after brackets.
fn split(text: &str) -> (&str, Option<&str>) {
    if text.parse::<IpAddr>().is_ok() || text.ends_with(']') {
        return (text, None);
    }
    text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
}

/// Whether a URL parser takes a name that ends in this label for an IPv4 address (WHATWG URL, "ends in a number"), which a
/// resolver may then reach under a spelling that no pattern has.
pub(crate) fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hex || (!label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()))
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let wrong = |reason| PatternError { text: text.chars().take(100).collect(), reason };
        const NO_HOST: &str = "write a host such as api.example.com, without scheme or path";
        if text.contains('/') {
            return Err(wrong(NO_HOST));
        }
        let (host, port) = split(text);
        if let Some(inside) = bracketed(host).or_else(|| host.contains(':').then_some(host)) {
            let address = inside.parse::<Ipv6Addr>().ok().filter(|_| port.is_none() || host.starts_with('['));
            let address = address.ok_or_else(|| {
                wrong("an IPv6 address is written 2001:db8::1, and in brackets when a port follows: [2001:db8::1]:443")
            })?;
            return Ok(Self {
                host: Host::Address(IpAddr::V6(address).to_canonical()),
                port: read_port(port).map_err(wrong)?,
            });
        }
        let port = read_port(port).map_err(wrong)?;
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Ok(Self { host: Host::Address(address.into()), port });
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
            return Err(wrong(NO_HOST));
        }
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err(wrong("an address has four decimal numbers, 192.0.2.1, or is an IPv6 address"));
        }
        Ok(Self { host: if below { Host::Below(name) } else { Host::Name(name) }, port })
    }
}

fn read_port(text: Option<&str>) -> Result<Option<u16>, &'static str> {
    let Some(text) = text else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse::<u16>().ok().filter(|port| digits && *port > 0);
    port.map(Some).ok_or("a port is a number from 1 to 65535")
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

impl utoipa::PartialSchema for HostPattern {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some(
                "A host: `api.example.com`, `*.example.com` for every name below it, or an IP address; with `:port` for this port only.",
            ))
            .examples(["*.example.com:443"])
            .into()
    }
}

impl utoipa::ToSchema for HostPattern {
    fn name() -> std::borrow::Cow<'static, str> {
        "HostPattern".into()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn refusal(text: &str) -> &'static str {
        text.parse::<HostPattern>().expect_err(text).reason
    }

    #[test]
    fn a_name_allows_itself_in_any_case_with_or_without_the_dot_at_its_end() {
        let named = pattern("API.Example.com.");
        assert_eq!(named.to_string(), "api.example.com");
        for host in ["api.example.com", "Api.EXAMPLE.com", "api.example.com."] {
            assert!(named.matches(host, 443) && named.matches(host, 80), "{host}");
        }
        for host in
            ["example.com", "x.api.example.com", "api.example.com..", ".api.example.com", "api.example.co", "", "."]
        {
            assert!(!named.matches(host, 443), "{host}");
        }
    }

    #[test]
    fn a_star_allows_names_at_any_depth_below_and_not_the_name_itself() {
        let below = pattern("*.Example.com");
        for host in ["a.example.com", "a.b.c.EXAMPLE.com", "a.example.com."] {
            assert!(below.matches(host, 443), "{host}");
        }
        for host in [
            "example.com", ".example.com", "badexample.com", "a.example.com.evil.org", "a.example.org", "",
            "äexample.com",
        ] {
            assert!(!below.matches(host, 443), "{host}");
        }
        for text in ["*", "*.", "*example.com", "a.*.com", "*.*.com", "**.example.com"] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
        assert!(refusal("a.*.com").contains("a star stands only at the beginning"));
    }

    #[test]
    fn a_port_narrows_and_is_a_plain_number() {
        for (text, host) in [
            ("a.example.com:8443", "a.example.com"),
            ("*.example.com:8443", "b.example.com"),
            ("192.0.2.1:8443", "192.0.2.1"),
        ] {
            assert!(pattern(text).matches(host, 8443) && !pattern(text).matches(host, 443), "{text}");
        }
        for text in [
            "a.example.com:", "a.example.com:0", "a.example.com:65536", "a.example.com:+80", "a.example.com:http",
            "192.0.2.1:-1",
        ] {
            assert_eq!(refusal(text), "a port is a number from 1 to 65535", "{text}");
        }
    }

    #[test]
    fn an_address_is_one_whatever_its_spelling_and_ipv6_needs_brackets_only_before_a_port() {
        for text in ["2001:db8::1", "[2001:db8::1]", "2001:DB8:0::0:1"] {
            let address = pattern(text);
            assert_eq!(address.to_string(), "[2001:db8::1]");
            for host in ["2001:db8::1", "[2001:db8::1]", "[2001:db8:0:0::1]"] {
                assert!(address.matches(host, 443), "{text} {host}");
            }
            assert!(!address.matches("2001:db8::2", 443) && !address.matches("a.example.com", 443), "{text}");
        }
        assert!(pattern("[2001:db8::1]:443").matches("2001:db8::1", 443));
        assert!(!pattern("[2001:db8::1]:443").matches("2001:db8::1", 80));
        // An IPv4 address in IPv6 clothes is dialled as the IPv4 address that it is.
        assert!(
            pattern("192.0.2.1").matches("::ffff:192.0.2.1", 1) && pattern("::ffff:192.0.2.1").matches("192.0.2.1", 1)
        );
        assert!(!pattern("192.0.2.1").matches("192.0.2.1.", 1), "with a dot at its end it is a name");
        for text in [
            "[192.0.2.1]", "[example.com]", "[2001:db8::1", "2001:db8::1]", "[::1]x", "fe80::1%eth0", "[]", "1:2:3",
            "[[::1]]",
        ] {
            assert!(refusal(text).starts_with("an IPv6 address is written"), "{text}: {}", refusal(text));
        }
    }

    #[test]
    fn what_a_resolver_may_take_for_an_address_in_another_spelling_is_refused() {
        for text in [
            "2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "127.1", "127.0.0.01", "127.0.0.0x1", "1.2.3.4.5",
            "256.1.1.1", "*.0.0.1", "example.1", "example.0x", "192.0.2.1.",
        ] {
            assert_eq!(
                refusal(text),
                "an address has four decimal numbers, 192.0.2.1, or is an IPv6 address",
                "{text}"
            );
        }
        assert!(
            pattern("1.2.3.4.example.com").matches("1.2.3.4.example.com", 1),
            "a label that is a number is none at the end"
        );
        assert!(pattern("0xyz").matches("0XYZ", 1), "and this is no hexadecimal number");
    }

    #[test]
    fn what_is_no_host_is_refused_with_the_reason() {
        for text in ["https://example.com", "example.com/path", "//example.com", "http://example.com:80/"] {
            assert!(refusal(text).contains("without scheme or path"), "{text}");
        }
        for text in ["müller.example", "*.例え.jp", "ＡＰＩ.example.com"] {
            assert!(refusal(text).contains("xn--"), "{text}");
        }
        assert!(pattern("xn--mller-kva.example").matches("XN--MLLER-KVA.example", 1));
        let long = format!("{}.example", "a".repeat(64));
        let whole = "a.".repeat(126);
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "-a.b",
            "a-.b",
            "a b",
            "user@a.b",
            "a.b?c",
            "a.b#c",
            "a\0b",
            &long,
            &format!("{whole}aa"),
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?}");
        }
        assert!(format!("{whole}a").parse::<HostPattern>().is_ok(), "of 253 characters at most");
        let error = "x".repeat(1000).parse::<HostPattern>().expect_err("too long").to_string();
        assert!(error.len() < 250, "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_printed_to_be_read_again(
            text in prop_oneof![".{0,60}", r"[a-zA-Z0-9.*:\[\]x_-]{0,40}", r"(\*\.)?([a-z0-9-]{1,8}\.){0,3}[a-z]{1,5}\.?(:[0-9]{1,5})?"],
            host in r"[a-zA-Z0-9.:\[\]ä-]{0,40}",
        ) {
            if let Ok(pattern) = text.parse::<HostPattern>() {
                let printed = pattern.to_string();
                prop_assert_eq!(printed.parse(), Ok(pattern.clone()));
                let json = serde_json::to_string(&pattern).unwrap();
                prop_assert_eq!(serde_json::from_str::<HostPattern>(&json).unwrap(), pattern.clone());
                let _ = pattern.matches(&host, 443);
                let _ = pattern.matches(&text, 443);
            }
        }

        #[test]
        fn every_address_is_its_own_pattern(address: std::net::IpAddr, port in 1_u16..) {
            let text = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
            for written in [address.to_string(), text.clone()] {
                prop_assert!(pattern(&written).matches(&written, port) && pattern(&written).matches(&text, port));
            }
            let only = pattern(&format!("{text}:{port}"));
            prop_assert!(only.matches(&text, port) && !only.matches(&text, port ^ 1));
        }

        #[test]
        fn a_star_never_allows_what_does_not_end_in_its_name(host in "[a-z.]{0,20}", parent in "[a-z]{1,5}(\\.[a-z]{1,3})?") {
            let below = pattern(&format!("*.{parent}"));
            prop_assert_eq!(below.matches(&host, 1), {
                let host = host.strip_suffix('.').unwrap_or(&host);
                host.len() > parent.len() + 1 && host.ends_with(&format!(".{parent}"))
            });
        }
    }
}
