//! Which files a process reads, and in which order: CoreNet's `general_lm.py` (`_prepare_dataset`, `generate_sample`).
//!
//! One `random.Random(seed)` does everything in turn: the first shuffle of the whole list, the choice of files that fill the
//! list up to a multiple of the processes, and one more shuffle of the process's own list before every later epoch. Later
//! epochs are shuffled even when `shuffle` is off, as CoreNet does in training.

use crate::error::DataError;
use crate::python_random::PythonRandom;

/// One loader worker of one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Rank, below `world`.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// Worker, below `workers`.
    pub worker: usize,
    /// Workers of each rank; 0 means 1.
    pub workers: usize,
}

impl Partition {
    pub(crate) fn check(&self) -> Result<(), DataError> {
        check_rank(self.rank, self.world)?;
        if self.worker >= self.workers.max(1) {
            return Err(DataError::Ranks {
                reason: format!("worker {} of {} does not exist", self.worker, self.workers.max(1)),
                hint: "workers count from 0".into(),
            });
        }
        Ok(())
    }
}

pub(crate) fn check_rank(rank: usize, world: usize) -> Result<(), DataError> {
    if rank < world {
        return Ok(());
    }
    Err(DataError::Ranks { reason: format!("rank {rank} of {world} does not exist"), hint: "ranks count from 0".into() })
}

/// A process's files, epoch by epoch.
#[derive(Clone, Debug)]
pub(crate) struct FileSchedule {
    /// Indexes into the list of all files.
    own: Vec<usize>,
    random: PythonRandom,
    epoch: u64,
}

impl FileSchedule {
    /// Epoch 0 of a process over `files` files.
    pub fn new(files: usize, shuffle: bool, seed: u64, partition: Partition) -> Self {
        let mut random = PythonRandom::new(seed);
        let mut list: Vec<usize> = (0..files).collect();
        if shuffle {
            random.shuffle(&mut list);
        }
        let workers = partition.workers.max(1);
        let processes = partition.world * workers;
        let missing = files.div_ceil(processes) * processes - files;
        if missing > 0 {
            let more = random.choices(&list, missing);
            list.extend(more);
        }
        let process = partition.rank * workers + partition.worker;
        let own = list.into_iter().skip(process).step_by(processes).collect();
        Self { own, random, epoch: 0 }
    }

    /// The files of the current epoch, in order.
    pub fn files(&self) -> &[usize] {
        &self.own
    }

    /// Goes on until `epoch` is the current one.
    pub fn advance_to(&mut self, epoch: u64) {
        while self.epoch < epoch {
            self.epoch += 1;
            self.random.shuffle(&mut self.own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(rank: usize, world: usize, worker: usize, workers: usize) -> Partition {
        Partition { rank, world, worker, workers }
    }

    #[test]
    fn equals_python() {
        // CPython 3.11: r = random.Random(0); x = list(range(14)); r.shuffle(x); x += r.choices(x, k=2); x[3::4]; r.shuffle of that, twice
        let mut schedule = FileSchedule::new(14, true, 0, partition(1, 2, 1, 2));
        assert_eq!(schedule.files(), PYTHON[0]);
        schedule.advance_to(1);
        assert_eq!(schedule.files(), PYTHON[1]);
        schedule.advance_to(2);
        assert_eq!(schedule.files(), PYTHON[2]);
    }

    const PYTHON: [[usize; 4]; 3] = [[5, 7, 12, 5], [5, 7, 12, 5], [12, 5, 5, 7]];

    #[test]
    fn every_file_is_someones() {
        for (world, workers) in [(1, 0), (2, 1), (3, 2), (5, 4)] {
            let mut seen = [false; 14];
            for rank in 0..world {
                for worker in 0..workers.max(1) {
                    for file in FileSchedule::new(14, true, 3, partition(rank, world, worker, workers)).files() {
                        seen[*file] = true;
                    }
                }
            }
            assert!(seen.iter().all(|seen| *seen), "{world} ranks, {workers} workers");
        }
    }

    #[test]
    fn without_shuffling_the_first_epoch_keeps_the_order() {
        assert_eq!(FileSchedule::new(4, false, 0, partition(1, 2, 0, 0)).files(), [1, 3]);
        assert!(partition(2, 2, 0, 0).check().is_err());
        assert!(partition(0, 1, 1, 0).check().is_err());
    }
}
