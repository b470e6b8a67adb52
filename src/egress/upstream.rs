//! Another proxy that the engine itself goes out through.

use super::target::Target;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::str::FromStr;

/// An HTTP proxy, `http://user:password@proxy.example.com:3128`.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Where it listens.
    pub target: Target,
    /// Value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

impl FromStr for Upstream {
    type Err = String;

    // Its errors quote nothing: the text may hold a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let url = reqwest::Url::parse(text)
            .map_err(|error| format!("not a URL such as http://proxy.example.com:3128: {error}"))?;
        if url.scheme() != "http" {
            return Err("only proxies that are spoken to in plain HTTP can be used: http://…".into());
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("a proxy has no path: http://proxy.example.com:3128".into());
        }
        let authority = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(80));
        let target = Target::parse(&authority, None)?;
        let decoded = |text: &str| percent_decoded(text).ok_or("user and password are UTF-8 text, percent-encoded");
        let authorization = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                let pair = format!("{}:{}", decoded(user)?, decoded(password.unwrap_or_default())?);
                Some(format!("Basic {}", STANDARD.encode(pair)))
            }
        };
        Ok(Self { target, authorization })
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.authorization.is_some() { "***@" } else { "" };
        write!(f, "http://{user}{}", self.target)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_keeps_its_password_to_itself() {
        let upstream: Upstream = "http://user:p%40ss@proxy.example:3128".parse().unwrap();
        assert_eq!(upstream.authorization.as_deref(), Some("Basic dXNlcjpwQHNz"));
        assert_eq!(format!("{upstream} {upstream:?}"), "http://***@proxy.example:3128 http://***@proxy.example:3128");
        assert_eq!("http://10.0.0.1".parse::<Upstream>().unwrap().target.port, 80);
        for text in ["https://proxy:1", "socks5://proxy:1", "proxy:3128", "http://proxy:1/path", "http://u:%ff@proxy:1"]
        {
            let error = text.parse::<Upstream>().unwrap_err();
            assert!(!error.contains("%ff"), "{error}");
        }
    }
}
