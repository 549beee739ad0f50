//! The files that a command leaves, and that are to be kept.
//!
//! They are taken in batches, the smallest files first, so that as many as possible are kept if the
//! time ends. Each batch is followed by its manifest, so what was kept up to then is known even if
//! this program is killed.

mod api;
mod collect;
mod folder;

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use domain::artifact::{
    ArtifactPath, BATCH_BYTES_MAX, BATCH_FILES_MAX, Manifest, StoredFile, UploadSummary,
};
use signal_hook::{consts::SIGTERM, flag};

use self::{
    api::Api,
    collect::{Collected, FoundFile},
    folder::Folder,
};
use crate::order::{KeepIn, KeepOrder};

/// How a report begins whose numbers are final.
const DONE: &str = "done ";
/// How a report begins after which more files may follow.
const SO_FAR: &str = "so far ";

/// The result for the files of a batch.
#[derive(Debug, Default)]
struct Kept {
    /// Whether the batch has its number: then it needs a manifest.
    is_begun: bool,
    /// The files that are kept.
    stored: Vec<StoredFile>,
    /// The indexes of the others, and why they are not kept.
    lost: Vec<(usize, String)>,
    /// Why no other file would fare better.
    fatal: Option<String>,
}

/// The place where files are kept.
enum Destination<'a> {
    Folder(Folder),
    Api(Box<Api<'a>>),
}

impl<'a> Destination<'a> {
    fn of(into: &KeepIn, told: &'a AtomicBool) -> Result<Self, String> {
        match into {
            KeepIn::Prepared(folder) if !folder.is_dir() => {
                Err("there is no place for it in this container".to_owned())
            }
            KeepIn::Folder(folder) | KeepIn::Prepared(folder) => {
                Ok(Self::Folder(Folder::new(folder)))
            }
            KeepIn::Api(access) => match Api::new(access, told) {
                Ok(api) => Ok(Self::Api(Box::new(api))),
                Err(fault) => Err(fault.reason),
            },
        }
    }

    fn put(&self, batch: u32, files: &[FoundFile]) -> Kept {
        match self {
            Self::Folder(folder) => folder.put(batch, files),
            Self::Api(api) => api.put(batch, files),
        }
    }

    fn finish(&self, batch: u32, manifest: &Manifest) -> Result<(), String> {
        match self {
            Self::Folder(folder) => folder.finish(batch, manifest),
            Self::Api(api) => api.finish(batch, manifest),
        }
    }
}

/// Keeps the files of an order. Reports to `out` after each batch, a line each; [`last_report`]
/// reads them. On TERM it ends after what is under way.
///
/// # Errors
/// When signals cannot be caught, or nobody reads the last report.
pub fn upload(order: &KeepOrder, out: &mut impl Write) -> io::Result<()> {
    let told = Arc::new(AtomicBool::new(false));
    flag::register(SIGTERM, Arc::clone(&told))?;
    let collected = collect::files(&order.root, &order.globs, &told);
    let mut upload = Upload::new(collected, &told);
    match Destination::of(&order.into, &told) {
        Ok(to) => upload.run(&to, |so_far| {
            let _nobody_reads = writeln!(out, "{SO_FAR}{}", so_far.written());
        }),
        Err(why) => upload.lose_all(&why),
    }
    writeln!(out, "{DONE}{}", upload.summary().written())
}

/// The last state that the reports of an upload tell. `cut_off` is why a last report is missing.
#[must_use]
pub fn last_report(reports: &str, cut_off: &str) -> UploadSummary {
    let last = reports.lines().next_back().unwrap_or_default();
    let read = |begin: &str| UploadSummary::read(last.strip_prefix(begin)?);
    read(DONE).unwrap_or_else(|| UploadSummary {
        reason: Some(cut_off.to_owned()),
        ..read(SO_FAR).unwrap_or_default()
    })
}

/// An upload under way.
struct Upload<'a> {
    collected: Collected,
    told: &'a AtomicBool,
    kept: UploadSummary,
    /// Why a file is not kept: the first reason, and how many files that are.
    lost: Option<(String, usize)>,
}

impl<'a> Upload<'a> {
    fn new(collected: Collected, told: &'a AtomicBool) -> Self {
        Self {
            collected,
            told,
            kept: UploadSummary::default(),
            lost: None,
        }
    }

    fn run(&mut self, to: &Destination<'_>, mut report: impl FnMut(&UploadSummary)) {
        let files = std::mem::take(&mut self.collected.files);
        let (mut left, mut number) = (&files[..], 0);
        while let Some(next) = left.first() {
            if self.told.load(Ordering::Relaxed) {
                self.lose(&next.path, "the time for the upload was over", left.len());
                return;
            }
            let (batch, rest) = left.split_at(batch_length(left));
            let Kept {
                is_begun,
                stored,
                lost,
                fatal,
            } = to.put(number, batch);
            for (index, why) in lost {
                self.lose(&batch[index].path, &why, 1);
            }
            if is_begun {
                let (count, bytes) = (stored.len(), stored.iter().map(|file| file.bytes).sum());
                let manifest = Manifest { files: stored };
                match to.finish(number, &manifest) {
                    Ok(()) => self.keep(count, bytes),
                    Err(why) => {
                        self.lose(&next.path, &why, count + rest.len());
                        return;
                    }
                }
                number += 1;
            }
            if let (Some(why), Some(next)) = (fatal, rest.first()) {
                self.lose(&next.path, &why, rest.len());
                return;
            }
            report(&self.kept);
            left = rest;
        }
    }

    fn lose_all(&mut self, why: &str) {
        let files = std::mem::take(&mut self.collected.files);
        if let Some(first) = files.first() {
            self.lose(&first.path, why, files.len());
        }
    }

    fn keep(&mut self, count: usize, bytes: u64) {
        self.kept.files += u32::try_from(count).unwrap_or(u32::MAX);
        self.kept.bytes += bytes;
    }

    fn lose(&mut self, path: &ArtifactPath, why: &str, count: usize) {
        let first = || (format!("{path}: {why}"), 0);
        self.lost.get_or_insert_with(first).1 += count;
    }

    /// The files that are kept, and why not all.
    fn summary(&self) -> UploadSummary {
        let mut lost = self.lost.clone();
        if let Some((why, count)) = &self.collected.left_out {
            lost.get_or_insert_with(|| (why.clone(), 0)).1 += count;
        }
        let reason = lost.map(|(why, count)| match count {
            1 => format!("1 file is not kept: {why}"),
            _ => format!("{count} files are not kept, the first of them: {why}"),
        });
        UploadSummary {
            reason,
            ..self.kept.clone()
        }
    }
}

/// How many of these files make the next batch.
fn batch_length(files: &[FoundFile]) -> usize {
    let mut bytes = 0;
    let fits = |file: &&FoundFile| {
        bytes += file.bytes;
        bytes <= BATCH_BYTES_MAX
    };
    let count = files.iter().take(BATCH_FILES_MAX).take_while(fits).count();
    count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_counts() {
        let summary = |files, bytes, reason: Option<&str>| UploadSummary {
            files,
            bytes,
            reason: reason.map(str::to_owned),
        };
        assert_eq!(last_report("", "killed"), summary(0, 0, Some("killed")));
        assert_eq!(
            last_report("so far 1:2\nso far 3:4\n", "killed"),
            summary(3, 4, Some("killed"))
        );
        assert_eq!(
            last_report("so far 1:2\ndone 3:4\n", "killed"),
            summary(3, 4, None)
        );
        assert_eq!(
            last_report("done 3:4:x: disk full\n", "killed"),
            summary(3, 4, Some("x: disk full"))
        );
    }
}
