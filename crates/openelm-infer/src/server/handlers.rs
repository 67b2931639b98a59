//! The two endpoints that make text.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, StreamExt, unfold};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, timeout, timeout_at};

use crate::server::answer::{Choice, Heading, unix_seconds};
use crate::server::app::{App, InFlight};
use crate::server::error::ApiError;
use crate::server::job::{Event, Job, Request};
use crate::server::queue::Refused;
use crate::server::request::{Endpoint, Prepared, prepare};

/// A client must have sent its request by then.
const BODY_TIME: Duration = Duration::from_secs(30);

pub(super) async fn completions(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    answer(app, Endpoint::Completions, headers, body).await
}

pub(super) async fn chat(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    answer(app, Endpoint::Chat, headers, body).await
}

async fn answer(app: Arc<App>, endpoint: Endpoint, headers: HeaderMap, body: Body) -> Response {
    let mut flight = InFlight::enter(&app, endpoint.path());
    match begin(&app, &flight, endpoint, &headers, body).await {
        Ok((progress, true)) => stream(progress, flight).into_response(),
        Ok((progress, false)) => {
            let answer = whole(progress, &flight).await;
            let response = answer.map_or_else(IntoResponse::into_response, |value| Json(value).into_response());
            flight.set_status(response.status().as_u16());
            response
        }
        Err(error) => {
            flight.set_status(error.status.as_u16());
            error.into_response()
        }
    }
}

/// An answer that is being made.
struct Progress {
    heading: Heading,
    events: UnboundedReceiver<Event>,
    choices: Vec<Choice>,
    per_prompt: usize,
    logprobs: bool,
    include_usage: bool,
    timeout: Duration,
}

/// Reads the request and hands it to the scheduler; says whether a stream is wanted.
async fn begin(
    app: &Arc<App>,
    flight: &InFlight,
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Progress, bool), ApiError> {
    app.authorize(headers)?;
    if app.is_draining() {
        return Err(ApiError::shutting_down());
    }
    check_type(headers)?;
    let body = timeout(BODY_TIME, read(body, app.settings.body_limit)).await;
    let body = body.map_err(|_| ApiError::invalid("the body did not come in time").with_status(StatusCode::REQUEST_TIMEOUT))??;
    // A long prompt takes a while to tokenize, and other clients need this thread.
    let worker = Arc::clone(app);
    let prepared = tokio::task::spawn_blocking(move || prepare(endpoint, &body, &worker)).await;
    let prepared = prepared.map_err(|error| ApiError::model_failed(&format!("reading the request: {error}")))??;
    let Prepared { sequences, wishes, choices: per_prompt, stream, include_usage } = prepared;
    let (sender, events) = unbounded_channel();
    let (count, logprobs) = (sequences.len(), wishes.logprobs.is_some());
    let request = Arc::new(Request { wishes, events: sender, arrived: flight.arrived() });
    app.queue.push(Job { sequences, request }).map_err(|refused| match refused {
        Refused::Full => ApiError::busy(app.retry_after()),
        Refused::Closed => ApiError::shutting_down(),
    })?;
    let prefix = match endpoint {
        Endpoint::Completions => "cmpl",
        Endpoint::Chat => "chatcmpl",
    };
    let heading = Heading { endpoint, id: app.id(prefix), created: unix_seconds(), model: app.model.name.clone() };
    let choices = std::iter::repeat_with(Choice::default).take(count).collect();
    Ok((Progress { heading, events, choices, per_prompt, logprobs, include_usage, timeout: app.settings.timeout }, stream))
}

/// A page of another site can send anything but JSON without asking its browser's leave.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = format!("the content type is {essence:?}; send JSON with `Content-Type: application/json`");
    Err(ApiError::invalid(message).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

async fn read(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut parts = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| ApiError::invalid(format!("the body broke off: {error}")))?;
        if bytes.len() + part.len() > limit {
            let message = format!("the body is longer than {limit} bytes");
            return Err(ApiError::invalid(message).with_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

impl Progress {
    /// The next event before the deadline.
    async fn next(&mut self, flight: &InFlight) -> Result<Event, ApiError> {
        match timeout_at(Instant::from_std(flight.deadline()), self.events.recv()).await {
            Ok(Some(Event::Failed(error))) => Err(error),
            Ok(Some(event)) => Ok(event),
            // The scheduler ended without a word.
            Ok(None) => Err(ApiError::shutting_down()),
            Err(_) => Err(ApiError::timed_out(self.timeout.as_secs_f64())),
        }
    }

    fn is_whole(&self) -> bool {
        self.choices.iter().all(|choice| choice.finish.is_some())
    }
}

async fn whole(mut progress: Progress, flight: &InFlight) -> Result<serde_json::Value, ApiError> {
    while !progress.is_whole() {
        match progress.next(flight).await? {
            Event::Piece { choice, text, logprobs } => {
                if let Some(choice) = progress.choices.get_mut(choice) {
                    choice.text += &text;
                    choice.logprobs.extend(logprobs);
                }
            }
            Event::Finished { choice, reason, usage } => {
                if let Some(choice) = progress.choices.get_mut(choice) {
                    choice.finish = Some((reason, usage));
                }
            }
            Event::Failed(error) => return Err(error),
        }
    }
    Ok(progress.heading.whole(&progress.choices, progress.per_prompt, progress.logprobs))
}

/// Where a stream stands.
enum Stage {
    /// The choice whose first chunk is next.
    Opening(usize),
    Running,
    Usage,
    Done,
    Over,
}

fn stream(progress: Progress, flight: InFlight) -> Response {
    let events = unfold((progress, flight, Stage::Opening(0)), |(mut progress, mut flight, stage)| async move {
        let (message, stage) = next_message(&mut progress, &mut flight, stage).await?;
        Some((Ok::<_, Infallible>(Message::default().data(message)), (progress, flight, stage)))
    });
    let mut response = kept_alive(events);
    response.headers_mut().insert("X-Accel-Buffering", HeaderValue::from_static("no"));
    response
}

fn kept_alive(events: impl Stream<Item = Result<Message, Infallible>> + Send + 'static) -> Response {
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

/// The next message of a stream and what comes behind it; `None` behind the last.
async fn next_message(progress: &mut Progress, flight: &mut InFlight, mut stage: Stage) -> Option<(String, Stage)> {
    loop {
        let with_usage = progress.include_usage;
        stage = match stage {
            Stage::Opening(index) if index < progress.choices.len() => match progress.heading.opening(index, with_usage) {
                Some(chunk) => return Some((chunk.to_string(), Stage::Opening(index + 1))),
                None => Stage::Running,
            },
            Stage::Opening(_) => Stage::Running,
            Stage::Running if progress.is_whole() => Stage::Usage,
            Stage::Running => match progress.next(flight).await {
                Ok(Event::Piece { choice: index, text, logprobs }) => {
                    let chunk = progress.heading.piece(index, &text, &logprobs, with_usage);
                    return Some((chunk.to_string(), Stage::Running));
                }
                Ok(Event::Finished { choice: index, reason, usage }) => {
                    progress.choices.get_mut(index)?.finish = Some((reason, usage));
                    return Some((progress.heading.closing(index, reason, with_usage).to_string(), Stage::Running));
                }
                Ok(Event::Failed(error)) | Err(error) => {
                    flight.set_status(error.status.as_u16());
                    return Some((error.json().to_string(), Stage::Over));
                }
            },
            Stage::Usage if with_usage => {
                let chunk = progress.heading.usage_chunk(&progress.choices, progress.per_prompt);
                return Some((chunk.to_string(), Stage::Done));
            }
            Stage::Usage => Stage::Done,
            Stage::Done => {
                flight.set_status(200);
                return Some(("[DONE]".to_owned(), Stage::Over));
            }
            Stage::Over => return None,
        };
    }
}
