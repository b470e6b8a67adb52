//! API keys: of admins, and of one workspace.

use crate::api::app::{App, Caller};
use crate::api::page::{Page, PageQuery, page};
use crate::api::problem::{Code, Problem};
use crate::api::{Body, Path, Query, extract};
use crate::auth;
use crate::events::at;
use crate::ids::{KeyId, WorkspaceId};
use crate::store::{Key, NewKey, Role, now_ms};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const MAX_DAYS: i64 = 36_500;

/// The routes of admins' keys.
pub fn admins() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_admin, list_admin)).routes(routes!(revoke_admin))
}

/// The routes of a workspace's keys.
pub fn of_workspace() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(revoke))
}

/// An API key, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyRecord {
    /// Its id.
    pub key_id: KeyId,
    /// Its beginning, after `ade_`.
    pub prefix: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its workspace; none for an admin's.
    pub workspace_id: Option<WorkspaceId>,
    /// Who made it.
    pub created_by: Option<KeyId>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When it stops working, RFC 3339.
    pub expires_at: Option<String>,
    /// When it was revoked, RFC 3339.
    pub revoked_at: Option<String>,
    /// When it was last used, RFC 3339; exact to a minute.
    pub last_used_at: Option<String>,
    /// The key itself; only in the answer that made it, and never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl From<Key> for KeyRecord {
    fn from(key: Key) -> Self {
        Self {
            key_id: key.id,
            prefix: key.prefix,
            name: key.name,
            role: key.role,
            workspace_id: key.workspace_id,
            created_by: key.created_by,
            created_at: at(key.created_at),
            expires_at: key.expires_at.map(at),
            revoked_at: key.revoked_at.map(at),
            last_used_at: key.last_used_at.map(at),
            key: None,
        }
    }
}

/// A new key of a workspace.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// What it is for.
    #[schema(min_length = 1, max_length = 255)]
    pub name: String,
    /// `viewer`, `editor` or `owner`.
    pub role: Role,
    /// Days until it stops working; without it, it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 36_500)]
    pub expires_in_days: Option<i64>,
}

/// A new key of an admin.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAdminKey {
    /// What it is for.
    #[schema(min_length = 1, max_length = 255)]
    pub name: String,
    /// Days until it stops working; without it, it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 36_500)]
    pub expires_in_days: Option<i64>,
}

async fn make(
    app: &App,
    caller: &Caller,
    workspace: Option<WorkspaceId>,
    role: Role,
    name: String,
    days: Option<i64>,
) -> Result<(StatusCode, Json<KeyRecord>), Problem> {
    let invalid = |pointer: &str, text: &str| {
        Problem::new(Code::InvalidBody).detail(format!("{pointer}: {text}")).field(pointer, text)
    };
    if name.trim().is_empty() || name.chars().count() > 255 {
        return Err(invalid("/name", "must have 1 to 255 characters"));
    }
    extract::storable("/name", &name)?;
    super::workspaces::within("/expires_in_days", days, 1..=MAX_DAYS)?;
    let secret = auth::generate().map_err(|error| {
        tracing::error!(%error, "the system gives no random bytes");
        Problem::new(Code::Internal)
    })?;
    let new = NewKey {
        prefix: secret.prefix,
        secret_sha256: secret.sha256,
        workspace_id: workspace,
        role,
        name,
        expires_at: days.map(|days| now_ms() + days * 24 * 60 * 60 * 1000),
    };
    let key = app.store.create_key(new, Some(&caller.actor())).await?;
    tracing::info!(key = key.prefix, role = %role, by = caller.key.prefix, "key made");
    Ok((StatusCode::CREATED, Json(KeyRecord { key: Some(secret.key), ..key.into() })))
}

async fn take_back(app: &App, key: Option<Key>, caller: &Caller) -> Result<Json<KeyRecord>, Problem> {
    let key = key.ok_or_else(|| Problem::new(Code::KeyNotFound).detail("there is no such key here"))?;
    let revoked = app.store.revoke_key(&key.id, &caller.actor()).await?.ok_or(Code::KeyNotFound)?;
    app.key_changed(&revoked);
    tracing::info!(key = revoked.prefix, by = caller.key.prefix, "key revoked");
    Ok(Json(revoked.into()))
}

/// Makes a key of this workspace. For its owners. The key itself is in this answer only.
#[utoipa::path(
    post, path = "/keys", tag = "keys", request_body = CreateKey,
    params(("workspace" = String, Path, description = "Id or slug of the workspace")),
    responses((status = 201, description = "The key, once", body = KeyRecord))
)]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    Body(request): Body<CreateKey>,
) -> Result<(StatusCode, Json<KeyRecord>), Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Owner).await?;
    if request.role == Role::Admin {
        let text = "a key of a workspace is of role viewer, editor or owner; admins' keys are made at /api/v1/keys";
        return Err(Problem::new(Code::InvalidBody).detail(format!("/role: {text}")).field("/role", text));
    }
    make(&app, &caller, Some(workspace.id.clone()), request.role, request.name, request.expires_in_days).await
}

/// Lists the keys of this workspace, newest first. For its owners.
#[utoipa::path(
    get, path = "/keys", tag = "keys",
    params(("workspace" = String, Path, description = "Id or slug of the workspace"), PageQuery),
    responses((status = 200, description = "A page", body = Page<KeyRecord>))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<KeyRecord>>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Owner).await?;
    let (limit, before) = query.read()?;
    let rows = app.store.keys(Some(&workspace.id), before.as_deref(), limit + 1).await?;
    Ok(Json(page(rows, limit, |row| (row.created_at, row.id.to_string()), KeyRecord::from)))
}

/// Revokes a key of this workspace. For its owners. Asking again changes nothing.
#[utoipa::path(
    delete, path = "/keys/{key_id}", tag = "keys",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("key_id" = KeyId, Path, description = "The key"),
    ),
    responses((status = 200, description = "Revoked", body = KeyRecord))
)]
async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, KeyId)>,
) -> Result<Json<KeyRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Owner).await?;
    let key = app.store.key(&id).await?.filter(|key| key.workspace_id.as_ref() == Some(&workspace.id));
    take_back(&app, key, &caller).await
}

/// Makes an admin's key. For admins. The key itself is in this answer only.
#[utoipa::path(
    post, path = "/keys", tag = "keys", request_body = CreateAdminKey,
    responses((status = 201, description = "The key, once", body = KeyRecord))
)]
async fn create_admin(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<CreateAdminKey>,
) -> Result<(StatusCode, Json<KeyRecord>), Problem> {
    caller.must_be(Role::Admin)?;
    make(&app, &caller, None, Role::Admin, request.name, request.expires_in_days).await
}

/// Lists admins' keys, newest first. For admins.
#[utoipa::path(
    get, path = "/keys", tag = "keys", params(PageQuery),
    responses((status = 200, description = "A page", body = Page<KeyRecord>))
)]
async fn list_admin(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<KeyRecord>>, Problem> {
    caller.must_be(Role::Admin)?;
    let (limit, before) = query.read()?;
    let rows = app.store.keys(None, before.as_deref(), limit + 1).await?;
    Ok(Json(page(rows, limit, |row| (row.created_at, row.id.to_string()), KeyRecord::from)))
}

/// Revokes any key. For admins. Asking again changes nothing.
#[utoipa::path(
    delete, path = "/keys/{key_id}", tag = "keys",
    params(("key_id" = KeyId, Path, description = "The key")),
    responses((status = 200, description = "Revoked", body = KeyRecord))
)]
async fn revoke_admin(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<KeyId>,
) -> Result<Json<KeyRecord>, Problem> {
    caller.must_be(Role::Admin)?;
    let key = app.store.key(&id).await?;
    take_back(&app, key, &caller).await
}
