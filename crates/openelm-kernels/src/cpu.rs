//! What every kernel is given: an instruction set, threads and buffers.

use std::sync::{Mutex, PoisonError};

use crate::{Arena, Isa, Keep, KernelError, Saved, Threads};

/// How matrix products read their operands. Sums are f32 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    F32,
    /// Operands rounded to bf16, to nearest even.
    Bf16,
}

/// A processor as the kernels use it.
#[derive(Debug)]
pub struct Cpu {
    pub(crate) isa: Isa,
    pub(crate) threads: Threads,
    pub(crate) arena: Arena,
    /// Activations of the block that is computed again, or kept for nobody.
    spare: Mutex<Option<Saved>>,
}

impl Cpu {
    /// With a given instruction set and threads.
    ///
    /// # Errors
    /// When this processor lacks the instruction set.
    pub fn new(isa: Isa, threads: Threads) -> Result<Self, KernelError> {
        Ok(Self { isa: isa.require()?, threads, arena: Arena::default(), spare: Mutex::new(None) })
    }

    /// As the environment says (`OPENELM_ISA`, `OPENELM_THREADS`), else everything that the processor has.
    ///
    /// # Errors
    /// When the environment asks for what is not there.
    pub fn from_env() -> Result<Self, KernelError> {
        Self::new(Isa::from_env()?, Threads::from_env()?)
    }

    /// With tile registers, on their model where this processor has none. Everything else runs as it is.
    #[cfg(all(test, target_arch = "x86_64"))]
    pub(crate) fn with_tiles(threads: usize) -> Option<Self> {
        let threads = Threads::new(threads).ok().filter(|_| Isa::Avx512Bf16.is_available())?;
        Some(Self { isa: Isa::Amx, threads, arena: Arena::default(), spare: Mutex::new(None) })
    }

    pub(crate) fn take_spare(&self) -> Saved {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.take().unwrap_or_else(|| Saved::new(Keep::Everything))
    }

    pub(crate) fn put_spare(&self, saved: Saved) {
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    pub fn arena(&self) -> &Arena {
        &self.arena
    }
}
