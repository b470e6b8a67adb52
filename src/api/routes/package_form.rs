//! Packages in forms: one zip, and a few texts beside it. The zip goes to a file as it comes: who sends slowly holds no memory.
//! Opened, a package is in memory, and [`Room`](crate::api::room::Room) says how many are.

use crate::api::app::App;
use crate::api::extract;
use crate::api::problem::{Code, Problem};
use crate::api::room::Held;
use crate::blob::{Digest, Key};
use crate::ids::WorkspaceId;
use crate::job;
use crate::packages::{Manifest, Package, PackageCaps};
use crate::sandbox::{Caps, Failure, FailureKind};
use crate::store::NewVersion;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::multipart::{Field, MultipartError};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use bytes::{Bytes, BytesMut};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Seek;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;
use utoipa::ToSchema;

/// Bytes of a text part.
const MAX_TEXT: usize = 64 * 1024;
/// Bytes of an answer that are read at a time.
const CHUNK: usize = 64 * 1024;
const PACKAGE: &str = "package";

/// A form with nothing but a package.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct PackageForm {
    /// The package: a zip with manifest.json at its root.
    #[schema(value_type = String, format = Binary)]
    package: String,
}

/// What a form had.
pub(super) struct Form {
    pub package: Upload,
    texts: BTreeMap<&'static str, String>,
}

impl Form {
    /// Reads a form with a part `package` and some of these texts, each with its most characters.
    ///
    /// # Errors
    /// `unsupported_media_type`, `invalid_body` and `unknown_field` with the part, `payload_too_large`.
    pub(super) async fn read(app: &App, request: Request, known: &[(&'static str, usize)]) -> Result<Self, Problem> {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).chain([PACKAGE]).collect();
        let names = names.join(", ");
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with("multipart/form-data")) {
            return Err(Problem::new(Code::UnsupportedMediaType)
                .detail(format!("send a form (multipart/form-data) with the parts {names}")));
        }
        let max = usize::try_from(PackageCaps::default().zip_bytes).unwrap_or(usize::MAX);
        let mut form = extract::Form::open(request)
            .await
            .map_err(|error| Problem::new(Code::InvalidBody).detail(crate::text::plain(&error.to_string(), 300)))?;
        let (mut texts, mut package) = (BTreeMap::new(), None);
        while let Some(field) = form.next(max as u64).await.map_err(|error| broke(&error, max))? {
            let name = field.name().unwrap_or("").to_owned();
            if texts.contains_key(&*name) || (name == PACKAGE && package.is_some()) {
                return Err(Problem::new(Code::InvalidBody)
                    .detail(format!("the form has two parts named {name}"))
                    .field(format!("/{name}"), "is there twice"));
            }
            if name == PACKAGE {
                package = Some(Upload::take(app, field, max).await?);
            } else if let Some((name, max)) = known.iter().find(|(known, _)| *known == name) {
                texts.insert(*name, text(field, name, *max).await?);
            } else {
                let other = crate::text::plain(&name, 80);
                return Err(Problem::new(Code::UnknownField)
                    .detail(format!("the form has an unknown part {other:?}; known are {names}"))
                    .field(format!("/{other}"), "is not known"));
            }
        }
        Ok(Self { package: package.ok_or_else(|| missing(PACKAGE))?, texts })
    }

    /// Takes a text, if the form had it.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.texts.remove(name)
    }

    /// Takes a text that the form must have.
    ///
    /// # Errors
    /// `invalid_body`.
    pub(super) fn require(&mut self, name: &str) -> Result<String, Problem> {
        self.take(name).ok_or_else(|| missing(name))
    }
}

/// A zip that somebody sent, in a file that goes with this.
pub(super) struct Upload {
    file: NamedTempFile,
    bytes: u64,
}

impl Upload {
    async fn take(app: &App, mut field: Field<'_>, max: usize) -> Result<Self, Problem> {
        let failed = |error: std::io::Error| unwritable(&error);
        let file = NamedTempFile::new_in(&app.options.scratch).map_err(failed)?;
        let mut out = tokio::fs::File::from_std(file.as_file().try_clone().map_err(failed)?);
        let mut bytes = 0;
        while let Some(chunk) = field.chunk().await.map_err(|error| broke(&error, max))? {
            bytes += chunk.len();
            if bytes > max {
                return Err(extract::too_large(max as u64));
            }
            out.write_all(&chunk).await.map_err(failed)?;
        }
        out.flush().await.map_err(failed)?;
        Ok(Self { file, bytes: bytes as u64 })
    }
}

/// What is done with a package that is held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is looked at.
    Look,
    /// It is stored as well: its canonical zip is held beside it.
    Store,
}

impl Purpose {
    /// Memory for a package of so many bytes, unpacked.
    pub(super) fn memory(self, bytes: u64) -> u64 {
        let caps = PackageCaps::default();
        match self {
            Self::Look => bytes,
            Self::Store => bytes.saturating_mul(2).saturating_add(caps.zip_bytes - caps.unpacked_bytes),
        }
    }
}

/// A package in memory, and the memory that was taken for it.
pub(super) struct Opened {
    pub package: Package,
    pub held: Held,
}

fn missing(name: &str) -> Problem {
    Problem::new(Code::InvalidBody)
        .detail(format!("the form has no part named {name}"))
        .field(format!("/{name}"), "is required")
}

async fn text(field: Field<'_>, name: &str, max: usize) -> Result<String, Problem> {
    let pointer = format!("/{name}");
    let bytes = bytes(field, MAX_TEXT).await?;
    let wrong =
        |text: &str| Problem::new(Code::InvalidBody).detail(format!("{pointer}: {text}")).field(pointer.clone(), text);
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not valid UTF-8"))?;
    extract::within_characters(&pointer, text, max)?;
    Ok(text.to_owned())
}

async fn bytes(mut field: Field<'_>, max: usize) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broke(&error, max))? {
        if bytes.len() + chunk.len() > max {
            return Err(extract::too_large(max as u64));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn broke(error: &MultipartError, max: usize) -> Problem {
    match extract::body_problem(error, max as u64) {
        problem if problem.code() == Code::BadRequest => Problem::new(Code::InvalidBody)
            .detail(format!("the form is badly written: {}", crate::text::plain(&error.body_text(), 300))),
        problem => problem,
    }
}

/// Runs what reads or writes whole packages where it holds nobody up.
///
/// # Errors
/// `internal` when it broke down.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "work on a package broke down");
        Code::Internal.into()
    })
}

/// Opens a zip that somebody sent, as soon as there is memory for it.
///
/// # Errors
/// `packages_busy`. The inner one says why it is no package; its message names no path of this machine.
pub(super) async fn open(
    app: &App,
    workspace: &WorkspaceId,
    upload: Upload,
    purpose: Purpose,
) -> Result<Result<Opened, Failure>, Problem> {
    let caps = PackageCaps::default();
    // As much as it may come to; what it really is shows when it is there.
    let most = upload.bytes.saturating_mul(caps.ratio).max(PackageCaps::RATIO_FLOOR).min(caps.unpacked_bytes);
    let mut held = app.room.take(workspace, purpose.memory(most)).await?;
    let opened = apart(move || {
        let here = upload.file.path().display().to_string();
        job::open_package(upload.file.path())
            .map_err(|failure| Failure { message: failure.message.replace(&here, PACKAGE), ..failure })
    });
    Ok(opened.await?.map(|package| {
        held.shrink(purpose.memory(package.unpacked_bytes()));
        Opened { package, held }
    }))
}

/// An answer of what `write` writes, which is held in a file and not in memory: however slowly it is fetched, it costs nothing.
///
/// # Errors
/// `storage_unavailable` when the file cannot be written.
pub(super) async fn from_file(
    app: &App,
    write: impl FnOnce(&mut File) -> std::io::Result<()> + Send + 'static,
) -> Result<(HeaderValue, Body), Problem> {
    let scratch = app.options.scratch.clone();
    let written = apart(move || {
        let mut file = tempfile::tempfile_in(scratch)?;
        write(&mut file)?;
        let bytes = file.stream_position()?;
        file.rewind()?;
        Ok((bytes, file))
    });
    let (bytes, file) = written.await?.map_err(|error| unwritable(&error))?;
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK);
    Ok((HeaderValue::from(bytes), Body::from_stream(stream)))
}

fn unwritable(error: &std::io::Error) -> Problem {
    tracing::error!(%error, "a package cannot be put aside");
    Problem::new(Code::StorageUnavailable)
}

/// The refusal of what is no package.
pub(super) fn no_package(failure: &Failure) -> Problem {
    let too_large = failure.kind == FailureKind::PackageTooLarge;
    let code = failure.detail.as_ref().and_then(|detail| detail.get("code")).cloned().unwrap_or(Value::Null);
    Problem::new(if too_large { Code::PackageTooLarge } else { Code::PackageInvalid })
        .detail(failure.message.clone())
        .field("/package", failure.message.clone())
        .with("package_error", code)
}

/// A package that may be published, and is stored.
pub(super) struct Ready {
    pub version: NewVersion,
    pub manifest: Manifest,
}

/// Checks a package and stores its canonical zip.
///
/// # Errors
/// `package_invalid` with all diagnostics, or the storage's.
pub(super) async fn ready(app: &App, workspace: &WorkspaceId, opened: Opened) -> Result<Ready, Problem> {
    let caps = app.options.caps.clone();
    let Opened { package, held } = opened;
    let (ready, zip) = apart(move || checked(&package, &caps)).await??;
    let digest = ready.version.package_sha256.parse::<Digest>().map_err(|_| Problem::new(Code::Internal))?;
    // By its hash: whoever stores the same content writes the same bytes.
    app.blobs.put_bytes(&Key::package(workspace, &digest), zip).await?;
    drop(held);
    Ok(ready)
}

fn checked(package: &Package, caps: &Caps) -> Result<(Ready, Bytes), Problem> {
    let manifest = job::manifest_of(package, caps).map_err(|refusal| {
        Problem::new(Code::PackageInvalid)
            .detail(refusal.failure.message.clone())
            .field("/package", refusal.failure.message)
            .with("diagnostics", refusal.diagnostics)
    })?;
    let zip = package.canonical_zip().map_err(|error| unwritable(&error))?;
    let version = NewVersion {
        package_sha256: package.package_sha256().to_owned(),
        manifest_sha256: package.manifest_sha256().unwrap_or_default(),
        manifest_version: manifest.info.version.clone(),
        package_bytes: i64::try_from(zip.len()).unwrap_or(i64::MAX),
    };
    Ok((Ready { version, manifest }, zip.into()))
}
