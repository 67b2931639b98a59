//! A server with OpenAI's interface and a chat page.
//!
//! Clients' requests go through a bounded queue to one thread that owns the decoder and continues several sequences at once
//! ([`ServerSettings::slots`]). What must stay true: no request can take memory, time or a slot without a limit; a request says what
//! it wants and gets that or an error that names the field, never something else.

mod answer;
mod app;
mod caches;
mod connections;
mod echo;
mod error;
mod fields;
mod form;
mod handlers;
mod job;
mod logprobs;
mod metrics;
mod queue;
mod request;
mod routes;
mod row;
mod running;
mod scheduler;
mod settings;
mod stop_strings;
mod wishes;

pub use error::ServerError;
pub use running::Server;
pub use settings::{ServedModel, ServerSettings};
