//! A checkpoint into a Hugging Face folder.
