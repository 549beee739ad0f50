//! Notes about files of ended tasks that could not be removed. Each is reported once, to the next
//! user of this machine.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The extension of a note that was reported.
const TOLD: &str = "told";

/// Notes in a folder, which exists only once there was something to note. A note is the file `TASK`
/// until it is reported, and then `TASK.told` as long as files remain.
#[derive(Clone, Debug)]
pub struct Remains {
    dir: PathBuf,
}

impl Remains {
    /// Makes the notes in this folder.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Returns the notes that were not reported yet, in words, and marks them as reported.
    #[must_use]
    pub fn tell(&self) -> Vec<String> {
        let Ok(notes) = fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        let untold = notes
            .flatten()
            .map(|note| note.path())
            .filter(|path| path.extension().is_none());
        // If two processes report at once, only one can rename the note.
        let told = untold.filter_map(|path| {
            let words = fs::read_to_string(&path).ok()?;
            fs::rename(&path, path.with_extension(TOLD))
                .ok()
                .map(|()| words)
        });
        told.collect()
    }

    /// Notes the files that remain of a task, unless that was reported already.
    pub(crate) fn note(&self, task_id: &str, words: &str) {
        let note = self.dir.join(task_id);
        if note.with_extension(TOLD).exists() {
            return;
        }
        if let Err(error) = write(&note, words) {
            tracing::warn!(task_id, %error, "what remains of a task cannot be noted");
        }
    }

    /// Deletes a task's note, because nothing remains of the task.
    pub(crate) fn settle(&self, task_id: &str) {
        let note = self.dir.join(task_id);
        for note in [note.with_extension(TOLD), note] {
            let _none = fs::remove_file(note);
        }
    }
}

/// Writes a note as a whole or not at all, because it may be read at the same time.
fn write(note: &Path, words: &str) -> io::Result<()> {
    if let Some(dir) = note.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    let new = note.with_extension("new");
    fs::write(&new, words)?;
    fs::rename(new, note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let remains = Remains::new(folder.path().join("remains"));
        assert!(remains.tell().is_empty());
        remains.note("1", "one");
        remains.note("1", "one");
        assert_eq!(remains.tell(), ["one"]);
        remains.note("1", "one");
        assert!(remains.tell().is_empty(), "it is known");
        remains.settle("1");
        assert_eq!(
            fs::read_dir(folder.path().join("remains"))
                .expect("there")
                .count(),
            0
        );
        remains.note("1", "again");
        assert_eq!(remains.tell(), ["again"]);
    }
}
