//! `ade config draft`: files of a config that are changed one by one, and become a version when they are published. Whoever changes
//! a file says what it was, so that nobody writes over what another has written meanwhile.

use super::{Named, find, package};
use crate::api::routes::draft_files::{DraftEdit, DraftFileRecord, DraftFiles};
use crate::api::routes::drafts::{CreateDraft, DraftRecord, PublishDraft};
use crate::api::routes::validation::ValidationRecord;
use crate::api::routes::versions::VersionRecord;
use crate::blob;
use crate::cli::remote::{Listing, Remote, moment, submit};
use crate::cli::style::bytes;
use crate::cli::{Exit, style};
use crate::client::{Blame, ClientError};
use crate::ids::{ConfigId, DraftId};
use crate::packages::{PackageCaps, PackageError, file_path};
use crate::text::plain;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a draft: of the newest version, of another one, or empty
    New {
        /// The config, by id or slug, and the version if not the newest, such as members@v3
        #[arg(value_name = "CONFIG[@VERSION]")]
        config: Named,
        /// Begin without files
        #[arg(long)]
        empty: bool,
        /// Its name for people [default: the config and the version that it was made from]
        #[arg(long, value_name = "TEXT")]
        title: Option<String>,
    },
    /// List the drafts of a config, the newest first
    List {
        /// The config, by id or slug
        config: String,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a draft and its files
    Show {
        #[command(flatten)]
        draft: Which,
    },
    /// Fetch a file of a draft
    Get {
        #[command(flatten)]
        draft: Which,
        #[command(flatten)]
        path: Place,
        /// File to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Write a file of a draft: a new one, unless --expect or --force says otherwise
    Put {
        #[command(flatten)]
        draft: Which,
        #[command(flatten)]
        path: Place,
        /// File to read
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Write over the file only if this is its hash, as get and show say it
        #[arg(long, value_name = "SHA256", conflicts_with = "force")]
        expect: Option<blob::Digest>,
        /// Write over whatever is there
        #[arg(long)]
        force: bool,
    },
    /// Change a file of a draft in your editor: VISUAL, EDITOR, or vi
    ///
    /// The file is written only if it still is what the editor began with. Otherwise what you have written is kept on this machine,
    /// and the message says where.
    Edit {
        #[command(flatten)]
        draft: Which,
        #[command(flatten)]
        path: Place,
    },
    /// Remove a file of a draft
    Rm {
        #[command(flatten)]
        draft: Which,
        #[command(flatten)]
        path: Place,
        /// Remove the file only if this is its hash, as get and show say it
        #[arg(long, value_name = "SHA256")]
        expect: Option<blob::Digest>,
    },
    /// Check a draft as a package: every diagnostic at once, with file, line and hint
    Validate {
        #[command(flatten)]
        draft: Which,
    },
    /// Publish a draft as the next version of its config; the draft stays
    Publish {
        #[command(flatten)]
        draft: Which,
        /// Publish it only if it is at this revision, as show and validate say it
        #[arg(long, value_name = "NUMBER")]
        revision: Option<i64>,
    },
    /// Fetch all files of a draft as a zip, whether or not they are a valid package
    Export {
        #[command(flatten)]
        draft: Which,
        /// Zip file to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Delete a draft and its files; versions that were published of it stay
    Delete {
        #[command(flatten)]
        draft: Which,
    },
}

/// Which draft.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// The config, by id or slug, and the draft if it has several, such as members@draft_…
    #[arg(id = "draft", value_name = "CONFIG[@DRAFT]")]
    named: Named,
}

/// Which file.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// Path of the file in the package, such as columns/email.py
    #[arg(value_name = "PATH")]
    path: String,
}

/// A draft as it was found, and where it is on the service.
struct Draft<'a> {
    remote: &'a Remote,
    workspace: &'a str,
    /// As the caller may name it in another command.
    name: String,
    record: DraftRecord,
}

/// Runs the command.
pub async fn run(remote: &Remote, command: Command) -> Result<Exit, ClientError> {
    let open = async |which: &Which| Draft::find(remote, &which.named).await;
    match command {
        Command::New { config, empty, title } => new(remote, &config, empty, title).await,
        Command::List { config, listing } => list(remote, &config, listing).await,
        Command::Show { draft } => open(&draft).await?.show().await,
        Command::Get { draft, path, file } => open(&draft).await?.get(&path.path, &file).await,
        Command::Put { draft, path, file, expect, force } => {
            let content = read(&file).await?;
            let draft = open(&draft).await?;
            let edit = draft
                .put(&path.path, content, Expect::of(expect, if force { Expect::Anything } else { Expect::Nothing }))
                .await?;
            Ok(draft.changed(&path.path, &edit))
        }
        Command::Edit { draft, path } => open(&draft).await?.edit(&path.path).await,
        Command::Rm { draft, path, expect } => {
            let draft = open(&draft).await?;
            let request = Expect::of(expect, Expect::Anything).on(draft.file(Method::DELETE, &path.path)?);
            let edit = draft.write(&path.path, request).await?;
            Ok(draft.changed(&path.path, &edit))
        }
        Command::Validate { draft } => open(&draft).await?.validate().await,
        Command::Publish { draft, revision } => open(&draft).await?.publish(revision).await,
        Command::Export { draft, file } => open(&draft).await?.export(&file).await,
        Command::Delete { draft } => open(&draft).await?.delete().await,
    }
}

async fn new(remote: &Remote, named: &Named, empty: bool, title: Option<String>) -> Result<Exit, ClientError> {
    let (config, config_version_id) = match &named.version {
        Some(_) => {
            let (config, version) = find(remote, named).await?;
            (config, Some(version.config_version_id))
        }
        // The service knows which version is the newest.
        None => (submit::config(remote, &named.config).await?, None),
    };
    let path = ["workspaces", remote.workspace().await?, "configs", config.config_id.as_str(), "drafts"];
    let asked = CreateDraft { config_version_id, empty, title };
    let record: DraftRecord = remote.client.json(remote.client.request(Method::POST, &path).json(&asked)).await?;
    Ok(remote.show(&record, &fields(&record)))
}

async fn list(remote: &Remote, config: &str, listing: Listing) -> Result<Exit, ClientError> {
    let config = submit::config(remote, config).await?;
    let path = ["workspaces", remote.workspace().await?, "configs", config.config_id.as_str(), "drafts"];
    let headers = ["DRAFT", "TITLE", "REVISION", "FILES", "BY", "CHANGED"];
    remote
        .list(&path, &[], listing, headers, |draft: &DraftRecord| {
            [
                draft.draft_id.to_string(),
                plain(&draft.title, 40),
                draft.revision.to_string(),
                draft.files.to_string(),
                plain(draft.author.as_deref().unwrap_or_default(), 40),
                moment(&draft.updated_at),
            ]
        })
        .await
}

fn fields(draft: &DraftRecord) -> Vec<(&'static str, Option<String>)> {
    vec![
        ("draft", Some(draft.draft_id.to_string())),
        ("config", Some(draft.config_id.to_string())),
        ("title", Some(plain(&draft.title, 255))),
        ("base", draft.base_version_id.as_ref().map(ToString::to_string)),
        ("revision", Some(draft.revision.to_string())),
        ("files", Some(format!("{} ({})", draft.files, bytes(draft.bytes)))),
        ("made", Some(moment(&draft.created_at))),
        ("by", draft.author.as_deref().map(|author| plain(author, 80))),
        ("changed", Some(moment(&draft.updated_at))),
    ]
}

/// What a file must be for a change of it.
enum Expect {
    Anything,
    Nothing,
    Hash(String),
}

impl Expect {
    fn of(hash: Option<blob::Digest>, otherwise: Self) -> Self {
        hash.map_or(otherwise, |hash| Self::Hash(hash.to_string()))
    }

    fn on(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Anything => request,
            Self::Nothing => request.header("If-None-Match", "*"),
            Self::Hash(hash) => request.header("If-Match", format!("\"{hash}\"")),
        }
    }
}

/// Reads a file that a package may have.
async fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    let (path, max) = (path.to_owned(), PackageCaps::default().file_bytes);
    let reading = tokio::task::spawn_blocking(move || {
        let unreadable = |error: io::Error| ClientError::unreadable(&path, error);
        let mut content = Vec::new();
        let file = std::fs::File::open(&path).map_err(unreadable)?;
        file.take(max + 1).read_to_end(&mut content).map_err(unreadable)?;
        if content.len() as u64 > max {
            let message = format!("{} is larger than a file of a package may be ({})", path.display(), bytes(max));
            return Err(ClientError::new(Blame::Request, "package_too_large", message));
        }
        Ok(content)
    });
    reading.await.unwrap_or_else(|error| Err(broke(&error)))
}

fn broke(error: &dyn std::fmt::Display) -> ClientError {
    ClientError::new(Blame::Environment, "host_io", error.to_string())
}

impl<'a> Draft<'a> {
    /// The draft that is named, or the only one that the config has.
    async fn find(remote: &'a Remote, named: &Named) -> Result<Self, ClientError> {
        let config = submit::config(remote, &named.config).await?;
        let (workspace, slug) = (remote.workspace().await?, plain(&config.slug, 100));
        let missing = |what: String| ClientError::new(Blame::Request, "draft_not_found", what);
        let drafts = ["workspaces", workspace, "configs", config.config_id.as_str(), "drafts"];
        let known =
            |record: DraftRecord| Self { remote, workspace, name: format!("{slug}@{}", record.draft_id), record };
        if let Some(id) = &named.version {
            let parsed: Result<DraftId, _> = id.parse();
            let id = parsed.map_err(|_| {
                missing(format!(
                    "{:?} is no id of a draft; `ade config draft list {slug}` lists those of {slug}",
                    plain(id, 40)
                ))
            })?;
            return Ok(known(remote.client.json(remote.client.get(&[&drafts[..], &[id.as_str()]].concat())).await?));
        }
        let mut found = remote.client.list::<DraftRecord>(&drafts, &[], Some(2)).await?.items;
        match (found.pop(), found.pop()) {
            (Some(only), None) => Ok(known(only)),
            (None, _) => Err(missing(format!("{slug} has no draft; `ade config draft new {slug}` makes one"))),
            (Some(_), Some(_)) => Err(ClientError::new(
                Blame::Request,
                "draft_required",
                format!(
                    "{slug} has several drafts: name one as {slug}@DRAFT; `ade config draft list {slug}` lists their ids"
                ),
            )),
        }
    }

    fn config(&self) -> &ConfigId {
        &self.record.config_id
    }

    /// A path below the draft's own.
    fn below<'p>(&'p self, rest: &[&'p str]) -> Vec<&'p str> {
        let own =
            ["workspaces", self.workspace, "configs", self.config().as_str(), "drafts", self.record.draft_id.as_str()];
        [&own[..], rest].concat()
    }

    /// A request about one of its files.
    fn file(&self, method: Method, path: &str) -> Result<RequestBuilder, ClientError> {
        let odd = |error: PackageError| ClientError::new(Blame::Request, error.code(), error.to_string());
        let path = file_path(path).map_err(odd)?;
        Ok(self.remote.client.request(method, &self.below(&["files", path])))
    }

    async fn files(&self) -> Result<DraftFiles, ClientError> {
        self.remote.client.json(self.remote.client.get(&self.below(&["files"]))).await
    }

    async fn show(&self) -> Result<Exit, ClientError> {
        let DraftFiles { revision, files } = self.files().await?;
        let record = DraftRecord { revision, ..self.record.clone() };
        if self.remote.output.json {
            let mut said = json!(record);
            said["files"] = json!(files);
            println!("{said}");
            return Ok(Exit::Success);
        }
        style::fields(&fields(&record));
        anstream::println!();
        let row = |file: &DraftFileRecord| {
            [plain(&file.path, 240), bytes(file.bytes), moment(&file.updated_at), plain(&file.sha256, 64)]
        };
        style::table(["PATH", "SIZE", "CHANGED", "SHA256"], &files.iter().map(row).collect::<Vec<_>>());
        Ok(Exit::Success)
    }

    /// A file as the draft has it now.
    async fn look(&self, path: &str) -> Result<DraftFileRecord, ClientError> {
        let files = self.files().await?.files;
        files.into_iter().find(|file| file.path == path).ok_or_else(|| {
            let (path, name) = (plain(path, 240), &self.name);
            let message = format!("the draft has no file {path:?}; `ade config draft show {name}` lists its files");
            ClientError::new(Blame::Request, "file_not_found", message)
        })
    }

    async fn get(&self, path: &str, file: &Path) -> Result<Exit, ClientError> {
        if file.exists() {
            let message = format!("there is a file {} already; choose another name", file.display());
            return Err(ClientError::new(Blame::Request, "file_exists", message));
        }
        let request = self.file(Method::GET, path)?;
        let found = self.look(path).await?;
        self.remote.save(request, file, Some(&found.sha256)).await?;
        if self.remote.output.json {
            let mut said = json!(found);
            said["file"] = json!(file);
            println!("{said}");
        } else {
            let (path, size) = (plain(path, 240), bytes(found.bytes));
            anstream::println!("{path} is in {} ({size}), sha256 {}", file.display(), plain(&found.sha256, 64));
        }
        Ok(Exit::Success)
    }

    async fn put(&self, path: &str, content: Vec<u8>, expect: Expect) -> Result<DraftEdit, ClientError> {
        let request = self.file(Method::PUT, path)?.header("Content-Type", "application/octet-stream").body(content);
        self.write(path, expect.on(request)).await
    }

    /// Sends a change of a file. When the file is not what was expected, the message says what to do.
    async fn write(&self, path: &str, request: RequestBuilder) -> Result<DraftEdit, ClientError> {
        self.remote.client.json(request).await.map_err(|mut error: ClientError| {
            if error.kind == "precondition_failed" {
                let (name, path) = (&self.name, plain(path, 240));
                let there = error.problem.as_ref().and_then(|problem| problem.extensions.get("sha256")?.as_str());
                error.message = match there {
                    Some(sha256) => format!(
                        "{path} is not what was expected, and was left as it is: somebody else may have changed it. It has the \
                         sha256 {sha} now: fetch it with `ade config draft get {name} {path} FILE`, bring both together, and \
                         write it with --expect {sha}",
                        sha = plain(sha256, 64)
                    ),
                    None => format!(
                        "there is no {path} in the draft any more, and nothing was written; `ade config draft show {name}` lists \
                         what there is, and put without --expect writes it as a new file"
                    ),
                };
            }
            error
        })
    }

    fn changed(&self, path: &str, edit: &DraftEdit) -> Exit {
        if self.remote.output.json {
            println!("{}", json!(edit));
            return Exit::Success;
        }
        let (path, name, revision) = (plain(path, 240), &self.name, edit.revision);
        match &edit.file {
            None => anstream::println!("{path} was removed; {name} is at revision {revision}"),
            Some(file) => {
                let sha256 = plain(&file.sha256, 64);
                anstream::println!("{path} is written, sha256 {sha256}; {name} is at revision {revision}");
            }
        }
        Exit::Success
    }

    async fn edit(&self, path: &str) -> Result<Exit, ClientError> {
        let request = self.file(Method::GET, path)?;
        let found = self.look(path).await?;
        let folder = tempfile::Builder::new().prefix("ade-").tempdir();
        let folder = folder.map_err(|error| ClientError::unwritable(&std::env::temp_dir(), error))?;
        // The name that it has, for what an editor makes of it.
        let here = folder.path().join(Path::new(path).file_name().unwrap_or_default());
        self.remote.save(request, &here, Some(&found.sha256)).await?;
        let editor = editor();
        let shown = editor.to_string_lossy().into_owned();
        let mut command = tokio::process::Command::new("sh");
        // As others call editors: the variable may hold arguments.
        command.arg("-c").arg([editor, " \"$1\"".into()].join(&OsString::new())).arg("sh").arg(&here);
        if self.remote.output.json {
            // What the editor prints is no JSON.
            command.stdout(std::process::Stdio::null());
        }
        let ended = command.status().await.map_err(|error| broke(&error))?;
        let written = read(&here).await;
        let kept = |why: ClientError| {
            let place = folder.keep().join(here.file_name().unwrap_or_default());
            ClientError { message: format!("{}. What you have written is in {}", why.message, place.display()), ..why }
        };
        let same = |content: &Vec<u8>| format!("{:x}", Sha256::digest(content)) == found.sha256;
        let unchanged = written.as_ref().is_ok_and(same);
        if !ended.success() {
            let message = format!("the editor `{}` ended with {ended}, and nothing was written", plain(&shown, 80));
            let failed = ClientError::new(Blame::Environment, "editor_failed", message);
            return Err(if unchanged { failed } else { kept(failed) });
        }
        let content = match written {
            Ok(content) => content,
            Err(error) => return Err(kept(error)),
        };
        if unchanged {
            self.remote.note("nothing was changed");
            let edit = DraftEdit { revision: self.record.revision, file: Some(found) };
            return Ok(if self.remote.output.json { self.changed(path, &edit) } else { Exit::Success });
        }
        match self.put(path, content, Expect::Hash(found.sha256)).await {
            Ok(edit) => Ok(self.changed(path, &edit)),
            Err(error) => Err(kept(error)),
        }
    }

    async fn validate(&self) -> Result<Exit, ClientError> {
        let request = self.remote.client.patient(Method::POST, &self.below(&["validate"]));
        let record: ValidationRecord = self.remote.client.json(request).await?;
        if self.remote.output.json {
            println!("{}", json!(record));
        } else {
            style::diagnostics(&record.diagnostics);
            style::verdict(record.valid, &self.name, record.errors, record.warnings, record.dry_run);
            if let Some(revision) = record.revision.filter(|_| record.valid) {
                let name = &self.name;
                self.remote.note(&format!("`ade config draft publish {name} --revision {revision}` publishes this"));
            }
        }
        Ok(if record.valid { Exit::Success } else { Exit::BadRequest })
    }

    async fn publish(&self, revision: Option<i64>) -> Result<Exit, ClientError> {
        let asked = PublishDraft { expected_revision: revision };
        let request = self.remote.client.patient(Method::POST, &self.below(&["publish"])).json(&asked);
        let response = self.remote.client.send(request).await.map_err(|mut error| {
            let now = error.problem.as_ref().and_then(|problem| problem.extensions.get("revision")?.as_i64());
            if let Some(now) = now.filter(|_| error.kind == "draft_changed") {
                let name = &self.name;
                error.message = format!(
                    "the draft is at revision {now} now, and nothing was published: somebody changed it meanwhile. Look at it with \
                     `ade config draft show {name}` and `ade config draft validate {name}`, and publish it with --revision {now}"
                );
            }
            error
        })?;
        let new = response.status() == StatusCode::CREATED;
        let version: VersionRecord = self.remote.client.read(response).await?;
        let mut config = submit::config(self.remote, self.config().as_str()).await?;
        config.latest_version = Some(version);
        Ok(package::told(self.remote, &config, if new { "new_version" } else { "unchanged" }))
    }

    async fn export(&self, file: &Path) -> Result<Exit, ClientError> {
        if file.exists() {
            let message = format!("there is a file {} already; choose another name", file.display());
            return Err(ClientError::new(Blame::Request, "file_exists", message));
        }
        let request = self.remote.client.get(&self.below(&["download"]));
        let size = self.remote.save(request, file, None).await?;
        if self.remote.output.json {
            println!("{}", json!({"file": file, "bytes": size, "draft": self.record}));
        } else {
            anstream::println!("{} is in {} ({})", self.name, file.display(), bytes(size));
        }
        Ok(Exit::Success)
    }

    async fn delete(&self) -> Result<Exit, ClientError> {
        self.remote.client.send(self.remote.client.request(Method::DELETE, &self.below(&[]))).await?;
        if self.remote.output.json {
            println!("{}", json!({"draft_id": self.record.draft_id, "deleted": true}));
        } else {
            anstream::println!("deleted  {}", self.name);
        }
        Ok(Exit::Success)
    }
}

/// What the caller edits texts with.
fn editor() -> OsString {
    let named = ["VISUAL", "EDITOR"].into_iter().filter_map(std::env::var_os).find(|editor| !editor.is_empty());
    named.unwrap_or_else(|| "vi".into())
}
