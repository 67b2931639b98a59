//! Where the parameters of a model's parts stand among those that training changes.
//!
//! What must stay true: the same order as [`OpenElm::trained_mut`].

use openelm_model::{Block, OpenElm};

/// Numbers of parameters, in their order: embedding, blocks, last norm, head.
pub(crate) struct Places {
    /// The table, or the parts of an adapter of the look-up.
    pub embedding: usize,
    /// Of each block.
    pub blocks: Vec<usize>,
    /// Whether everything is trained, and not an adapter alone.
    pub whole: bool,
    has_classifier: bool,
}

impl Places {
    pub fn of(model: &OpenElm) -> Self {
        if model.is_adapted() {
            let embedding = model.embedding_adapter.as_ref().map_or(0, |low| low.num_parameters());
            let blocks = model.blocks.iter().map(|block| block.adapter.num_parameters()).collect();
            return Self { embedding, blocks, whole: false, has_classifier: false };
        }
        let blocks = model.blocks.iter().map(Block::num_parameters).collect();
        Self { embedding: 1, blocks, whole: true, has_classifier: model.classifier.is_some() }
    }

    /// The first parameter of block `layer`.
    pub fn first_of(&self, layer: usize) -> usize {
        self.embedding + self.blocks.iter().take(layer).sum::<usize>()
    }

    /// The last norm's weight, where it is trained.
    pub fn norm(&self) -> Option<usize> {
        self.whole.then(|| self.first_of(self.blocks.len()))
    }

    /// The table that the head multiplies with, where it is trained.
    pub fn head(&self) -> Option<usize> {
        let norm = self.norm()?;
        Some(if self.has_classifier { norm + 1 } else { 0 })
    }
}
