//! Shards of text into batches of token ids, in one reproducible order. No tensors.
