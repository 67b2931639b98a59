//! The requests that wait for a slot.
//!
//! What must stay true: at most `limit` requests wait beside those that idle slots will take; nothing enters a closed queue; the
//! scheduler's end, a panic included, closes it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::server::job::Job;

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    idle_slots: usize,
    closed: bool,
    aborted: bool,
}

/// Why a request cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

impl Queue {
    pub fn new(limit: usize, slots: usize) -> Self {
        Self { state: Mutex::new(State { idle_slots: slots, ..State::default() }), changed: Condvar::new(), limit }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, job: Job) -> Result<(), Refused> {
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        let room = self.limit + state.idle_slots;
        if state.jobs.len() >= room {
            state.jobs.retain(|job| !job.request.events.is_closed());
        }
        if state.jobs.len() >= room {
            return Err(Refused::Full);
        }
        state.jobs.push_back(job);
        self.changed.notify_all();
        Ok(())
    }

    /// The next request whose client is still there.
    pub fn pop(&self) -> Option<Job> {
        let mut state = self.state();
        while let Some(job) = state.jobs.pop_front() {
            if !job.request.events.is_closed() {
                return Some(job);
            }
        }
        None
    }

    /// Sleeps until there is a request; false when none can come any more.
    pub fn wait(&self) -> bool {
        let mut state = self.state();
        while state.jobs.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.jobs.is_empty()
    }

    pub fn set_idle_slots(&self, slots: usize) {
        self.state().idle_slots = slots;
    }

    /// Requests that wait.
    pub fn length(&self) -> usize {
        self.state().jobs.len()
    }

    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Closes, and ends what is inside.
    pub fn abort(&self) {
        let mut state = self.state();
        (state.closed, state.aborted) = (true, true);
        self.changed.notify_all();
    }

    pub fn is_aborted(&self) -> bool {
        self.state().aborted
    }
}
