//! Generation: KV cache, sampling, streaming.
