//! Where packages come from; all of it is the admin's to set.

use super::secrets::Secrets;
use crate::network::HostPattern;
use crate::text::texts;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The public index, unless an admin sets another.
pub const PUBLIC_INDEX: &str = "https://pypi.org/simple";
/// Where the public index has its files.
const PUBLIC_FILES: &str = "files.pythonhosted.org";

texts! {
    /// The program that resolves and installs.
    Tool {
        /// uv: the faster one, and keeps indexes apart.
        Uv = "uv",
        /// pip: the published meaning of `requirements.txt`.
        Pip = "pip",
    }
}

/// A folder of wheels, on the engine's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wheelhouse {
    /// A folder.
    Folder(PathBuf),
    /// A Docker volume.
    Volume(String),
}

impl FromStr for Wheelhouse {
    type Err = String;

    /// What has a slash, or is `.` or `..`, is a folder; a bare name is a volume, as for `docker run --volume`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') || matches!(text, "." | "..") {
            let path = std::path::absolute(text).map_err(|error| error.to_string())?;
            return Ok(Self::Folder(path));
        }
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(sound) {
            Ok(Self::Volume(text.to_owned()))
        } else {
            Err(format!("{text:?} is neither a path (with a slash) nor the name of a Docker volume"))
        }
    }
}

impl std::fmt::Display for Wheelhouse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Volume(name) => f.write_str(name),
        }
    }
}

/// Where packages come from, and what an install may take.
#[derive(Debug, Clone)]
pub struct Index {
    /// The program.
    pub tool: Tool,
    /// The index, with its credentials.
    pub url: String,
    /// Further indexes, asked before it; the first that knows a name has it.
    pub extra_urls: Vec<String>,
    /// Hosts besides those of the indexes that have their files.
    pub file_hosts: Vec<HostPattern>,
    /// The wheelhouse of the instance.
    pub wheelhouse: Option<Wheelhouse>,
    /// A folder of folders: the one with a workspace's id is its wheelhouse.
    pub workspace_wheelhouses: Option<PathBuf>,
    /// Largest set on disk, MiB.
    pub max_set_mb: u64,
    /// Longest install.
    pub timeout: Duration,
}

impl Default for Index {
    /// As without any setting.
    fn default() -> Self {
        Self {
            tool: Tool::Uv,
            url: PUBLIC_INDEX.to_owned(),
            extra_urls: Vec::new(),
            file_hosts: Vec::new(),
            wheelhouse: None,
            workspace_wheelhouses: None,
            max_set_mb: 2048,
            timeout: Duration::from_secs(600),
        }
    }
}

impl Index {
    /// What an installer may reach: the hosts of the indexes and of their files.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostPattern> {
        let mut hosts: Vec<HostPattern> = Vec::new();
        for url in std::iter::once(&self.url).chain(&self.extra_urls) {
            let Some(host) = host_of(url) else { continue };
            hosts.extend(host.parse::<HostPattern>());
            if host == "pypi.org" {
                hosts.extend(PUBLIC_FILES.parse::<HostPattern>());
            }
        }
        hosts.extend(self.file_hosts.iter().cloned());
        hosts
    }

    /// Where packages come from, as far as it makes a set another set.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for part in [self.tool.as_str(), &self.url].into_iter().chain(self.extra_urls.iter().map(String::as_str)) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        format!("{:x}", hash.finalize())
    }

    /// The wheelhouses of a workspace, with where an installer finds them.
    #[must_use]
    pub fn wheelhouses(&self, workspace_id: &str) -> Vec<(Wheelhouse, &'static str)> {
        let own = self.workspace_wheelhouses.as_deref().and_then(|folder| own_folder(folder, workspace_id));
        own.map(|folder| (Wheelhouse::Folder(folder), "/wheelhouse/workspace"))
            .into_iter()
            .chain(self.wheelhouse.clone().map(|wheelhouse| (wheelhouse, "/wheelhouse/instance")))
            .collect()
    }

    /// What must not be shown.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        Secrets::of(std::iter::once(&self.url).chain(&self.extra_urls).map(String::as_str))
    }

    /// The index whose credentials a file needs: one on its host.
    #[must_use]
    pub fn credentials_for(&self, file: &reqwest::Url) -> Option<reqwest::Url> {
        let mut urls =
            std::iter::once(&self.url).chain(&self.extra_urls).filter_map(|url| reqwest::Url::parse(url).ok());
        urls.find(|url| !url.username().is_empty() && url.origin() == file.origin())
    }

    /// Whether any index needs credentials.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        std::iter::once(&self.url)
            .chain(&self.extra_urls)
            .any(|url| authority(url).is_some_and(|text| text.contains('@')))
    }
}

fn own_folder(folder: &Path, workspace_id: &str) -> Option<PathBuf> {
    let sound = workspace_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let own = folder.join(workspace_id);
    (sound && !workspace_id.is_empty() && own.is_dir()).then_some(own)
}

fn authority(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    rest.split(['/', '?', '#']).next()
}

/// Host and port of a URL.
fn host_of(url: &str) -> Option<&str> {
    let authority = authority(url)?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(url: &str, extra: &[&str]) -> Index {
        let extra_urls = extra.iter().map(|url| (*url).to_owned()).collect();
        Index { url: url.to_owned(), extra_urls, ..Index::default() }
    }

    #[test]
    fn an_installer_reaches_the_index_and_its_files_only() {
        let hosts = |index: &Index| index.hosts().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(hosts(&index(PUBLIC_INDEX, &[])), ["pypi.org", "files.pythonhosted.org"]);
        let own = index("https://u:p@Index.example:8443/simple", &["http://[::1]:80/x"]);
        assert_eq!(hosts(&own), ["index.example:8443", "[::1]:80"]);
    }

    #[test]
    fn another_index_is_another_policy() {
        let plain = index("https://a.example/simple", &[]);
        assert_ne!(plain.fingerprint(), index("https://a.example/simple", &["https://b.example"]).fingerprint());
        assert_ne!(plain.fingerprint(), Index { tool: Tool::Pip, ..plain.clone() }.fingerprint());
    }

    #[test]
    fn a_wheelhouse_is_a_path_or_a_volume() {
        assert_eq!("/srv/wheels".parse(), Ok(Wheelhouse::Folder("/srv/wheels".into())));
        assert_eq!("wheels".parse(), Ok(Wheelhouse::Volume("wheels".into())));
        assert!(matches!("./wheels".parse(), Ok(Wheelhouse::Folder(path)) if path.is_absolute()));
        assert!("-x".parse::<Wheelhouse>().is_err() && "a b".parse::<Wheelhouse>().is_err());
    }

    #[test]
    fn a_workspace_finds_its_own_folder_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("ws_1")).unwrap();
        let index = Index { workspace_wheelhouses: Some(folder.path().to_owned()), ..index(PUBLIC_INDEX, &[]) };
        assert_eq!(index.wheelhouses("ws_1").len(), 1);
        for other in ["ws_2", "", "..", "../ws_1", "."] {
            assert_eq!(index.wheelhouses(other).len(), 0, "{other:?}");
        }
    }
}
