//! Weight files read and written: safetensors (sharded) and CoreNet's .pt. No tensors, no network.
