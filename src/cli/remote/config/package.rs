//! Packages on their way to a service, and back.

use super::{Named, find, show};
use crate::api::routes::configs::ConfigRecord;
use crate::api::routes::versions::VersionRecord;
use crate::cli::Exit;
use crate::cli::remote::Remote;
use crate::client::{Blame, ClientError};
use crate::job::open_package;
use crate::packages::Package;
use crate::text::plain;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Push {
    /// Config package: a folder, or a zip of one
    package: PathBuf,
    /// The config, by its name in commands and URLs: lower-case letters, digits and hyphens; where there is none of the name, it
    /// is made [default: made of the package's file name]
    #[arg(long, alias = "slug", value_name = "SLUG")]
    config: Option<String>,
    /// Name of a new config for people [default: the manifest's title]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// What a new config is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// What is sent: its canonical zip, small, and the same wherever it is made.
struct Packed {
    sha256: String,
    zip: Vec<u8>,
}

impl Packed {
    async fn open(path: PathBuf) -> Result<Self, ClientError> {
        let packing = tokio::task::spawn_blocking(move || -> Result<_, ClientError> {
            let package = open_package(&path)?;
            let zip = package.canonical_zip().map_err(|error| ClientError::unreadable(&path, error))?;
            Ok(Self { sha256: package.package_sha256().to_owned(), zip })
        });
        packing.await.unwrap_or_else(|error| Err(ClientError::new(Blame::Environment, "host_io", error.to_string())))
    }

    fn form(self) -> Form {
        Form::new().part("package", Part::bytes(self.zip).file_name("package.zip"))
    }
}

/// Publishes a package.
pub async fn push(remote: &Remote, args: Push) -> Result<Exit, ClientError> {
    let slug = args.config.unwrap_or_else(|| slug_of(&args.package));
    let packed = Packed::open(args.package).await?;
    let configs = ["workspaces", remote.workspace().await?, "configs"];
    let all = remote.client.list::<ConfigRecord>(&configs, &[], None).await?.items;
    let Some(mut config) = all.into_iter().find(|config| config.slug == slug || config.config_id.as_str() == slug)
    else {
        let record = create(remote, packed, slug, args.title, args.description).await?;
        return Ok(told(remote, &record, "new_config"));
    };
    if args.title.is_some() || args.description.is_some() {
        let slug = plain(&config.slug, 100);
        let message =
            format!("--title and --description are for a new config, and {slug} is there already; leave them out");
        return Err(ClientError::new(Blame::Request, "slug_taken", message));
    }
    let sha256 = packed.sha256.clone();
    let path = [&configs[..], &[config.config_id.as_str(), "versions"]].concat();
    let request = remote.client.patient(Method::POST, &path).multipart(packed.form());
    let response = remote.client.send(request).await?;
    let new = response.status() == StatusCode::CREATED;
    let version: VersionRecord = remote.client.read(response).await?;
    stored_as(&sha256, &version)?;
    config.latest_version = Some(version);
    Ok(told(remote, &config, if new { "new_version" } else { "unchanged" }))
}

/// Registers a package as a new config.
async fn create(
    remote: &Remote,
    packed: Packed,
    slug: String,
    title: Option<String>,
    description: Option<String>,
) -> Result<ConfigRecord, ClientError> {
    let sha256 = packed.sha256.clone();
    let mut form = packed.form().text("slug", slug);
    for (name, text) in [("title", title), ("description", description)] {
        if let Some(text) = text {
            form = form.text(name, text);
        }
    }
    let configs = ["workspaces", remote.workspace().await?, "configs"];
    let record: ConfigRecord =
        remote.client.json(remote.client.patient(Method::POST, &configs).multipart(form)).await?;
    match &record.latest_version {
        Some(version) => stored_as(&sha256, version)?,
        None => return Err(ClientError::new(Blame::Environment, "unexpected_answer", "the new config has no version")),
    }
    Ok(record)
}

fn stored_as(sha256: &str, version: &VersionRecord) -> Result<(), ClientError> {
    if version.package_sha256 == sha256 {
        return Ok(());
    }
    let message = format!("the service has stored {} with another sha256 than {sha256}", version.config_version_id);
    Err(ClientError::new(Blame::Environment, "hash_mismatch", message))
}

/// Says what was published: `new_config`, `new_version` or `unchanged`.
pub fn told(remote: &Remote, config: &ConfigRecord, published: &str) -> Exit {
    if remote.output.json {
        let mut said = json!(config);
        said["published"] = published.into();
        println!("{said}");
        return Exit::Success;
    }
    let version = config.latest_version.as_ref().map(|version| plain(&version.version, 10)).unwrap_or_default();
    let slug = plain(&config.slug, 100);
    remote.note(&match published {
        "unchanged" => format!("nothing was published: {slug}@{version} is this very package"),
        "new_version" => format!("published as {slug}@{version}; it runs where it is named, and `ade config activate {slug}@{version}` has it run where nothing is"),
        _ => format!("{slug} is new, and this is its {version}"),
    });
    show(remote, config)
}

/// A slug that is made of a path's last part.
fn slug_of(path: &Path) -> String {
    let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = whole.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").chars().take(100).collect()
}

/// The package of a version, whole and with the right hash.
pub async fn fetch(remote: &Remote, config: &ConfigRecord, version: &VersionRecord) -> Result<Package, ClientError> {
    let folder = tempfile::Builder::new().prefix("ade-").tempdir();
    let folder = folder.map_err(|error| ClientError::unwritable(&std::env::temp_dir(), error))?;
    let zip = folder.path().join("package.zip");
    save(remote, config, version, &zip).await?;
    let sha256 = version.package_sha256.clone();
    let opening = tokio::task::spawn_blocking(move || -> Result<Package, ClientError> {
        let package = open_package(&zip)?;
        drop(folder);
        Ok(package)
    });
    let package = opening
        .await
        .unwrap_or_else(|error| Err(ClientError::new(Blame::Environment, "host_io", error.to_string())))?;
    if package.package_sha256() != sha256 {
        let message = format!("the service sent another package than {}", plain(&sha256, 64));
        return Err(ClientError::new(Blame::Environment, "hash_mismatch", message));
    }
    Ok(package)
}

async fn save(
    remote: &Remote,
    config: &ConfigRecord,
    version: &VersionRecord,
    target: &Path,
) -> Result<u64, ClientError> {
    let (workspace, config) = (remote.workspace().await?, config.config_id.as_str());
    let version_id = version.config_version_id.as_str();
    let request = remote.client.get(&["workspaces", workspace, "configs", config, "versions", version_id, "export"]);
    remote.save(request, target, Some(&version.package_sha256)).await
}

/// Writes the package of a version into a new folder, which appears whole or not at all.
pub async fn pull(remote: &Remote, named: &Named, folder: &Path) -> Result<Exit, ClientError> {
    if fs::read_dir(folder)
        .map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |mut inside| inside.next().is_some())
    {
        let message = format!(
            "{} is there already and not empty; pull into another folder, and `ade config diff` says what differs",
            folder.display()
        );
        return Err(ClientError::new(Blame::Request, "file_exists", message));
    }
    let (config, version) = find(remote, named).await?;
    let package = fetch(remote, &config, &version).await?;
    let unwritable = |error: io::Error| ClientError::unwritable(folder, error);
    write(&package, folder).map_err(unwritable)?;
    if remote.output.json {
        println!("{}", json!({"folder": folder, "version": version, "files": package.files().len()}));
    } else {
        let (slug, name) = (plain(&config.slug, 100), plain(&version.version, 10));
        anstream::println!("{slug}@{name} is in {}, {} files", folder.display(), package.files().len());
    }
    Ok(Exit::Success)
}

fn write(package: &Package, folder: &Path) -> io::Result<()> {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    let staging = tempfile::Builder::new().prefix(".ade-").permissions(mode).tempdir_in(parent)?;
    // The paths of a package that could be opened lead nowhere else.
    for (path, content) in package.files() {
        let target = staging.path().join(path);
        fs::create_dir_all(target.parent().unwrap_or(staging.path()))?;
        fs::write(target, content)?;
    }
    if folder.is_dir() {
        fs::remove_dir(folder)?;
    }
    fs::rename(staging.path(), folder)?;
    drop(staging.keep());
    Ok(())
}

/// Makes a new config of the package of a version.
pub async fn clone(remote: &Remote, named: &Named, slug: String, title: Option<String>) -> Result<Exit, ClientError> {
    let (config, version) = find(remote, named).await?;
    let package = fetch(remote, &config, &version).await?;
    let unexpected = |error: io::Error| ClientError::new(Blame::Environment, "host_io", error.to_string());
    let zip = package.canonical_zip().map_err(unexpected)?;
    let packed = Packed { sha256: package.package_sha256().to_owned(), zip };
    let record = create(remote, packed, slug, title, Some(config.description)).await?;
    Ok(told(remote, &record, "new_config"))
}

/// Writes the canonical zip of a version.
pub async fn export(remote: &Remote, named: &Named, file: &Path) -> Result<Exit, ClientError> {
    if file.exists() {
        let message = format!("there is a file {} already; choose another name", file.display());
        return Err(ClientError::new(Blame::Request, "file_exists", message));
    }
    let (config, version) = find(remote, named).await?;
    let bytes = save(remote, &config, &version, file).await?;
    if remote.output.json {
        println!("{}", json!({"file": file, "bytes": bytes, "version": version}));
    } else {
        let size = crate::cli::style::bytes(bytes);
        anstream::println!(
            "{}@{} is in {} ({size})",
            plain(&config.slug, 100),
            plain(&version.version, 10),
            file.display()
        );
    }
    Ok(Exit::Success)
}
