//! Run folders: atomic checkpoints, resume, and loading weights of any kind.
