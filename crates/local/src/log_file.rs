//! Logs on one machine: one file for each task, in the form of [`runner::log`].

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use domain::ports::{LogLine, LogPage, Logs, PortError, ReadError};
use runner::log::decode;

/// The most bytes read for one page. This stays well below the 6 MB of API Gateway and Lambda
/// (AWS-FACTS §7), even when the page is escaped as JSON.
const PAGE_BYTES: u64 = 1024 * 1024;

/// The logs of one machine.
#[derive(Clone, Debug)]
pub struct LocalLogs {
    dir: PathBuf,
}

impl LocalLogs {
    /// Logs in this directory.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The file of a task's log.
    #[must_use]
    pub fn path(&self, task_id: &str) -> PathBuf {
        self.dir.join(format!("{task_id}.log"))
    }

    /// The ids of the tasks that have a log.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn task_ids(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            ids.extend(
                name.to_str()
                    .and_then(|name| name.strip_suffix(".log"))
                    .map(str::to_owned),
            );
        }
        Ok(ids)
    }
}

impl Logs for LocalLogs {
    async fn read(&self, stream: &str, cursor: Option<&str>) -> Result<LogPage, ReadError> {
        let task_id = stream.rsplit('/').next().unwrap_or_default();
        let from = cursor.map_or(Some(0), offset).ok_or(ReadError::Cursor)?;
        match page(&self.path(task_id), from) {
            Ok(page) => page.ok_or(ReadError::Cursor),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LogPage::default()),
            Err(error) => Err(PortError::unavailable("the log", error).into()),
        }
    }

    async fn last(&self, stream: &str) -> Result<Vec<LogLine>, ReadError> {
        let task_id = stream.rsplit('/').next().unwrap_or_default();
        match last_page(&self.path(task_id)) {
            Ok(lines) => Ok(lines),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(PortError::unavailable("the log", error).into()),
        }
    }
}

/// Parses a cursor. Only the exact form that this module writes is valid.
fn offset(cursor: &str) -> Option<u64> {
    cursor
        .parse()
        .ok()
        .filter(|offset: &u64| offset.to_string() == cursor)
}

/// Reads the lines that begin in the last [`PAGE_BYTES`] of the file.
fn last_page(path: &Path) -> io::Result<Vec<LogLine>> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(PAGE_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file);
    if from > 0 {
        reader.skip_until(b'\n')?;
    }
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        let Some((time, _, text)) = decode(&line) else {
            break;
        };
        lines.push(LogLine {
            at: time,
            text: String::from_utf8_lossy(text).into_owned(),
        });
        line.clear();
    }
    Ok(lines)
}

/// Reads the page from this byte on; `None` if no line begins there.
fn page(path: &Path, from: u64) -> io::Result<Option<LogPage>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if from > size || !begins_a_line(&mut file, from)? {
        return Ok(None);
    }
    let (mut reader, mut lines, mut at, mut line) = (
        BufReader::new(file.take(size)),
        Vec::new(),
        from,
        Vec::new(),
    );
    while at - from < PAGE_BYTES && reader.read_until(b'\n', &mut line)? > 0 {
        let Some((time, _, text)) = decode(&line) else {
            break;
        };
        lines.push(LogLine {
            at: time,
            text: String::from_utf8_lossy(text).into_owned(),
        });
        at += line.len() as u64;
        line.clear();
    }
    let more = !lines.is_empty() && at < size;
    Ok(Some(LogPage {
        lines,
        next: Some(at.to_string()),
        more,
    }))
}

/// Whether a line begins at this byte. The next read of the file starts there.
fn begins_a_line(file: &mut File, at: u64) -> io::Result<bool> {
    let mut before = [b'\n'];
    if at > 0 {
        file.seek(SeekFrom::Start(at - 1))?;
        file.read_exact(&mut before)?;
    }
    Ok(before == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write as _};

    use domain::Timestamp;
    use runner::log::{CHARACTER_MAX, LogWriter, PART_MAX};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_timestamp_millis(1_764_000_000_000).expect("in range")
    }

    fn texts(path: &Path) -> Vec<String> {
        page(path, 0)
            .expect("it is read")
            .expect("a page")
            .lines
            .into_iter()
            .map(|line| line.text)
            .collect()
    }

    #[test]
    fn what_is_written_in_pieces_is_read_in_lines() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.log");
        let mut log = LogWriter::open(&path).expect("opens");
        for piece in ["one\ntw", "o\n", "\nthree"] {
            log.append(now(), piece.as_bytes()).expect("appends");
        }
        assert_eq!(texts(&path), ["one", "two", ""]);
        log.finish(now()).expect("finishes");
        assert_eq!(texts(&path), ["one", "two", "", "three"]);
        assert_eq!(log.taken(), 14);
    }

    #[test]
    fn after_a_crash_it_goes_on_where_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.log");
        let mut log = LogWriter::open(&path).expect("opens");
        log.append(now(), b"one\ntwo\nthr").expect("appends");
        drop(log);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("opens")
            .write_all(b"2026-11-24T00:00:00.000Z F to")
            .expect("tears");
        let log = LogWriter::open(&path).expect("opens again");
        assert_eq!(
            log.taken(),
            8,
            "the torn line and the unfinished one are to be written again"
        );
        assert_eq!(texts(&path), ["one", "two"]);
    }

    #[test]
    fn a_very_long_line_comes_in_parts_and_is_counted_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.log");
        let mut log = LogWriter::open(&path).expect("opens");
        let long = vec![b'x'; PART_MAX * 2 + 10];
        log.append(now(), &long).expect("appends");
        log.append(now(), b"\nend\n").expect("appends");
        assert_eq!(log.taken(), (PART_MAX * 2 + 10 + 5) as u64);
        assert_eq!(LogWriter::open(&path).expect("opens").taken(), log.taken());
        assert_eq!(texts(&path).last().map(String::as_str), Some("end"));
    }

    /// Writes these pieces of output to a log, and returns its lines.
    fn written(pieces: &[&[u8]]) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.log");
        let mut log = LogWriter::open(&path).expect("opens");
        for piece in pieces {
            log.append(now(), piece).expect("appends");
        }
        log.finish(now()).expect("finishes");
        assert_eq!(
            log.taken(),
            pieces.iter().map(|piece| piece.len() as u64).sum::<u64>()
        );
        let (mut lines, mut from) = (Vec::new(), 0);
        loop {
            let page = page(&path, from).expect("it is read").expect("a page");
            lines.extend(page.lines.into_iter().map(|line| line.text));
            from = page.next.expect("a cursor").parse().expect("a number");
            if !page.more {
                return lines;
            }
        }
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        for character in ["é", "☃", "😀"] {
            for before in 0..=CHARACTER_MAX {
                let text = "x".repeat(PART_MAX - before) + &character.repeat(PART_MAX);
                let line = text.clone() + "\n";
                // The line arrives whole, or split so that the character at the limit comes in two
                // pieces.
                for torn in [line.len(), PART_MAX + 1, PART_MAX + 2] {
                    let (first, second) = line.as_bytes().split_at(torn);
                    let lines = written(&[first, second, b"next\n"]);
                    let (next, parts) = lines.split_last().expect("lines");
                    assert_eq!(next, "next");
                    assert!(
                        parts.concat() == text,
                        "{character} {before} before the limit, torn at {torn}"
                    );
                    assert!(parts.iter().all(|part| part.len() <= PART_MAX));
                    let all_but_the_last = &parts[..parts.len() - 1];
                    assert!(
                        all_but_the_last
                            .iter()
                            .all(|part| part.len() > PART_MAX - CHARACTER_MAX),
                        "no part too many"
                    );
                }
            }
        }
    }

    #[test]
    fn a_line_as_long_as_a_part_may_be_is_one() {
        let text = "x".repeat(PART_MAX);
        let line = text.clone() + "\n";
        for torn in [line.len(), PART_MAX, 10] {
            let (first, second) = line.as_bytes().split_at(torn);
            assert!(
                written(&[first, second, b"next\n"]) == [text.as_str(), "next"],
                "torn at {torn}"
            );
        }
        let over = format!("{text}y\n");
        assert!(written(&[over.as_bytes()]) == [text.as_str(), "y"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_cut_at_the_limit() {
        for byte in [0x80, 0xc3, 0xe2, 0xff] {
            let bytes = [byte; PART_MAX + 1];
            let parts = written(&[&bytes]);
            let characters = parts.iter().map(|part| part.chars().count());
            assert_eq!(characters.collect::<Vec<_>>()[1..], [1], "{byte:x}");
        }
        // A whole character before the limit, and after it a byte that belongs to no character.
        let odd = [vec![b'x'; PART_MAX - 2], "é".into(), vec![0x80, b'y']].concat();
        assert_eq!(written(&[&odd])[1], "\u{fffd}y");
    }

    #[test]
    fn pages_join_without_gap_or_repeat() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.log");
        let mut log = LogWriter::open(&path).expect("opens");
        let lines: Vec<_> = (0..50_000).map(|n| format!("{n:060}")).collect();
        log.append(now(), (lines.join("\n") + "\n").as_bytes())
            .expect("appends");
        let (mut seen, mut from) = (Vec::new(), 0);
        loop {
            let page = page(&path, from).expect("it is read").expect("a page");
            seen.extend(page.lines.into_iter().map(|line| line.text));
            from = page.next.expect("a cursor").parse().expect("a number");
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, lines);
    }
}
