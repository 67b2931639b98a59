//! What a client is told when a request fails, in OpenAI's shape, and why a server cannot begin.

use std::net::SocketAddr;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use thiserror::Error;

/// Why a server did not begin, or broke.
#[derive(Debug, Error)]
pub enum ServerError {
    #[error("the {name} {reason}\nhint: {hint}")]
    Setting { name: &'static str, reason: &'static str, hint: &'static str },
    #[error("the context is {asked} positions, the model's holds {model}\nhint: give at most {model}")]
    Context { asked: usize, model: usize },
    #[error("listening on {address} failed: {source}\nhint: another program may use the port; give another --port, or 0 for any free one")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("{action} failed: {source}\nhint: the system refused; look at its limits of threads and open files")]
    System { action: &'static str, source: std::io::Error },
}

/// A request that failed.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub status: StatusCode,
    kind: &'static str,
    pub message: String,
    param: Option<String>,
    code: Option<&'static str>,
    retry_after: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// A request that is wrong in itself.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A field that is wrong.
    pub fn field(name: &str, message: impl Into<String>) -> Self {
        Self { param: Some(name.to_owned()), ..Self::invalid(message) }
    }

    pub fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub fn no_such_model(name: &str, served: &str) -> Self {
        let message = format!("the model {name:?} does not exist here; this server has {served:?}");
        Self::field("model", message).with_status(StatusCode::NOT_FOUND).with_code("model_not_found")
    }

    pub fn no_key() -> Self {
        let message = "the API key is missing or wrong; send it as `Authorization: Bearer KEY`";
        Self::invalid(message).with_status(StatusCode::UNAUTHORIZED).with_code("invalid_api_key")
    }

    pub fn busy(retry_after: u64) -> Self {
        let message = format!("all slots are busy and the queue is full; try again in {retry_after} s");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).with_code("queue_full");
        Self { retry_after: Some(retry_after), ..error }
    }

    pub fn shutting_down() -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "the server is shutting down").with_code("shutting_down");
        Self { retry_after: Some(10), ..error }
    }

    pub fn timed_out(seconds: f64) -> Self {
        let message = format!("the answer was not ready after {seconds} s; ask for fewer tokens, or raise the server's --timeout");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", message).with_code("timeout")
    }

    pub fn model_failed(reason: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", format!("the model failed: {reason}")).with_code("model_failed")
    }

    pub fn json(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
