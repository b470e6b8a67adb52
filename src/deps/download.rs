//! Fetching the wheels of a lock into a folder, for `ade wheelhouse add`.

use super::{Deps, Locked};
use crate::sandbox::{Failure, FailureKind};
use crate::text::plain;
use futures_util::StreamExt;
use reqwest::Certificate;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tempfile::NamedTempFile;

const CONNECT: Duration = Duration::from_secs(15);
/// Time without a byte.
const SILENCE: Duration = Duration::from_secs(60);

/// Fetches one wheel, unless the folder has it; whether it did. A file counts only with the hash of the lock, and is whole or absent.
///
/// # Errors
/// `dependency_install_failed` for what the index does, `host_io` for the folder.
pub async fn download(deps: &Deps, ca_bundle: Option<&Path>, wheel: &Locked, folder: &Path) -> Result<bool, Failure> {
    let index = deps.index();
    let secrets = index.secrets();
    let failed = |what: &str| {
        let what = plain(&secrets.scrub(what), 400);
        Failure::new(FailureKind::DependencyInstallFailed, format!("cannot fetch {}: {what}", wheel.filename))
    };
    let host_io = |error: std::io::Error| {
        Failure::new(FailureKind::HostIo, format!("cannot write to {}: {error}; free space there", folder.display()))
    };
    // It comes from the index, by way of the installer.
    let plain_name = !wheel.filename.starts_with('.') && !wheel.filename.contains(['/', '\\', '\0']);
    if !plain_name || !wheel.filename.to_ascii_lowercase().ends_with(".whl") {
        return Err(failed("the index gives no plain name of a wheel for it"));
    }
    let path = folder.join(&wheel.filename);
    if path.is_file() && hash(&path).map_err(host_io)? == wheel.sha256 {
        return Ok(false);
    }
    let mut url = reqwest::Url::parse(&wheel.url).map_err(|_| failed("the index gives no address for it"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(failed("the index gives an address for it that is neither http nor https"));
    }
    if let Some(own) = index.credentials_for(&url) {
        url.set_username(own.username()).and_then(|()| url.set_password(own.password())).ok();
    }
    let client = client(ca_bundle).map_err(|error| failed(&error))?;
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let response = response.map_err(|error| failed(&chain(&error)))?;
    let mut file = NamedTempFile::new_in(folder).map_err(host_io)?;
    let (mut digest, mut left) = (Sha256::new(), index.max_set_mb * 1024 * 1024);
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| failed(&chain(&error)))?;
        left = left
            .checked_sub(chunk.len() as u64)
            .ok_or_else(|| failed(&format!("it has more than {} MB (ADE_DEPS_MAX_SET_MB)", index.max_set_mb)))?;
        digest.update(&chunk);
        file.write_all(&chunk).map_err(host_io)?;
    }
    if format!("{:x}", digest.finalize()) != wheel.sha256 {
        return Err(failed("hash mismatch: it is not the file that the index announced"));
    }
    // An installer has a uid of its own.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(host_io)?;
    file.persist(&path).map_err(|error| host_io(error.error))?;
    Ok(true)
}

fn client(ca_bundle: Option<&Path>) -> Result<reqwest::Client, String> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("ade/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE);
    if let Some(path) = ca_bundle {
        let pem = std::fs::read(path).map_err(|error| format!("ADE_CA_BUNDLE {}: {error}", path.display()))?;
        let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| format!("ADE_CA_BUNDLE: {error}"))?;
        builder = builder.tls_certs_merge(authorities);
    }
    builder.build().map_err(|error| error.to_string())
}

/// An error with what is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut digest = Sha256::new();
    std::io::copy(&mut file, &mut digest)?;
    Ok(format!("{:x}", digest.finalize()))
}
