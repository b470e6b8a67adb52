//! `ade documents`.

use super::{Listing, Remote, moment};
use crate::api::routes::documents::DocumentRecord;
use crate::cli::style::bytes;
use crate::cli::{Exit, Output};
use crate::client::{Blame, ClientError};
use crate::ids::DocumentId;
use crate::settings::{ClientSettings, Settings};
use crate::text::plain;
use reqwest::Method;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    client: ClientSettings,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Upload files
    Upload {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List documents, the newest first
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a document
    Get {
        /// The document
        document: DocumentId,
    },
    /// Download a document
    Download {
        /// The document
        document: DocumentId,
        /// File for it, which is replaced, or a folder [default: its own name, here, unless there is such a file]
        #[arg(long, short, value_name = "PATH")]
        out: Option<PathBuf>,
    },
    /// Delete a document that no unfinished job needs
    Delete {
        /// The document
        document: DocumentId,
    },
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let command = args.command;
    super::run(args.client, settings, output, async |remote: &Remote| run(remote, command).await).await
}

async fn run(remote: &Remote, command: Command) -> Result<Exit, ClientError> {
    let documents = ["workspaces", remote.workspace().await?, "documents"];
    let find = async |id: &DocumentId| -> Result<DocumentRecord, ClientError> {
        remote.client.json(remote.client.get(&[&documents[..], &[id.as_str()]].concat())).await
    };
    match command {
        Command::Upload { files } => upload(remote, &files).await,
        Command::List { listing } => {
            let headers = ["DOCUMENT", "NAME", "SIZE", "UPLOADED"];
            remote
                .list(&documents, &[], listing, headers, |document: &DocumentRecord| {
                    [
                        document.document_id.to_string(),
                        plain(&document.filename, 60),
                        bytes(document.bytes),
                        moment(&document.created_at),
                    ]
                })
                .await
        }
        Command::Get { document } => {
            let record = find(&document).await?;
            Ok(remote.show(
                &record,
                &[
                    ("document", Some(record.document_id.to_string())),
                    ("name", Some(plain(&record.filename, 255))),
                    ("size", Some(bytes(record.bytes))),
                    ("sha256", Some(plain(&record.sha256, 64))),
                    ("uploaded", Some(moment(&record.created_at))),
                ],
            ))
        }
        Command::Download { document, out } => {
            let record = find(&document).await?;
            let target = target(&record, out)?;
            let request = remote.client.get(&[&documents[..], &[document.as_str(), "download"]].concat());
            let size = remote.save(request, &target, Some(&record.sha256)).await?;
            if remote.output.json {
                println!("{}", json!({"document_id": document, "path": target.display().to_string(), "bytes": size}));
            } else {
                anstream::println!("{}  {}", target.display(), bytes(size));
            }
            Ok(Exit::Success)
        }
        Command::Delete { document } => {
            let path = [&documents[..], &[document.as_str()]].concat();
            remote.client.send(remote.client.request(Method::DELETE, &path)).await?;
            if remote.output.json {
                println!("{}", json!({"document_id": document, "deleted": true}));
            } else {
                anstream::println!("deleted  {document}");
            }
            Ok(Exit::Success)
        }
    }
}

async fn upload(remote: &Remote, files: &[PathBuf]) -> Result<Exit, ClientError> {
    let mut records = Vec::with_capacity(files.len());
    for file in files {
        let record = remote.upload(file, Duration::ZERO).await?;
        if !remote.output.json {
            anstream::println!("{}", record.document_id);
        }
        records.push(record);
    }
    if remote.output.json {
        println!("{}", json!({"items": records}));
    }
    Ok(Exit::Success)
}

/// Where a download goes. The name comes from whoever uploaded it, so it replaces nothing unless it was asked for.
fn target(record: &DocumentRecord, out: Option<PathBuf>) -> Result<PathBuf, ClientError> {
    let name = Path::new(&record.filename).file_name().map(Path::new).unwrap_or(Path::new("document"));
    match out {
        Some(folder) if folder.is_dir() => Ok(folder.join(name)),
        Some(file) => Ok(file),
        None if name.exists() => {
            let message = format!("there is a file {} here; say where to with --out", name.display());
            Err(ClientError::new(Blame::Request, "file_exists", message))
        }
        None => Ok(name.to_owned()),
    }
}
