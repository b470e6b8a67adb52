//! `ade config diff`: what differs between two packages, here or on a service.

use super::{Named, find, package};
use crate::cli::remote::{self, Remote};
use crate::cli::style::{BAD, DIM, GOOD, STRONG, paint};
use crate::cli::{Exit, Output};
use crate::client::{Blame, ClientError};
use crate::job::open_package;
use crate::packages::{MANIFEST, Package};
use crate::settings::{ClientSettings, Settings};
use crate::text::plain;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use similar::TextDiff;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// A larger file is compared by its hash.
const MAX_TEXT: usize = 1024 * 1024;
/// Characters of a line that are shown.
const MAX_LINE: usize = 2_000;
/// After so long, what is left of a file counts as changed altogether.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A package: a folder, a zip, or a config with its version if not the newest, such as members@v3
    #[arg(value_name = "A")]
    before: String,
    /// Another one
    #[arg(value_name = "B")]
    after: String,
}

/// A file that is not the same in both.
#[derive(Debug, Serialize)]
struct Changed {
    path: String,
    /// `added`, `removed` or `changed`.
    change: &'static str,
    /// A unified diff; none for what is no text, or too long.
    diff: Option<String>,
    sha256_before: Option<String>,
    sha256_after: Option<String>,
}

/// Runs the command. A service is asked for only when one of the two is there.
pub async fn main(args: Args, client: ClientSettings, settings: &Settings, output: Output) -> ExitCode {
    if [&args.before, &args.after].into_iter().all(|name| Path::new(name).exists()) {
        return diff(None, &args, output).await.unwrap_or_else(|error| remote::fail(&error, output)).into();
    }
    remote::run(client, settings, output, async |remote: &Remote| diff(Some(remote), &args, output).await).await
}

async fn diff(service: Option<&Remote>, args: &Args, output: Output) -> Result<Exit, ClientError> {
    let (before, after) = (open(service, &args.before).await?, open(service, &args.after).await?);
    Ok(report(args, &compare(&before, &after), output))
}

async fn open(service: Option<&Remote>, name: &str) -> Result<Package, ClientError> {
    let path = Path::new(name).to_owned();
    match service {
        Some(remote) if !path.exists() => {
            // Whoever names a path means one.
            if name.contains('/') {
                return Err(ClientError::unreadable(&path, "there is no such folder or zip"));
            }
            let named: Named = name.parse().unwrap_or_else(|never| match never {});
            let (config, version) = find(remote, &named).await?;
            package::fetch(remote, &config, &version).await
        }
        _ => {
            let opening = tokio::task::spawn_blocking(move || open_package(&path));
            let opened =
                opening.await.map_err(|error| ClientError::new(Blame::Environment, "host_io", error.to_string()))?;
            Ok(opened?)
        }
    }
}

/// All files that differ, the manifest first.
fn compare(before: &Package, after: &Package) -> Vec<Changed> {
    let paths: BTreeSet<&str> = before.files().chain(after.files()).map(|(path, _)| path).collect();
    let rest = paths.iter().copied().filter(|path| *path != MANIFEST);
    let mut changed = Vec::new();
    for path in [MANIFEST].into_iter().chain(rest) {
        let (old, new) = (before.file(path), after.file(path));
        if old == new {
            continue;
        }
        let text = |content: Option<&[u8]>| -> Option<String> {
            let content = content.unwrap_or_default();
            let fits = content.len() <= MAX_TEXT && !content.contains(&0);
            fits.then(|| std::str::from_utf8(content).ok().map(str::to_owned)).flatten()
        };
        let diff = text(old).zip(text(new)).map(|(old, new)| {
            let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(&old, &new);
            let name = |side: &str, there: bool| if there { format!("{side}/{path}") } else { "/dev/null".to_owned() };
            diff.unified_diff()
                .header(&name("a", before.file(path).is_some()), &name("b", after.file(path).is_some()))
                .to_string()
        });
        let hash = |content: Option<&[u8]>| content.map(|content| format!("{:x}", Sha256::digest(content)));
        changed.push(Changed {
            path: path.to_owned(),
            change: match (old, new) {
                (None, _) => "added",
                (_, None) => "removed",
                _ => "changed",
            },
            diff,
            sha256_before: hash(old),
            sha256_after: hash(new),
        });
    }
    changed
}

fn report(args: &Args, changed: &[Changed], output: Output) -> Exit {
    if output.json {
        println!("{}", json!({"same": changed.is_empty(), "files": changed}));
    } else if changed.is_empty() {
        anstream::println!("{} and {} are the same package", plain(&args.before, 200), plain(&args.after, 200));
    } else {
        for one in changed {
            print(one);
        }
    }
    if changed.is_empty() { Exit::Success } else { Exit::JobFailed }
}

fn print(one: &Changed) {
    anstream::println!("{}", paint(STRONG, format!("{} {}", one.change, plain(&one.path, 240))));
    let Some(diff) = &one.diff else {
        let hash = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "nothing".to_owned());
        anstream::println!("  sha256 {} → {}", hash(&one.sha256_before), hash(&one.sha256_after));
        return;
    };
    for line in diff.lines() {
        let style = match line.as_bytes().first() {
            Some(b'+') => GOOD,
            Some(b'-') => BAD,
            Some(b'@') => DIM,
            _ => anstyle::Style::new(),
        };
        anstream::println!("{}", paint(style, plain(line, MAX_LINE)));
    }
}
