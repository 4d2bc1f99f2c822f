//! The recording in memory, and the file that it comes from.
//!
//! # Invariants
//!
//! * What is held is what one file says, from its beginning: when another one
//!   takes its name (its writer compacted it), that is read anew, whole.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leakline_analysis::Contents;
use leakline_recording::record::Record;
use leakline_recording::{OpenError, Reader};

/// A file, and how far it was read.
#[derive(Debug)]
struct Counted {
    file: File,
    at: u64,
    /// The furthest that it was read.
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        self.at += count as u64;
        self.read.fetch_max(self.at, Ordering::Relaxed);
        Ok(count)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = self.file.seek(to)?;
        // A look at the end reads nothing.
        self.at = at;
        Ok(at)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    reader: Reader<Counted>,
    read: Arc<AtomicU64>,
    identity: Option<(u64, u64)>,
    /// What took the name and is no recording, and how long it was.
    refused: Option<((u64, u64), u64)>,
    contents: Contents,
}

impl Store {
    /// Opens a recording and reads nothing of it but its header.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        // For its errors: a directory, a pipe, what does not exist.
        drop(Reader::open(path)?);
        let io = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let identity = file.metadata().ok().as_ref().map(identity);
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            file,
            at: 0,
            read: Arc::clone(&read),
        };
        Ok(Store {
            path: path.to_owned(),
            reader: Reader::new(counted, path)?,
            read,
            identity,
            refused: None,
            contents: Contents::new(),
        })
    }

    /// Reads what was written since, or all anew where another file has taken
    /// the name. Says now and then how many of how many bytes were read.
    pub(crate) fn refresh(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), OpenError> {
        let Some(other) = self.other() else {
            return self.read_on(progress);
        };
        if let Ok(mut store) = Store::open(&self.path)
            && store.read_on(progress).is_ok()
        {
            *self = store;
        } else {
            // There is still the old one. This one is looked at again when it
            // has grown: it may be a recording just begun.
            self.refused = Some(other);
        }
        Ok(())
    }

    fn read_on(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), OpenError> {
        let contents = &mut self.contents;
        let bytes = fs::metadata(&self.path).map_or(0, |data| data.len());
        let read = &self.read;
        let mut since = 0;
        self.reader.read(&mut |record| {
            since += if matches!(record, Record::Bin(_)) {
                1000
            } else {
                1
            };
            contents.push(record);
            if since > 20_000 {
                since = 0;
                progress(read.load(Ordering::Relaxed), bytes);
            }
        })
    }

    /// Whether the file has more than was read, or is another one by now.
    pub(crate) fn has_more(&self) -> bool {
        let other = self.other();
        if other.is_some() {
            return other != self.refused;
        }
        fs::metadata(&self.path).is_ok_and(|data| data.len() != self.reader.file_bytes())
    }

    /// The file that has taken the name, if one has, and its length. A name
    /// that is gone is no other file.
    fn other(&self) -> Option<((u64, u64), u64)> {
        let data = fs::metadata(&self.path).ok()?;
        (Some(identity(&data)) != self.identity).then(|| (identity(&data), data.len()))
    }

    /// Bytes of the file as it is now.
    pub(crate) fn bytes_there(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |data| data.len())
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn ended(&self) -> bool {
        self.reader.ended()
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.reader.file_bytes()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.reader.damage().warnings();
        if self.refused.is_some() {
            warnings.push(
                "another file, which is no recording, has taken the name: \
                 what was read before is shown"
                    .into(),
            );
        }
        warnings
    }
}

#[cfg(unix)]
fn identity(data: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (data.dev(), data.ino())
}

/// Elsewhere no writer replaces a file that is open.
#[cfg(not(unix))]
fn identity(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use leakline_recording::Writer;

    /// How many records.
    fn held(store: &Store) -> usize {
        let contents = store.contents();
        contents.records().len() + contents.nodes().len() - 1 + contents.sites().len()
    }

    #[test]
    fn what_is_added_is_read_and_a_file_that_takes_the_name_is_read_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.leakline");
        let records = testing::records();
        let mut writer = Writer::new(File::create(&path).unwrap()).unwrap();
        let (some, more) = records.split_at(records.len() / 2);
        some.iter().cloned().for_each(|record| writer.push(record));
        writer.flush().unwrap();

        let mut store = Store::open(&path).unwrap();
        store.refresh(&mut |_, _| {}).unwrap();
        assert_eq!(held(&store), some.len());
        assert!(!store.has_more());
        more.iter().cloned().for_each(|record| writer.push(record));
        writer.flush().unwrap();
        assert!(store.has_more());
        store.refresh(&mut |_, _| {}).unwrap();
        assert_eq!(held(&store), records.len());
        assert!(store.ended());

        let other = directory.path().join("b.leakline");
        let mut writer = Writer::new(File::create(&other).unwrap()).unwrap();
        some.iter().cloned().for_each(|record| writer.push(record));
        writer.flush().unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(store.has_more());
        store.refresh(&mut |_, _| {}).unwrap();
        assert_eq!(held(&store), some.len());
        assert!(!store.ended());

        // What is no recording is looked at once, and said.
        assert!(store.warnings().is_empty());
        fs::write(&other, "something else").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(store.has_more());
        store.refresh(&mut |_, _| {}).unwrap();
        assert_eq!(held(&store), some.len());
        assert!(!store.has_more());
        assert_eq!(store.warnings().len(), 1);

        // A file that is gone is still shown.
        fs::remove_file(&path).unwrap();
        assert!(!store.has_more());
    }
}
