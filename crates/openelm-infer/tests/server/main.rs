//! The HTTP server over a small model in this process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod client;
mod damage;
mod echo;
mod forms;
mod guesses;
mod limits;
mod model;
