//! Metrics of requests, and metrics as an answer.

use super::metrics::{CONTENT_TYPE, Metrics};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::time::Instant;

/// The middleware that counts requests by their matched route, for [`axum::middleware::from_fn_with_state`]. Put it on
/// with `Router::layer`, after all routes: what matches none is counted as `unmatched`.
pub async fn record(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = method(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    metrics.http_request(method, route, response.status().as_u16(), began.elapsed());
    response
}

/// A caller may send any word as method; the label knows the usual ones.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The answer to a scrape.
impl IntoResponse for Metrics {
    fn into_response(self) -> Response {
        match self.encode() {
            Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn requests_are_counted_by_route_and_not_by_path() {
        let metrics = Metrics::new();
        let scrape = metrics.clone();
        let inner = Router::new().route("/jobs/{id}", get(|| async { "x" }));
        let router: Router = Router::new()
            .nest("/api", inner)
            .route("/metrics", get(move || async move { scrape }))
            .layer(axum::middleware::from_fn_with_state(metrics, record));
        for (method, path) in [("GET", "/api/jobs/1"), ("GET", "/api/jobs/2"), ("BREW", "/nope/1"), ("GET", "/nope/2")]
        {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap();
        }
        let response = router.oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
        let body = axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        for (method, route, class, count) in
            [("GET", "/api/jobs/{id}", "2xx", 2), ("other", "unmatched", "4xx", 1), ("GET", "unmatched", "4xx", 1)]
        {
            let line = format!(
                "ade_http_requests_total{{method=\"{method}\",route=\"{route}\",status_class=\"{class}\"}} {count}\n"
            );
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
