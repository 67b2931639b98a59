//! Scalars in TensorBoard's event files.
//!
//! What must stay true: a disk that refuses is an error of ours; `tensorboard-rs`'s own writer would panic on its thread, so only
//! its record framing and messages are used. Each run of the program writes a file of its own; TensorBoard joins them.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use protobuf::Message;
use tensorboard_proto::event::Event;
use tensorboard_rs::record_writer::RecordWriter;
use tensorboard_rs::summary::scalar;

use crate::error::TrainError;

/// One event file, open for writing.
pub struct EventLog {
    path: PathBuf,
    writer: RecordWriter<BufWriter<File>>,
}

impl EventLog {
    /// A new event file in `folder`, which is made where it is missing.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(folder: &Path) -> Result<Self, TrainError> {
        let fault = |action, path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Log { path, action, source }
        };
        std::fs::create_dir_all(folder).map_err(fault("making the folder", folder))?;
        // TensorBoard reads files in the order of their names: seconds first, then what tells runs of the same second apart.
        let path = (0u32..)
            .map(|number| folder.join(format!("events.out.tfevents.{:010}.openelm.{}.{number}", seconds() as u64, std::process::id())))
            .find(|path| !path.exists())
            .unwrap_or_else(|| folder.join("events.out.tfevents"));
        let file = File::create_new(&path).map_err(fault("making it", &path))?;
        let mut log = Self { path, writer: RecordWriter::new(BufWriter::new(file)) };
        let mut event = Event::new();
        event.set_file_version("brain.Event:2".into());
        log.append(event)?;
        Ok(log)
    }

    /// Writes values of one step, as `group/name`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write<'a>(&mut self, step: u64, group: &str, values: impl IntoIterator<Item = (&'a str, f64)>) -> Result<(), TrainError> {
        for (name, value) in values {
            let mut event = Event::new();
            event.set_step(step as i64);
            event.set_summary(scalar(&format!("{group}/{name}"), value as f32));
            self.append(event)?;
        }
        self.writer.flush().map_err(|source| self.fault(source))
    }

    fn append(&mut self, mut event: Event) -> Result<(), TrainError> {
        event.set_wall_time(seconds());
        let bytes = event.write_to_bytes().map_err(|error| self.fault(std::io::Error::other(error)))?;
        self.writer.write(&bytes).map_err(|source| self.fault(source))
    }

    fn fault(&self, source: std::io::Error) -> TrainError {
        TrainError::Log { path: self.path.clone(), action: "writing it", source }
    }
}

/// Seconds since 1970.
fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::create(folder.path()).unwrap();
        log.write(7, "train", [("loss", 2.5), ("learning_rate", 1e-3)]).unwrap();
        let second = EventLog::create(folder.path()).unwrap();
        assert_ne!(second.path, log.path);
        let bytes = std::fs::read(&log.path).unwrap();
        let mut found = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let event = Event::parse_from_bytes(&rest[12..12 + length]).unwrap();
            for value in event.get_summary().get_value() {
                found.push((event.get_step(), value.get_tag().to_owned(), value.get_simple_value()));
            }
            rest = &rest[16 + length..];
        }
        assert_eq!(found, [(7, "train/loss".into(), 2.5), (7, "train/learning_rate".into(), 1e-3)]);
    }
}
