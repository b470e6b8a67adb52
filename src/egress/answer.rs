//! What a client is told that gets no connection.

use crate::text::{plain, texts};

texts! {
    /// Why a connection did not come about. The text form is stable: it is in events, answers and documentation.
    Code {
        /// The policy gives this container no network.
        NetworkDenied = "network_denied",
        /// The policy gives other hosts than this one.
        HostNotAllowed = "host_not_allowed",
        /// The host has no public address, and the admin lists none of those that it has.
        AddressNotPublic = "address_not_public",
        /// The server that a TLS client asks for is another one than the proxy was asked for.
        SniMismatch = "sni_mismatch",
        /// What the client sent is no request to a proxy.
        RequestInvalid = "request_invalid",
        /// The head of the request is too large.
        HeadTooLarge = "head_too_large",
        /// The head of the request did not arrive in time.
        HeadTimeout = "head_timeout",
        /// More connections at once than a job may have.
        ConnectionsAtOnce = "connections_at_once",
        /// More connections in all than a job may make.
        ConnectionsInAll = "connections_in_all",
        /// More bytes in sum than a job may transfer.
        Bytes = "bytes",
        /// The name does not resolve.
        NameNotResolved = "name_not_resolved",
        /// The server does not take the connection.
        ConnectFailed = "connect_failed",
        /// The server does not answer in time.
        ConnectTimeout = "connect_timeout",
        /// The proxy of the instance does not make the connection.
        UpstreamProxy = "upstream_proxy",
        /// The client went away, or the job ended, before there was a connection.
        Abandoned = "abandoned",
    }
}

impl Code {
    /// Status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NetworkDenied | Self::HostNotAllowed | Self::AddressNotPublic | Self::SniMismatch => 403,
            Self::RequestInvalid | Self::Abandoned => 400,
            Self::HeadTimeout => 408,
            Self::ConnectionsAtOnce | Self::ConnectionsInAll | Self::Bytes => 429,
            Self::HeadTooLarge => 431,
            Self::NameNotResolved | Self::ConnectFailed | Self::UpstreamProxy => 502,
            Self::ConnectTimeout => 504,
        }
    }
}

/// A connection that did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why, for programs.
    pub code: Code,
    /// Why, for people: one plain line with the way out.
    pub message: String,
}

impl Refusal {
    /// A refusal; the message may hold text of the container's.
    #[must_use]
    pub fn new(code: Code, message: &str) -> Self {
        Self { code, message: plain(message, 400) }
    }

    /// The answer of the proxy. The message is in the reason phrase too: of a tunnel that was refused, most clients show nothing
    /// else.
    #[must_use]
    pub fn answer(&self) -> Vec<u8> {
        let (status, code) = (self.code.status(), self.code.as_str());
        let reason: String = self.message.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        let body = format!("ADE: {}\n", self.message);
        let length = body.len();
        format!(
            "HTTP/1.1 {status} ADE: {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
             X-ADE-Code: {code}\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_head_whatever_is_in_the_message() {
        let answer = Refusal::new(Code::HostNotAllowed, "x\r\nSet-Cookie: a\u{2028}ü").answer();
        let text = String::from_utf8(answer).unwrap();
        assert!(text.starts_with("HTTP/1.1 403 ADE: x  Set-Cookie: a ?\r\nContent-Type:"), "{text}");
        assert!(text.ends_with("\r\n\r\nADE: x  Set-Cookie: a ü\n"), "{text}");
    }
}
