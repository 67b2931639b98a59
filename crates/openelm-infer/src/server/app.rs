//! What all requests of a running server share.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use crate::constraint::{AnswerForm, Constraint, Constraints};
use crate::server::answer::unix_seconds;
use crate::server::error::{ApiError, ServerError};
use crate::server::metrics::Metrics;
use crate::server::queue::Queue;
use crate::server::scheduler::Scheduler;
use crate::server::settings::{ServedModel, ServerSettings};

#[derive(Debug)]
pub(super) struct App {
    pub model: ServedModel,
    pub settings: ServerSettings,
    /// Positions of a sequence, prompt and answer together.
    pub context: usize,
    pub queue: Arc<Queue>,
    pub metrics: Arc<Metrics>,
    /// Made for the first request that asks for a form; else what is in the way.
    constraints: OnceLock<Result<Constraints, String>>,
    /// Seconds since 1970 when the server began.
    pub begun: u64,
    draining: AtomicBool,
    ids: RandomState,
    next_id: AtomicU64,
}

impl App {
    /// Checks the settings and begins the scheduler's thread.
    pub fn start(model: ServedModel, settings: ServerSettings) -> Result<Arc<Self>, ServerError> {
        let context = settings.checked(&model)?;
        let queue = Arc::new(Queue::new(settings.queue, settings.slots));
        let metrics = Arc::new(Metrics::default());
        let scheduler = Scheduler::new(&model, &settings, context, Arc::clone(&queue), Arc::clone(&metrics));
        let thread = std::thread::Builder::new().name("scheduler".into()).spawn(move || scheduler.run());
        thread.map_err(|source| ServerError::System { action: "starting the scheduler's thread", source })?;
        Ok(Arc::new(Self {
            model,
            settings,
            context,
            queue,
            metrics,
            constraints: OnceLock::new(),
            begun: unix_seconds(),
            draining: AtomicBool::new(false),
            ids: RandomState::new(),
            next_id: AtomicU64::new(0),
        }))
    }

    /// A name for an answer that no other has.
    pub fn id(&self, prefix: &str) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}-{:016x}{number:08x}", self.ids.hash_one(number))
    }

    /// What makes an answer have `form`.
    pub fn constraint(&self, form: &AnswerForm) -> Result<Constraint, ApiError> {
        let make = || Constraints::new(&self.model.tokenizer, self.model.decoder.config().vocab_size).map_err(|error| error.to_string());
        let constraint = match self.constraints.get_or_init(make) {
            Ok(constraints) => constraints.of(form).map_err(|error| error.to_string()),
            Err(reason) => Err(reason.clone()),
        };
        constraint.map_err(|reason| ApiError::field("response_format", reason).with_code("unsupported_form"))
    }

    /// Fails unless the client shows the key, where one is asked for.
    pub fn authorize(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(key) = &self.settings.api_key else { return Ok(()) };
        let shown = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        let shown = shown.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer ")).map_or(&[][..], |(_, key)| key);
        // The time tells the length of the key at most.
        if bool::from(shown.ct_eq(key.as_bytes())) { Ok(()) } else { Err(ApiError::no_key()) }
    }

    /// Takes no request any more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Seconds after which a slot may be free, by what requests have taken so far.
    pub fn retry_after(&self) -> u64 {
        let mean = self.metrics.request_seconds.mean().unwrap_or(1.0);
        let waiting = self.queue.length() as f64 / self.settings.slots as f64 + 1.0;
        (mean * waiting).ceil().clamp(1.0, 60.0) as u64
    }
}

/// A request that is being answered: counted from here to its drop.
#[derive(Debug)]
pub(super) struct InFlight {
    app: Arc<App>,
    endpoint: &'static str,
    begin: Instant,
    /// The client went away, unless another status is set.
    status: u16,
}

impl InFlight {
    pub fn enter(app: &Arc<App>, endpoint: &'static str) -> Self {
        app.metrics.in_flight.enter();
        Self { app: Arc::clone(app), endpoint, begin: Instant::now(), status: 499 }
    }

    pub fn arrived(&self) -> Instant {
        self.begin
    }

    pub fn set_status(&mut self, status: u16) {
        self.status = status;
    }

    /// The time left for the answer.
    pub fn deadline(&self) -> Instant {
        // A timeout beyond what the clock can say is none.
        self.begin.checked_add(self.app.settings.timeout).unwrap_or_else(|| self.begin + Duration::from_secs(86_400 * 365))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.app.metrics.count_request(self.endpoint, self.status);
        if self.status == 200 {
            self.app.metrics.request_seconds.observe(self.begin.elapsed());
        }
        self.app.metrics.in_flight.leave();
    }
}
