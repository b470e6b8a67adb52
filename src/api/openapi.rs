//! All routes in one router, and the document that describes them.

use super::app::App;
use super::problem::{Code, ProblemBody};
use super::routes::{
    activation, audit, configs, documents, draft_files, drafts, events, health, job_files, jobs, keys, network, system,
    validation, versions, workspaces,
};
use axum::Router;
use axum::response::Html;
use axum::routing::get;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi as Document, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

/// Statuses with which any route may refuse: what is wrong with the request, with the key, or with the service.
const ANY: [(u16, &str); 5] = [
    (400, "The request is not valid"),
    (401, "No API key, or one that does not work"),
    (429, "Too many requests, streams or jobs"),
    (431, "The request line and the headers are too large"),
    (503, "The service cannot do this now"),
];
/// Further ones, of routes with a path parameter.
const NAMED: [(u16, &str); 2] =
    [(403, "The key may not do this"), (404, "There is no such thing, or none that the key may see")];
/// Further ones, of routes that take a body.
const BODY: [(u16, &str); 3] = [
    (408, "The body did not come in time"),
    (413, "The body is too large"),
    (415, "The body is of a type that is not taken"),
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ADE Runtime",
        description = "Submit spreadsheets, have them cleaned by config packages in containers of their own, and get the results. \
            Every error is an application/problem+json (RFC 9457) with a stable code; every answer has an X-Request-ID.",
        license(name = "Apache-2.0")
    ),
    components(schemas(ProblemBody)),
    security(("api_key" = [])),
    modifiers(&Common),
    tags(
        (name = "jobs", description = "Work"),
        (name = "documents", description = "Inputs"),
        (name = "configs", description = "Config packages"),
        (name = "versions", description = "Their published versions"),
        (name = "drafts", description = "What may become a version"),
        (name = "workspaces", description = "Tenants"),
        (name = "keys", description = "API keys"),
        (name = "network", description = "Who may reach what"),
        (name = "audit", description = "Who changed what"),
        (name = "system", description = "The instance, for admins"),
        (name = "health", description = "For operators"),
    )
)]
struct Api;

struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("ade_…")
            .description(Some("An API key"))
            .build();
        document.components.get_or_insert_default().add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

fn routes() -> OpenApiRouter<App> {
    let workspace = OpenApiRouter::new()
        .merge(workspaces::one())
        .merge(keys::of_workspace())
        .merge(documents::router())
        .merge(configs::router())
        .merge(versions::router())
        .merge(drafts::router())
        .merge(draft_files::router())
        .merge(validation::router())
        .merge(activation::router())
        .merge(network::router())
        .merge(audit::router())
        .merge(jobs::router())
        .merge(job_files::router())
        .merge(events::router());
    let api = OpenApiRouter::new()
        .merge(workspaces::router())
        .merge(keys::admins())
        .nest("/workspaces/{workspace}", workspace)
        .nest("/system", system::router().merge(network::of_instance()).merge(audit::of_instance()));
    OpenApiRouter::with_openapi(Api::openapi()).merge(health::router()).nest("/api/v1", api)
}

/// The document that describes all routes.
#[must_use]
pub fn document() -> Document {
    complete(routes().into_openapi())
}

/// The document as it is published: `docs/openapi.json`.
#[must_use]
pub fn published() -> String {
    let mut text = document().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The whole service.
pub fn router(app: App) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = complete(document);
    // Serves the document too.
    let document = serde_json::to_value(document).unwrap_or_default();
    let page = SwaggerUi::new("/docs").external_url_unchecked("/openapi.json", document);
    let metrics = app.metrics.clone();
    let router =
        router.with_state(app).merge(Router::from(page)).route("/problems", get(|| async { Html(problems()) }));
    // Around all else: what no route answers is counted too.
    super::listen::finish(router).layer(axum::middleware::from_fn_with_state(metrics, crate::telemetry::record))
}

/// The page that the `type` of a problem leads to.
fn problems() -> String {
    let mut page = String::from(
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>Problems</title>\
         <style>body{font-family:sans-serif;max-width:50em;margin:2em auto}dt{font-family:monospace;margin-top:1em}</style>\
         <h1>Problems</h1><dl>",
    );
    for code in Code::ALL {
        let (name, status, title) = (code.as_str(), code.status().as_u16(), code.title());
        page.push_str(&format!("<dt id=\"{name}\">{name} ({status})</dt><dd>{title}</dd>"));
    }
    page.push_str("</dl></html>\n");
    page
}

/// Adds the problems that routes have in common, so that no route has to list them.
fn complete(mut document: Document) -> Document {
    // What the router calls a wildcard has no name in OpenAPI: it is a parameter.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    for (path, item) in &mut document.paths.paths {
        let named = path.contains('{') || path.contains("/system") || path.ends_with("/keys");
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            // Handlers are named within their file; an id must be unique in the whole document.
            let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
            operation.operation_id = operation.operation_id.take().map(|name| format!("{tag}_{name}"));
            let open = operation.security.is_some();
            if open {
                continue;
            }
            let body = operation.request_body.is_some();
            let further = NAMED.iter().filter(|_| named || body || path == "/metrics");
            let further = further.chain(BODY.iter().filter(|_| body));
            for (status, description) in ANY.iter().chain(further) {
                add(operation, *status, description);
            }
        }
    }
    document
}

fn add(operation: &mut Operation, status: u16, description: &str) {
    let problem = Content::new(Some(Ref::from_schema_name("ProblemBody")));
    let response = ResponseBuilder::new().description(description).content("application/problem+json", problem).build();
    operation.responses.responses.entry(status.to_string()).or_insert(RefOr::T(response));
}
