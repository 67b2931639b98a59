//! Shards in object stores and on web servers: `s3://`, `gs://`, `az://`, `http(s)://`.
//!
//! What must stay true: everything above [`Shard::open_file`](crate::shard::Shard::open_file) reads ordinary local files, so neither
//! decoding nor order can depend on where a shard lies. A shard is its URL, size and version (entity tag, else time of change) as
//! they were when the list was made; bytes of another version are never given. Credentials come from the environment alone.

mod cache;
#[cfg(test)]
#[cfg(feature = "object-store")]
mod http_tests;
mod location;
#[cfg(test)]
#[cfg(feature = "object-store")]
mod loopback;
#[cfg(test)]
#[cfg(feature = "object-store")]
mod order_tests;
mod remote_shard;
#[cfg_attr(not(feature = "object-store"), path = "absent.rs")]
mod store;
#[cfg(feature = "object-store")]
mod store_error;

pub(crate) use location::{Location, is_url, local_path};
pub(crate) use remote_shard::RemoteShard;
pub(crate) use store::Stores;
