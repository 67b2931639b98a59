//! The threads that kernels share, and slices that tasks write disjoint parts of.
//!
//! What must stay true: which thread runs a task never changes what the task computes, so results do not depend on
//! the number of threads. Sums across tasks are made afterwards, in the order of the tasks.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::KernelError;

const LIMIT: usize = 1024;

/// A pool of threads.
#[derive(Debug)]
pub struct Threads {
    pool: Option<rayon::ThreadPool>,
    count: usize,
    /// Held by the one caller of [`together`](Self::together): two would wait for each other's threads.
    team: Mutex<()>,
}

impl Threads {
    /// A pool of `count` threads. One thread is the caller's own.
    ///
    /// # Errors
    /// When `count` is 0 or too large, or the operating system gives no threads.
    pub fn new(count: usize) -> Result<Self, KernelError> {
        if count == 0 || count > LIMIT {
            return Err(KernelError::ThreadCount { variable: "threads", value: count.to_string(), limit: LIMIT });
        }
        if count == 1 {
            return Ok(Self { pool: None, count, team: Mutex::new(()) });
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|index| format!("openelm-kernel-{index}"))
            .build()
            .map_err(|error| KernelError::Threads { count, reason: error.to_string() })?;
        Ok(Self { pool: Some(pool), count, team: Mutex::new(()) })
    }

    /// As many threads as `OPENELM_THREADS` says, else `RAYON_NUM_THREADS`, else one for each processor.
    ///
    /// # Errors
    /// When a variable is no number of threads, or the operating system gives no threads.
    pub fn from_env() -> Result<Self, KernelError> {
        for variable in ["OPENELM_THREADS", "RAYON_NUM_THREADS"] {
            let Ok(value) = std::env::var(variable) else { continue };
            return match value.parse() {
                Ok(count) if (1..=LIMIT).contains(&count) => Self::new(count),
                _ => Err(KernelError::ThreadCount { variable, value, limit: LIMIT }),
            };
        }
        Self::new(std::thread::available_parallelism().map_or(1, usize::from).min(LIMIT))
    }

    /// How many threads.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Runs `work` on a thread of the pool, so that the loops inside it start without waking anybody.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Runs `task(0)` to `task(tasks - 1)`, each once, in any order.
    pub fn for_each(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        let Some(pool) = self.pool.as_ref().filter(|_| tasks > 1) else {
            (0..tasks).for_each(task);
            return;
        };
        let next = AtomicUsize::new(0);
        pool.broadcast(|_| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= tasks {
                    break;
                }
                task(index);
            }
        });
    }

    /// Runs `work` on every thread at once, as members of a team that shares out phase after phase without going to sleep between
    /// them. Not to be called by a task of these threads.
    pub(crate) fn together(&self, work: impl Fn(&Member<'_>) + Sync) {
        let meeting = Meeting::default();
        let Some(pool) = &self.pool else {
            return work(&Member { count: 1, meeting: &meeting });
        };
        let _alone = self.team.lock().unwrap_or_else(PoisonError::into_inner);
        pool.broadcast(|_| work(&Member { count: self.count, meeting: &meeting }));
    }

    /// Splits `items` into runs of `run` and calls `task` with the index of the first item and the number of each run.
    pub(crate) fn for_runs(&self, items: usize, run: usize, task: impl Fn(usize, usize) + Sync) {
        self.for_each(items.div_ceil(run), |index| task(index * run, run.min(items - index * run)));
    }
}

/// Where the members of a team meet between phases.
#[derive(Debug, Default)]
struct Meeting {
    /// The next task of the present phase.
    next: AtomicUsize,
    arrived: AtomicUsize,
    phase: AtomicUsize,
}

/// Turns of waiting before a member offers its processor to others.
const SPINS: usize = 1 << 12;

/// One of the threads that work [`together`](Threads::together).
#[derive(Debug)]
pub(crate) struct Member<'a> {
    count: usize,
    meeting: &'a Meeting,
}

impl Member<'_> {
    /// How many members there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Takes part in the tasks 0 to `tasks` - 1, each run once by some member, and goes on when all are done. Every member must call
    /// this as often, with as many tasks.
    pub(crate) fn share(&self, tasks: usize, mut task: impl FnMut(usize)) {
        let Meeting { next, arrived, phase } = self.meeting;
        if self.count == 1 {
            return (0..tasks).for_each(task);
        }
        let present = phase.load(Ordering::Acquire);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                break;
            }
            task(index);
        }
        if arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            // The last to arrive: nobody else looks at the counters now.
            next.store(0, Ordering::Relaxed);
            arrived.store(0, Ordering::Relaxed);
            phase.store(present.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut turns = 0;
        while phase.load(Ordering::Acquire) == present {
            turns += 1;
            if turns % SPINS == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

/// A mutable slice that tasks on several threads write parts of.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: only `part` and `pointer` reach the values, and their callers promise that no two threads touch the same ones.
unsafe impl<T: Send> Send for Parts<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The values from `start` to `start + len` - 1.
    ///
    /// # Safety
    /// No other task may touch them meanwhile.
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start <= self.len && len <= self.len - start, "part {start}+{len} of {}", self.len);
        // SAFETY: inside the slice by the line above; alone on it by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// The values from `start` to `start + len` - 1, to be read.
    ///
    /// # Safety
    /// No task may write them meanwhile.
    pub(crate) unsafe fn shared(&self, start: usize, len: usize) -> &'a [T] {
        assert!(start <= self.len && len <= self.len - start, "part {start}+{len} of {}", self.len);
        // SAFETY: inside the slice by the line above; unchanged by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(start), len) }
    }

    /// The address of the value at `start`.
    ///
    /// # Safety
    /// `start` lies inside the slice or at its end, and no other task touches what is written there meanwhile.
    pub(crate) unsafe fn pointer(&self, start: usize) -> *mut T {
        debug_assert!(start <= self.len);
        // SAFETY: the caller's promise.
        unsafe { self.start.add(start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for count in [1, 2, 3] {
            let threads = Threads::new(count).unwrap();
            let seen: Vec<_> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            threads.for_each(100, |index| {
                seen[index].fetch_add(1, Ordering::Relaxed);
            });
            assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == 1));
            let total = AtomicUsize::new(0);
            threads.enter(|| threads.for_runs(10, 3, |_, len| _ = total.fetch_add(len, Ordering::Relaxed)));
            assert_eq!(total.load(Ordering::Relaxed), 10);
        }
    }

    #[test]
    fn a_team_goes_from_phase_to_phase() {
        for count in [1, 2, 3] {
            let threads = Threads::new(count).unwrap();
            let mut values = vec![1_usize; 64];
            let parts = Parts::new(&mut values);
            // Each phase adds up what the phase before left: a member that ran ahead would see old numbers.
            threads.together(|member| {
                for phase in 0..200 {
                    let (from, to) = (phase % 2 * 32, (phase + 1) % 2 * 32);
                    member.share(32, |task| {
                        // SAFETY: a phase reads one half and writes the other, each task its own place.
                        unsafe { parts.part(to + task, 1)[0] = parts.shared(from, 32)[(task + 1) % 32] + 1 };
                    });
                }
            });
            assert!(values[..32].iter().all(|value| *value == 201), "{count}: {values:?}");
        }
    }

    #[test]
    fn no_threads_is_an_error() {
        assert!(Threads::new(0).is_err());
    }
}
