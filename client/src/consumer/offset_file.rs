//! Offsets of a broadcast consumer: every member reads everything, so its place is its own and lies in a file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use escrowmq_common::body::{self, Form, ResetOffsetBody, json};
use escrowmq_common::task::Tasks;
use parking_lot::Mutex;

use crate::queue::MessageQueue;

/// Offsets in memory and, after each save, in a file of the form that other clients use too.
#[derive(Debug)]
pub(crate) struct OffsetFile {
    path: Arc<Path>,
    offsets: Mutex<BTreeMap<MessageQueue, i64>>,
}

impl OffsetFile {
    /// Reads the file. One that is not there is an empty one; one that cannot be read is an error, because going on
    /// without it would deliver everything again.
    pub(crate) fn open(path: PathBuf) -> io::Result<OffsetFile> {
        let offsets = match std::fs::read(&path) {
            Ok(bytes) => {
                let table: ResetOffsetBody =
                    json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                let offsets = table.offset_table.into_iter();
                offsets
                    .map(|(queue, offset)| (MessageQueue::new(queue.topic, queue.broker_name, queue.queue_id), offset))
                    .collect()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(OffsetFile { path: path.into(), offsets: Mutex::new(offsets) })
    }

    /// The offset of a queue.
    pub(crate) fn get(&self, queue: &MessageQueue) -> Option<i64> {
        self.offsets.lock().get(queue).copied()
    }

    /// Sets the offset of a queue, in memory.
    pub(crate) fn put(&self, queue: &MessageQueue, offset: i64) {
        self.offsets.lock().insert(queue.clone(), offset);
    }

    /// Writes all offsets beside the file and puts them in its place: a crash leaves the old ones or the new ones.
    pub(crate) async fn save(&self, tasks: &Tasks) -> io::Result<()> {
        let offsets = self.offsets.lock().clone();
        let table = offsets
            .into_iter()
            .map(|(queue, offset)| (body::MessageQueue::new(queue.topic(), queue.broker(), queue.id()), offset));
        let bytes = json::to_bytes(&ResetOffsetBody { offset_table: table.collect() }, Form::Loose);
        let path = Arc::clone(&self.path);
        let written = tasks.spawn_blocking("save offsets", move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let beside = path.with_extension("new");
            std::fs::write(&beside, &bytes)?;
            std::fs::rename(&beside, &path)
        });
        written.await.ok().flatten().unwrap_or_else(|| Err(io::Error::other("the runtime is shutting down")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn offsets_outlive_the_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deeper/offsets.json");
        let queue = MessageQueue::new("T", "a", 3);
        let file = OffsetFile::open(path.clone()).expect("nothing there is empty");
        assert_eq!(file.get(&queue), None);
        file.put(&queue, 42);
        file.save(&Tasks::new()).await.expect("saved");
        let again = OffsetFile::open(path.clone()).expect("readable");
        assert_eq!(again.get(&queue), Some(42));
        std::fs::write(&path, "{").expect("written");
        assert!(OffsetFile::open(path).is_err(), "a broken file is not an empty one");
    }
}
