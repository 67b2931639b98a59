//! Sources that are read ahead on background threads, each in its own order.
//!
//! Each source fills its own queue of chunks; at most one thread works on a source at a time, so a queue's content depends on
//! its source alone. Dropping a [`Prefetch`] sets a flag that sources look at between documents; nobody waits for them.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::DataError;

/// Threads run several sources on top of each other's stacks when one waits for its parallel part.
const STACK_BYTES: usize = 16 << 20;

/// Something endless that is read chunk by chunk.
pub(crate) trait Source: Send + 'static {
    type Item: Send + 'static;

    /// The next chunk; may be empty. What it gives once `stop` is set is thrown away.
    fn advance(&mut self, stop: &AtomicBool) -> Result<Vec<Self::Item>, DataError>;
}

struct Queue<S: Source> {
    /// Taken out while a thread works on it; gone after an error.
    source: Option<S>,
    chunks: VecDeque<Result<Vec<S::Item>, DataError>>,
    working: bool,
}

struct Shared<S: Source> {
    stop: AtomicBool,
    ahead: usize,
    queues: Vec<(Mutex<Queue<S>>, Condvar)>,
}

/// The consumer's end.
pub(crate) struct Prefetch<S: Source> {
    pool: ThreadPool,
    shared: Arc<Shared<S>>,
    /// The chunk of each queue that is being given.
    open: Vec<VecDeque<S::Item>>,
    waited: Duration,
}

/// Threads for reading (0: one a core).
pub(crate) fn pool(threads: usize) -> Result<ThreadPool, DataError> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(STACK_BYTES)
        .thread_name(|index| format!("openelm-data-{index}"))
        .build()
        .map_err(|error| DataError::Background { reason: error.to_string(), hint: "lower data.threads".into() })
}

impl<S: Source> Prefetch<S> {
    /// Starts reading `ahead` chunks of every source on `threads` threads (0: one a core).
    pub fn new(sources: Vec<S>, threads: usize, ahead: usize) -> Result<Self, DataError> {
        let pool = pool(threads)?;
        let open = sources.iter().map(|_| VecDeque::new()).collect();
        let queue = |source| (Mutex::new(Queue { source: Some(source), chunks: VecDeque::new(), working: false }), Condvar::new());
        let queues = sources.into_iter().map(queue).collect();
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), ahead, queues });
        let mut prefetch = Self { pool, shared, open, waited: Duration::ZERO };
        for index in 0..prefetch.open.len() {
            prefetch.schedule(index);
        }
        Ok(prefetch)
    }

    /// The next item of a source. After an error, every further call fails.
    pub fn take(&mut self, index: usize) -> Result<S::Item, DataError> {
        loop {
            if let Some(item) = self.open[index].pop_front() {
                return Ok(item);
            }
            self.open[index] = self.wait(index)?.into();
            self.schedule(index);
        }
    }

    /// Time spent waiting in `take`.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    fn wait(&mut self, index: usize) -> Result<Vec<S::Item>, DataError> {
        let (queue, ready) = &self.shared.queues[index];
        let mut queue = lock(queue);
        let begin = Instant::now();
        loop {
            if let Some(chunk) = queue.chunks.pop_front() {
                self.waited += begin.elapsed();
                return chunk;
            }
            if queue.source.is_none() && !queue.working {
                return Err(DataError::Background {
                    reason: "an earlier error ended it".into(),
                    hint: "solve the first error and resume from the last checkpoint".into(),
                });
            }
            queue = ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn schedule(&mut self, index: usize) {
        let mut queue = lock(&self.shared.queues[index].0);
        if queue.working || queue.source.is_none() || queue.chunks.len() >= self.shared.ahead {
            return;
        }
        queue.working = true;
        drop(queue);
        let shared = self.shared.clone();
        self.pool.spawn_fifo(move || work(shared, index));
    }
}

impl<S: Source> Drop for Prefetch<S> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// Reads one chunk of a source, then lets the others have their turn.
fn work<S: Source>(shared: Arc<Shared<S>>, index: usize) {
    let (queue, ready) = &shared.queues[index];
    let Some(mut source) = lock(queue).source.take() else { return };
    // A panic would end the process from a background thread; the consumer gets an error instead. The source is dropped then,
    // so that nothing sees what the panic left behind.
    let chunk = if shared.stop.load(Ordering::Relaxed) {
        return;
    } else {
        catch_unwind(AssertUnwindSafe(|| source.advance(&shared.stop))).unwrap_or_else(|panic| Err(died(panic)))
    };
    let mut locked = lock(queue);
    let failed = chunk.is_err();
    if !chunk.as_ref().is_ok_and(Vec::is_empty) {
        locked.chunks.push_back(chunk);
    }
    if !failed {
        locked.source = Some(source);
    }
    let more = !failed && locked.chunks.len() < shared.ahead && !shared.stop.load(Ordering::Relaxed);
    locked.working = more;
    drop(locked);
    ready.notify_all();
    if more {
        let shared = shared.clone();
        rayon::spawn_fifo(move || work(shared, index));
    }
}

fn died(panic: Box<dyn Any + Send>) -> DataError {
    let known = panic.downcast_ref::<&str>().is_some() || panic.downcast_ref::<String>().is_some();
    // The message of a panic may quote a text, so it is not passed on.
    let reason = if known { "a thread panicked; the message is on the standard error" } else { "a thread panicked" };
    DataError::Background { reason: reason.into(), hint: "this is a bug: please report the message and the shard's layout".into() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct Count {
        next: u64,
        fail_at: u64,
        live: Arc<AtomicUsize>,
    }

    impl Source for Count {
        type Item = u64;
        fn advance(&mut self, _: &AtomicBool) -> Result<Vec<u64>, DataError> {
            self.next += 3;
            if self.next > self.fail_at {
                panic!("on purpose");
            }
            // Every other chunk is empty, which must not end the stream.
            Ok(if self.next.is_multiple_of(2) { Vec::new() } else { (self.next - 3..self.next).collect() })
        }
    }

    impl Drop for Count {
        fn drop(&mut self) {
            self.live.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn sources(count: usize, fail_at: u64) -> (Vec<Count>, Arc<AtomicUsize>) {
        let live = Arc::new(AtomicUsize::new(count));
        ((0..count).map(|_| Count { next: 0, fail_at, live: live.clone() }).collect(), live)
    }

    #[test]
    fn order_is_each_sources_own_and_dropping_ends_it() {
        let (sources, live) = sources(5, u64::MAX);
        let mut prefetch = Prefetch::new(sources, 3, 2).unwrap();
        for expected in [0, 1, 2, 6, 7, 8, 12] {
            for index in [3, 0, 4, 1, 2] {
                assert_eq!(prefetch.take(index).unwrap(), expected);
            }
        }
        drop(prefetch);
        let begin = Instant::now();
        while live.load(Ordering::SeqCst) > 0 {
            assert!(begin.elapsed() < Duration::from_secs(5), "sources are still alive");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_panic_becomes_an_error_and_stays_one() {
        let mut prefetch = Prefetch::new(sources(1, 3).0, 1, 1).unwrap();
        for expected in 0..3 {
            assert_eq!(prefetch.take(0).unwrap(), expected);
        }
        assert!(prefetch.take(0).unwrap_err().to_string().contains("panicked"));
        assert!(prefetch.take(0).unwrap_err().to_string().contains("earlier error"));
    }
}
