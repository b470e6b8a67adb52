//! Documents: upload, list, look, download, delete.

use super::download;
use crate::api::app::{App, Caller, storage_ready};
use crate::api::page::{Page, PageQuery, page};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::{Path, Query, extract, names};
use crate::blob::Key;
use crate::events::at;
use crate::ids::{DocumentId, WorkspaceId};
use crate::store::{Document, Role, now_ms};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::io;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(upload, list)).routes(routes!(get, delete)).routes(routes!(content))
}

/// A document.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DocumentRecord {
    /// Its id.
    pub document_id: DocumentId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// Its file name.
    pub filename: String,
    /// The content type that the upload named.
    pub content_type: String,
    /// Its size.
    pub bytes: u64,
    /// Its hash, lower-case hex.
    pub sha256: String,
    /// When it was uploaded, RFC 3339.
    pub created_at: String,
    /// Path of its content.
    pub content_uri: String,
}

impl From<Document> for DocumentRecord {
    fn from(document: Document) -> Self {
        Self {
            content_uri: format!("/api/v1/workspaces/{}/documents/{}/download", document.workspace_id, document.id),
            document_id: document.id,
            workspace_id: document.workspace_id,
            filename: document.filename,
            content_type: document.content_type,
            bytes: u64::try_from(document.bytes).unwrap_or_default(),
            sha256: document.sha256,
            created_at: at(document.created_at),
        }
    }
}

/// About an upload.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct UploadQuery {
    /// File name of a raw body; a multipart part has its own.
    filename: Option<String>,
    /// Hash that the content must have, lower-case hex.
    sha256: Option<String>,
}

/// A form with one file.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct UploadForm {
    /// The file.
    #[schema(value_type = String, format = Binary)]
    file: String,
}

/// Uploads a document.
///
/// Either a raw body with `?filename=`, or a form with one part `file`. The content is streamed; with `?sha256=` or a
/// `Content-Digest` header it is checked, and nothing is kept when it does not match.
#[utoipa::path(
    post, path = "/documents", tag = "documents",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        UploadQuery,
        ("Content-Digest" = Option<String>, Header, description = "`sha-256=:BASE64:` (RFC 9530)"),
    ),
    request_body(content(
        (Vec<u8> = "application/octet-stream"),
        (UploadForm = "multipart/form-data"),
    )),
    responses(
        (status = 201, description = "Stored", body = DocumentRecord, headers(("Location" = String))),
    )
)]
async fn upload(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    storage_ready(&app)?;
    let max = app.options.max_document_bytes;
    let headers = request.headers();
    let digest = wanted_digest(headers, query.sha256.as_deref())?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    // A form is a little larger than its file.
    if announced.is_some_and(|length| length > max.saturating_add(64 * 1024)) {
        return Err(extract::too_large(max));
    }
    let draft = Draft { app: &app, workspace: workspace.id.clone(), caller: &caller, digest, max };
    let document = if content_type.to_ascii_lowercase().starts_with("multipart/form-data") {
        let mut form = extract::Form::open(request).await.map_err(|error| not_a_form(&error))?;
        let mut document = None;
        while let Some(field) = form.next(max).await.map_err(|error| form_broke(&error, max))? {
            if field.name() != Some("file") || document.is_some() {
                let name = crate::text::plain(field.name().unwrap_or("(no name)"), 80);
                return Err(draft
                    .undo(
                        document,
                        Problem::new(Code::InvalidBody)
                            .detail(format!("the form has a part {name}; it must have exactly one part, named file")),
                    )
                    .await);
            }
            let name = field.file_name().or(query.filename.as_deref()).unwrap_or("").to_owned();
            let content_type = field.content_type().unwrap_or("").to_owned();
            let bytes = field.map_err(io::Error::other);
            document = Some(draft.store(&name, &content_type, bytes).await?);
        }
        document.ok_or_else(|| Problem::new(Code::InvalidBody).detail("the form has no part named file"))?
    } else {
        let name = query.filename.clone().ok_or_else(|| {
            Problem::new(Code::InvalidParameter)
                .detail("name the file: ?filename=roster.xlsx")
                .field("filename", "is required with a raw body")
        })?;
        let bytes = request.into_body().into_data_stream().map_err(io::Error::other);
        draft.store(&name, &content_type, bytes).await?
    };
    tracing::info!(document = %document.id, workspace = %workspace.id, bytes = document.bytes, "document stored");
    let record = DocumentRecord::from(document);
    let location = format!("/api/v1/workspaces/{}/documents/{}", record.workspace_id, record.document_id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(record)).into_response())
}

fn not_a_form(error: &axum::extract::multipart::MultipartRejection) -> Problem {
    Problem::new(Code::InvalidBody).detail(crate::text::plain(&error.to_string(), 300))
}

fn form_broke(error: &axum::extract::multipart::MultipartError, max: u64) -> Problem {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return extract::too_large(max);
    }
    match extract::body_problem(error, max) {
        problem if problem.code() == Code::BadRequest => Problem::new(Code::InvalidBody)
            .detail(format!("the form is badly written: {}", crate::text::plain(&error.body_text(), 300))),
        problem => problem,
    }
}

/// A document that is being stored.
struct Draft<'a> {
    app: &'a App,
    workspace: WorkspaceId,
    caller: &'a Caller,
    digest: Option<String>,
    max: u64,
}

impl Draft<'_> {
    async fn store<S>(&self, name: &str, content_type: &str, bytes: S) -> Result<Document, Problem>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let mut document = Document {
            id: DocumentId::generate(),
            workspace_id: self.workspace.clone(),
            filename: names::file_name(name)?,
            content_type: crate::text::plain(content_type, 255),
            bytes: 0,
            sha256: String::new(),
            created_by: Some(self.caller.key.id.clone()),
            created_at: now_ms(),
        };
        // The record first: what a crash leaves of the content is then known, and swept.
        self.app.store.begin_document(&document).await?;
        let key = Key::document(&document.workspace_id, &document.id);
        let stored = self.app.blobs.put_stream(&key, Box::pin(bytes), self.max).await;
        let checked = match stored {
            Ok(stored) => match &self.digest {
                Some(wanted) if wanted != stored.sha256.as_str() => Err(Problem::new(Code::HashMismatch)
                    .detail(format!(
                        "the content has the sha256 {}, announced was {wanted}; send it again",
                        stored.sha256
                    ))
                    .with("sha256", stored.sha256.as_str())),
                _ => Ok(stored),
            },
            Err(error) => Err(error.into()),
        };
        match checked {
            Ok(stored) => {
                document.bytes = i64::try_from(stored.bytes).unwrap_or(i64::MAX);
                stored.sha256.as_str().clone_into(&mut document.sha256);
                self.app.store.complete_document(&document, &self.caller.actor()).await?;
                Ok(document)
            }
            Err(problem) => {
                self.app.store.abort_document(&document.id).await?;
                self.discard(&document).await;
                Err(problem)
            }
        }
    }

    /// Takes back what an earlier part of the same form has stored.
    async fn undo(&self, document: Option<Document>, problem: Problem) -> Problem {
        if let Some(document) = document {
            let by = self.caller.actor();
            if let Err(error) = self.app.store.delete_document(&document.workspace_id, &document.id, Some(&by)).await {
                return error.into();
            }
            self.discard(&document).await;
        }
        problem
    }

    /// Removes content that nobody is to have, now rather than with the next sweep, which comes for what cannot be removed here.
    async fn discard(&self, document: &Document) {
        if let Err(error) = self.app.blobs.delete(&Key::document(&document.workspace_id, &document.id)).await {
            tracing::debug!(document = %document.id, %error, "the content of a refused upload is left to the sweep");
        }
    }
}

/// The hash that the caller announced, lower-case hex.
fn wanted_digest(headers: &HeaderMap, query: Option<&str>) -> Result<Option<String>, Problem> {
    let wrong = |name: &str, text: &str| {
        Problem::new(Code::InvalidParameter).detail(format!("{name}: {text}")).field(name, text)
    };
    let from_header = match headers.get("content-digest").map(|value| value.to_str().unwrap_or("")) {
        None => None,
        // A dictionary of digests; those of other algorithms are for others to check (RFC 9530, 2).
        Some(text) => match text.split(',').find_map(|entry| entry.trim().strip_prefix("sha-256=")) {
            None => None,
            Some(value) => {
                let encoded = value.strip_prefix(':').and_then(|value| value.strip_suffix(':'));
                let bytes = encoded.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
                let bytes = bytes.filter(|bytes| bytes.len() == 32);
                let bytes = bytes.ok_or_else(|| wrong("Content-Digest", "must be sha-256=:BASE64: of 32 bytes"))?;
                Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
            }
        },
    };
    let from_query = match query {
        None => None,
        Some(text) if text.parse::<crate::blob::Digest>().is_ok() => Some(text.to_owned()),
        Some(_) => return Err(wrong("sha256", "must have 64 hexadecimal digits, in lower case")),
    };
    if let (Some(header), Some(query)) = (&from_header, &from_query)
        && header != query
    {
        return Err(wrong("sha256", "differs from Content-Digest"));
    }
    Ok(from_query.or(from_header))
}

/// Lists documents, newest first.
#[utoipa::path(
    get, path = "/documents", tag = "documents",
    params(("workspace" = String, Path, description = "Id or slug of the workspace"), PageQuery),
    responses((status = 200, description = "A page", body = Page<DocumentRecord>))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<DocumentRecord>>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let (limit, before) = query.read()?;
    let rows = app.store.documents(&workspace.id, before.as_deref(), limit + 1).await?;
    Ok(Json(page(rows, limit, |row| (row.created_at, row.id.to_string()), DocumentRecord::from)))
}

async fn find(app: &App, workspace: &WorkspaceId, id: &DocumentId) -> Result<Document, Problem> {
    let unknown =
        || Problem::new(Code::DocumentNotFound).detail(format!("there is no document {id} in this workspace"));
    app.store.document(workspace, id).await?.ok_or_else(unknown)
}

/// A document's record.
#[utoipa::path(
    get, path = "/documents/{document_id}", tag = "documents",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("document_id" = DocumentId, Path, description = "The document"),
    ),
    responses((status = 200, description = "The record", body = DocumentRecord))
)]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, DocumentId)>,
) -> Result<Json<DocumentRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    Ok(Json(find(&app, &workspace.id, &id).await?.into()))
}

/// A document's content; ranges are honoured.
#[utoipa::path(
    get, path = "/documents/{document_id}/download", tag = "documents",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("document_id" = DocumentId, Path, description = "The document"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
    ),
    responses(
        (status = 200, description = "The content", content_type = "application/octet-stream"),
        (status = 206, description = "A part of it", content_type = "application/octet-stream"),
        (status = 304, description = "It is what If-None-Match names"),
        (status = 416, description = "The range is outside of the file", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn content(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, DocumentId)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let document = find(&app, &workspace.id, &id).await?;
    let key = Key::document(&workspace.id, &id);
    // Not the type that the upload named: what a stranger uploaded must not be shown as a page of this server.
    download::respond(&app, &key, &document.sha256, "application/octet-stream", Some(&document.filename), &headers)
        .await
}

/// Deletes a document that no unfinished job needs.
#[utoipa::path(
    delete, path = "/documents/{document_id}", tag = "documents",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("document_id" = DocumentId, Path, description = "The document"),
    ),
    responses(
        (status = 204, description = "Deleted"),
        (status = 409, description = "A job that has not ended needs it", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, DocumentId)>,
) -> Result<StatusCode, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    match app.store.delete_document(&workspace.id, &id, Some(&caller.actor())).await? {
        Some(true) => {
            app.documents.remove(&(workspace.id.clone(), id));
            Ok(StatusCode::NO_CONTENT)
        }
        Some(false) => Err(Problem::new(Code::DocumentInUse)
            .detail(format!("a job that has not ended needs {id}; wait for it or cancel it"))),
        None => {
            Err(Problem::new(Code::DocumentNotFound).detail(format!("there is no document {id} in this workspace")))
        }
    }
}
