//! Whether the process lives, whether it can work, and what it has counted. `/metrics` is for admins, since it names workspaces.

use crate::api::app::{App, Caller};
use crate::api::problem::Problem;
use crate::store::Role;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).routes(routes!(metrics))
}

/// Whether the process lives.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Live {
    /// `ok`.
    pub status: String,
}

/// Whether the process can work.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// `ready` or `not_ready`.
    pub status: String,
    /// Every part: `ok`, or why it is not.
    pub parts: BTreeMap<String, String>,
}

/// Answers as long as the process lives.
#[utoipa::path(get, path = "/livez", tag = "health", security(()), responses((status = 200, description = "It lives", body = Live)))]
async fn live() -> Json<Live> {
    Json(Live { status: "ok".into() })
}

/// Whether jobs can be taken and run here, with reasons.
#[utoipa::path(
    get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, description = "It can work", body = Ready), (status = 503, description = "It cannot", body = Ready))
)]
async fn ready(State(app): State<App>) -> Response {
    let report = app.health.report();
    let ready = report.iter().all(|(_, state)| state.is_ok());
    let parts = report
        .into_iter()
        .map(|(part, state)| (part.as_str().to_owned(), state.err().unwrap_or_else(|| "ok".into())))
        .collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { status: if ready { "ready" } else { "not_ready" }.into(), parts })).into_response()
}

/// What was counted, as OpenMetrics. For admins.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"))
)]
async fn metrics(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    caller.must_be(Role::Admin)?;
    Ok(app.metrics.clone().into_response())
}
