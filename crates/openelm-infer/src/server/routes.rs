//! The paths of the server.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::server::app::App;
use crate::server::error::ApiError;
use crate::server::handlers::{chat, completions};

/// One file without anything from elsewhere.
const PAGE: &str = include_str!("page.html");
/// What the page may do: its own style and script, requests to this server.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                           img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE).into_response()
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let (status, word) = match (app.is_draining(), app.queue.is_closed()) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
        (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "the scheduler has ended"),
        (false, false) => (StatusCode::OK, "ok"),
    };
    (status, Json(json!({"status": word}))).into_response()
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    app.authorize(&headers)?;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], app.metrics.text(app.settings.slots, app.queue.length())).into_response())
}

fn card(app: &App) -> Value {
    json!({
        "id": app.model.name,
        "object": "model",
        "created": app.begun,
        "owned_by": "openelm",
        "max_model_len": app.context,
    })
}

async fn models(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<Value>, ApiError> {
    app.authorize(&headers)?;
    Ok(Json(json!({"object": "list", "data": [card(&app)]})))
}

async fn model(State(app): State<Arc<App>>, headers: HeaderMap, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    app.authorize(&headers)?;
    if name != app.model.name {
        return Err(ApiError::no_such_model(&name, &app.model.name));
    }
    Ok(Json(card(&app)))
}

async fn no_such_path(uri: Uri) -> ApiError {
    let message = format!("there is nothing at {}; see /v1/models, /v1/completions, /v1/chat/completions, /health, /metrics", uri.path());
    ApiError::invalid(message).with_status(StatusCode::NOT_FOUND)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::invalid(format!("{} does not take {method}", uri.path())).with_status(StatusCode::METHOD_NOT_ALLOWED)
}
