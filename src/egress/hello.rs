//! Which server a TLS client asks for, in its first message.

use super::answer::{Code, Refusal};
use super::target::{Host, Target};
use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;

/// First byte of a TLS record that holds a handshake message.
const HANDSHAKE: u8 = 0x16;
/// Largest first message, bytes; those with post-quantum keys have some 2 KB.
const MAX_HELLO: usize = 64 * 1024;
/// A fatal `unrecognized_name` (RFC 6066, section 3), which clients show by that name.
pub const ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// Holds back what a client sends until its first message has shown that it asks for the server that the proxy was asked for.
/// What is no TLS passes.
pub struct Guard {
    acceptor: Acceptor,
    held: BytesMut,
    open: bool,
}

impl Guard {
    /// A guard that lets everything pass when `closed` is false.
    pub fn new(closed: bool) -> Self {
        Self { acceptor: Acceptor::default(), held: BytesMut::new(), open: !closed }
    }

    /// Takes the next bytes of the client and gives what may be sent on.
    ///
    /// # Errors
    /// `sni_mismatch`.
    pub fn pass(&mut self, bytes: Bytes, target: &Target) -> Result<Bytes, Refusal> {
        if self.open {
            return Ok(bytes);
        }
        if self.held.is_empty() && bytes.first().is_some_and(|first| *first != HANDSHAKE) {
            self.open = true;
            return Ok(bytes);
        }
        let mut rest = &bytes[..];
        self.held.extend_from_slice(rest);
        while !rest.is_empty() {
            let read = self.acceptor.read_tls(&mut rest).unwrap_or(0);
            match self.acceptor.accept() {
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    check(hello.server_name(), target)?;
                    self.open = true;
                    return Ok(self.held.split().freeze());
                }
                Ok(None) if read > 0 && self.held.len() <= MAX_HELLO => {}
                Ok(None) | Err(_) => return Err(mismatch(target, "sends a first TLS message that cannot be read")),
            }
        }
        Ok(Bytes::new())
    }
}

fn check(asked: Option<&str>, target: &Target) -> Result<(), Refusal> {
    match (asked, &target.host) {
        (Some(asked), Host::Name(name)) if asked.strip_suffix('.').unwrap_or(asked).eq_ignore_ascii_case(name) => {
            Ok(())
        }
        (None, Host::Address(_)) => Ok(()),
        (Some(asked), _) => Err(mismatch(target, &format!("asks for the server {asked} (SNI)"))),
        (None, _) => Err(mismatch(target, "does not say which server it asks for (SNI)")),
    }
}

fn mismatch(target: &Target, what: &str) -> Refusal {
    Refusal::new(
        Code::SniMismatch,
        &format!("the connection to {target} {what}: where hosts are allowed one by one, both must be the same"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use std::sync::Arc;

    fn hello(name: &str, sni: bool) -> Bytes {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.enable_sni = sni;
        let mut connection =
            ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes.into()
    }

    fn passes(bytes: &Bytes, target: &str, step: usize) -> bool {
        let target = Target::parse(target, None).unwrap();
        let mut guard = Guard::new(true);
        let mut passed = BytesMut::new();
        for piece in bytes.chunks(step) {
            match guard.pass(Bytes::copy_from_slice(piece), &target) {
                Ok(bytes) => passed.extend_from_slice(&bytes),
                Err(refusal) => {
                    assert_eq!(refusal.code, Code::SniMismatch);
                    return false;
                }
            }
        }
        assert_eq!(passed, *bytes, "everything arrives");
        true
    }

    #[test]
    fn a56_a_client_must_ask_for_the_server_that_the_proxy_was_asked_for() {
        for step in [1, 5, 60, 10_000] {
            assert!(passes(&hello("Good.example", true), "good.example:443", step));
            assert!(passes(&hello("192.0.2.1", true), "192.0.2.1:443", step));
            assert!(!passes(&hello("evil.example", true), "good.example:443", step));
            assert!(!passes(&hello("good.example", false), "good.example:443", step));
            assert!(!passes(&hello("evil.example", true), "192.0.2.1:443", step));
            assert!(!passes(
                &Bytes::from_static(b"\x16\x03\x01\x00\x05nonsense and more of it"),
                "good.example:443",
                step
            ));
            assert!(passes(&Bytes::from_static(b"SSH-2.0-client\r\n"), "good.example:22", step));
        }
    }
}
