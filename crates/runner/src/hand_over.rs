//! The hand-over of a repository from the container `fetch` of a task to the container `main`. The
//! two share a folder and nothing else, neither processes nor signals.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    process, thread,
    time::{Duration, Instant, SystemTime},
};

use serde::Deserialize;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    fetch::{self, Endpoint},
    order::{
        AwaitFetchOrder, FetchFault, FetchOrder, FetchOutcome, FetchedCommit, HandedOver, place,
    },
};

/// How often `fetch` shows that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// How long `fetch` may show nothing. The disk that both share may be busy for a while.
const SILENCE: Duration = Duration::from_secs(30);
/// How often `main` looks for the result.
const LOOK: Duration = Duration::from_millis(100);
/// How often `main` asks ECS for the state of `fetch`. The task metadata endpoint takes 40 requests
/// a second (ECS Developer Guide, "Task metadata endpoint version 4").
const ASK: Duration = Duration::from_secs(2);
/// The name of the file whose time shows that `fetch` lives.
const HEARTBEAT: &str = "heartbeat";
/// The exit status of a process that TERM ended: 128 and its number.
const EXIT_TERMINATED: i32 = 143;
/// The exit status of a process that KILL ended. The kernel does it for want of memory.
const EXIT_KILLED: i32 = 137;

/// Fetches a repository for the container `main`, and puts it or the reason for its absence into
/// the folder [`place::HANDED_OVER`] of the workspace. Returns whether it is there.
///
/// # Errors
/// When the result cannot be handed over.
pub fn fetch_for_main(order: &FetchOrder, workspace: &Path) -> io::Result<bool> {
    end_when_told()?;
    let folder = workspace.join(place::HANDED_OVER);
    fs::create_dir_all(&folder)?;
    let heartbeat = File::create(folder.join(HEARTBEAT))?;
    // The thread that fetches may wait for the log.
    thread::spawn(move || {
        loop {
            let _full_disk = heartbeat.set_modified(SystemTime::now());
            thread::sleep(BEAT);
        }
    });
    let mut log = Notes::default();
    let outcome = match fetch::fetch_in_child(order, &mut log) {
        Ok(fetched) => FetchOutcome::Done(fetched),
        Err(fault) => {
            let _lost = writeln!(io::stderr(), "mycli: {fault}");
            FetchOutcome::Failed(fault)
        }
    };
    let is_there = matches!(outcome, FetchOutcome::Done(_));
    let handed_over = HandedOver {
        outcome,
        notes: log.lines(),
    };
    hand_over(&folder, &handed_over)?;
    Ok(is_there)
}

/// As process 1 of its container this process has no signal handlers but its own.
fn end_when_told() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            process::exit(EXIT_TERMINATED);
        }
    });
    Ok(())
}

/// Nobody sees a part of it.
fn hand_over(folder: &Path, handed_over: &HandedOver) -> io::Result<()> {
    let draft = folder.join(format!("{}.new", place::OUTCOME));
    fs::write(&draft, serde_json::to_vec(handed_over)?)?;
    fs::rename(draft, folder.join(place::OUTCOME))
}

/// The notes of a fetch. They go to its own log, and to the log of `main` with the result.
#[derive(Default)]
struct Notes(Vec<u8>);

impl Notes {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0);
        text.lines().map(str::to_owned).collect()
    }
}

impl Write for Notes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _lost = io::stderr().write_all(bytes);
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until `fetch` has handed its result over. The caller bounds the time.
///
/// # Errors
/// The reason for a missing repository: the one that `fetch` gives, or that it can give none any
/// more.
pub fn await_fetch(order: &AwaitFetchOrder) -> Result<FetchedCommit, FetchFault> {
    let mut watch = FetchWatch::new(order);
    loop {
        if let Some(handed_over) = look(&order.folder)? {
            return match handed_over.outcome {
                FetchOutcome::Done(fetched) => Ok(fetched),
                FetchOutcome::Failed(fault) => Err(fault),
            };
        }
        if let Some(fault) = watch.death() {
            // It may have ended right after its last act.
            return match look(&order.folder)? {
                Some(_) => continue,
                None => Err(fault),
            };
        }
        thread::sleep(LOOK);
    }
}

/// The result, once it is there.
///
/// # Errors
/// When it cannot be read.
pub fn look(folder: &Path) -> Result<Option<HandedOver>, FetchFault> {
    let path = folder.join(place::OUTCOME);
    let unreadable =
        |error: String| FetchFault::last(format!("{} cannot be read: {error}", path.display()));
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| unreadable(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// The signs of life of `fetch`.
struct FetchWatch<'a> {
    order: &'a AwaitFetchOrder,
    endpoint: Option<Endpoint>,
    asked_at: Instant,
    /// The time in its heartbeat, and when it was first seen.
    beat: Option<(SystemTime, Instant)>,
}

impl<'a> FetchWatch<'a> {
    fn new(order: &'a AwaitFetchOrder) -> Self {
        let endpoint = order.metadata.as_deref().and_then(|metadata| {
            let address = format!("{}/task", metadata.trim_end_matches('/'));
            Endpoint::new(&address).ok()
        });
        Self {
            order,
            endpoint,
            asked_at: Instant::now(),
            beat: None,
        }
    }

    /// Why no result can come any more.
    fn death(&mut self) -> Option<FetchFault> {
        self.is_silent()
            .then(|| FetchFault::last("the container fetch ended without a result"))
            .or_else(|| self.ask())
    }

    /// Whether its heartbeat has stopped. One that has not begun may still wait for its image.
    fn is_silent(&mut self) -> bool {
        let path = self.order.folder.join(HEARTBEAT);
        let Ok(at) = fs::metadata(path).and_then(|file| file.modified()) else {
            return false;
        };
        match self.beat {
            Some((last, since)) if last == at => since.elapsed() > SILENCE,
            _ => {
                self.beat = Some((at, Instant::now()));
                false
            }
        }
    }

    /// Its end, if ECS knows of one. No answer means nothing.
    fn ask(&mut self) -> Option<FetchFault> {
        let endpoint = self.endpoint.as_ref()?;
        if self.asked_at.elapsed() < ASK {
            return None;
        }
        self.asked_at = Instant::now();
        let task: TaskMetadata = serde_json::from_slice(&endpoint.get().ok()?).ok()?;
        task.fetch_fault()
    }
}

/// A task, as its metadata endpoint shows it (ECS Developer Guide, "Task metadata endpoint version
/// 4": the fields begin with capitals).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskMetadata {
    #[serde(default)]
    containers: Vec<ContainerMetadata>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerMetadata {
    name: String,
    #[serde(default)]
    known_status: String,
    #[serde(default)]
    exit_code: Option<i32>,
}

impl TaskMetadata {
    fn fetch_fault(&self) -> Option<FetchFault> {
        let is_it = |one: &&ContainerMetadata| {
            one.name == domain::container::FETCH && one.known_status == "STOPPED"
        };
        let stopped = self.containers.iter().find(is_it)?;
        Some(FetchFault::last(match stopped.exit_code {
            Some(EXIT_KILLED) => {
                "the container fetch was killed, most likely because it ran out of memory: give the run more (--memory)"
                    .to_owned()
            }
            Some(code) => {
                format!("the container fetch ended without a result, with exit code {code}")
            }
            None => "the container fetch could not be started".to_owned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str) -> Option<String> {
        let task: TaskMetadata = serde_json::from_str(json).expect("ECS's JSON");
        task.fetch_fault().map(|fault| fault.reason)
    }

    #[test]
    fn only_a_stopped_fetch_is_dead() {
        let runs = r#"{"Containers":[{"Name":"main","KnownStatus":"RUNNING"},{"Name":"fetch","KnownStatus":"RUNNING"}]}"#;
        assert_eq!(fault(runs), None);
        assert_eq!(fault(r#"{"TaskARN":"x"}"#), None);
        let with = |code: &str| {
            fault(&format!(
                r#"{{"Containers":[{{"Name":"fetch","KnownStatus":"STOPPED"{code}}}]}}"#
            ))
            .expect("dead")
        };
        assert!(with(r#","ExitCode":137"#).contains("out of memory"));
        assert!(with(r#","ExitCode":2"#).contains("exit code 2"));
        assert!(with("").contains("could not be started"));
    }
}
