//! Which service, and which key.

use super::{Blame, CONNECT, Client, ClientError, SILENCE};
use crate::auth::ADMIN_KEY_FILE;
use crate::service::ADDRESS_FILE;
use crate::settings::ClientSettings;
use reqwest::tls::Certificate;
use reqwest::{Url, redirect};
use std::path::Path;
use std::time::Duration;

/// Where a service listens unless it is told otherwise.
const DEFAULT: &str = "http://127.0.0.1:8700";
/// How long the network may hold data that the other side does not confirm.
const UNCONFIRMED: Duration = Duration::from_secs(60);

fn usage(kind: &str, message: String) -> ClientError {
    ClientError::new(Blame::Request, kind, message)
}

impl Client {
    /// Finds the service and the key; nothing is sent yet.
    ///
    /// # Errors
    /// An address that is none, no key, or authorities that cannot be read.
    pub fn find(settings: &ClientSettings, ca_bundle: Option<&Path>) -> Result<Self, ClientError> {
        let data = settings.data_dir();
        let named = settings.target.server.as_ref().filter(|server| !server.is_empty());
        let written = || std::fs::read_to_string(data.join(ADDRESS_FILE)).ok().map(|text| text.trim().to_owned());
        let address = named.cloned().or_else(written).unwrap_or_else(|| DEFAULT.to_owned());
        let base = Url::parse(&address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none())
            .ok_or_else(|| {
                let shown = crate::text::plain(&address, 200);
                usage(
                    "server_invalid",
                    format!("{shown:?} is no address of a service, such as https://ade.example.org"),
                )
            })?;
        let here = is_here(&base);
        let key_file = data.join(ADMIN_KEY_FILE);
        let (key, key_source) = match settings.target.api_key.as_ref().filter(|key| !key.is_empty()) {
            Some(key) => (key.trim().to_owned(), "--api-key or ADE_API_KEY".to_owned()),
            // The admin's key of this machine is not for strangers.
            None if named.is_some() && !here => {
                return Err(usage("no_api_key", format!("{base} needs an API key: give --api-key or ADE_API_KEY")));
            }
            None => match std::fs::read_to_string(&key_file) {
                Ok(key) => (key.trim().to_owned(), key_file.display().to_string()),
                Err(error) => {
                    let file = key_file.display();
                    return Err(usage(
                        "no_api_key",
                        format!(
                            "no API key: give --api-key or ADE_API_KEY, or the service's data folder with ADE_DATA_DIR ({file}: {error})"
                        ),
                    ));
                }
            },
        };
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(usage("no_api_key", format!("what {key_source} gives is no API key of the form ade_…")));
        }
        let http = builder(here, ca_bundle)?.read_timeout(SILENCE).build();
        let patient = builder(here, ca_bundle)?.build();
        let failed = |error: reqwest::Error| ClientError::new(Blame::Environment, "client_unusable", error.to_string());
        Ok(Self { http: http.map_err(failed)?, patient: patient.map_err(failed)?, base, key, key_source, key_file })
    }
}

fn is_here(base: &Url) -> bool {
    match base.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
            address.is_ok_and(|address| address.is_loopback() || address.is_unspecified())
        }
        None => false,
    }
}

fn builder(here: bool, ca_bundle: Option<&Path>) -> Result<reqwest::ClientBuilder, ClientError> {
    // The provider of this process; another one of the same kind may be there already.
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("ade/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .tcp_user_timeout(UNCONFIRMED)
        // A service of this program never redirects; a key must not follow whoever does.
        .redirect(redirect::Policy::none());
    if here {
        builder = builder.no_proxy();
    }
    if let Some(path) = ca_bundle {
        let pem = std::fs::read(path).map_err(|error| ClientError::unreadable(path, error))?;
        let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| ClientError::unreadable(path, error))?;
        builder = builder.tls_certs_merge(authorities);
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Target;

    fn find(settings: &ClientSettings) -> Result<Client, String> {
        Client::find(settings, None).map_err(|error| error.kind)
    }

    #[test]
    fn the_admins_key_of_this_machine_goes_to_services_of_this_machine_only() {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join(ADMIN_KEY_FILE), "ade_secret\n").unwrap();
        let settings = |server: Option<&str>, key: Option<&str>| ClientSettings {
            target: Target { server: server.map(str::to_owned), api_key: key.map(str::to_owned), workspace: None },
            data_dir: Some(data.path().to_owned()),
        };
        assert_eq!(find(&settings(None, None)).unwrap().key, "ade_secret");
        for here in ["http://localhost:1", "http://127.0.0.9", "http://[::1]:3/ade"] {
            assert_eq!(find(&settings(Some(here), None)).unwrap().key, "ade_secret", "{here}");
        }
        assert_eq!(find(&settings(Some("https://ade.example.org"), None)).err().unwrap(), "no_api_key");
        let remote = find(&settings(Some("https://ade.example.org/ade/"), Some("ade_x"))).unwrap();
        assert_eq!(remote.key, "ade_x");
        assert_eq!(remote.url(&["a/b", ".."]).as_str(), "https://ade.example.org/ade/api/v1/a%2Fb");
        std::fs::write(data.path().join(ADDRESS_FILE), "http://127.0.0.1:9\n").unwrap();
        assert_eq!(find(&settings(None, None)).unwrap().base.as_str(), "http://127.0.0.1:9/");
        for wrong in ["localhost:8700", "ftp://x", "http://", "x"] {
            assert_eq!(find(&settings(Some(wrong), Some("ade_x"))).err().unwrap(), "server_invalid", "{wrong}");
        }
    }
}
