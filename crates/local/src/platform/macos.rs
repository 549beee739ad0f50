//! macOS. It has no `/proc`, and its calls for looking at processes need unsafe code. Its own
//! programs give the same facts.
//!
//! Written from their manuals and not yet tested on a Mac.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use chrono::NaiveDateTime;

use super::{Mark, Process};

/// Whether programs for this system run in containers. They are for Linux.
pub(crate) const IS_A_CONTAINERS: bool = false;

/// Whether a keeper adopts the orphans of its command. macOS cannot do that.
pub(crate) const KEEPERS_ADOPT: bool = false;
/// How often to look at a process that is not a child of this one. A look starts a program that
/// takes some milliseconds, so 250 ms keep the cost low.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// The columns that `ps` prints for one process: ps(1), without a header.
const OF_ONE: [&str; 6] = ["-o", "pgid=", "-o", "stat=", "-o", "lstart="];
/// The columns that it prints for all processes. `-E` adds the environment to the command, as far
/// as the system shows it.
const OF_ALL: [&str; 7] = ["-axEww", "-o", "pid=", "-o", "pgid=", "-o", "command="];
/// The format of `lstart`, in UTC and the C locale.
const LSTART: &str = "%a %b %e %H:%M:%S %Y";

/// The id of the current boot.
pub(crate) fn boot() -> Option<String> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        said("/usr/sbin/sysctl", &["-n", "kern.bootsessionuuid"]).map(|boot| boot.trim().to_owned())
    };
    BOOT.get_or_init(ask).clone()
}

/// Returns the process with this pid.
pub(crate) fn process(pid: i32) -> Option<Process> {
    read_process(&said(
        "/bin/ps",
        &[&OF_ONE[..], &["-p", &pid.to_string()]].concat(),
    )?)
}

/// Parses group, state (a zombie's begins with Z) and start time.
fn read_process(line: &str) -> Option<Process> {
    let (group, rest) = line.trim().split_once(' ')?;
    let (state, started) = rest.trim_start().split_once(' ')?;
    let started = NaiveDateTime::parse_from_str(started.trim(), LSTART).ok()?;
    Some(Process {
        group: group.parse().ok()?,
        start_time: u64::try_from(started.and_utc().timestamp()).ok()?,
        is_zombie: state.starts_with('Z'),
    })
}

/// Does nothing. macOS cannot adopt orphans, so they are found by their mark alone.
pub(crate) fn adopt_orphans() {}

/// Empty: no orphans are adopted, and other children are reaped where they were started.
pub(crate) fn own_children() -> Vec<i32> {
    Vec::new()
}

/// The processes and zombies with this mark. A process that left its group is found only if the
/// system shows its environment, which it does not for its own programs.
pub(crate) fn remains(mark: Mark<'_>, _thorough: bool) -> Vec<i32> {
    find(|group, command| Some(group) == mark.group || carries(command, mark.variable))
}

/// Finds the other processes for which `is_wanted`, called with group and command, is true.
fn find(is_wanted: impl Fn(i32, &str) -> bool) -> Vec<i32> {
    let all = said("/bin/ps", &OF_ALL).unwrap_or_default();
    let own = std::process::id().cast_signed();
    let wanted = all
        .lines()
        .filter_map(read_line)
        .filter(|(pid, group, command)| *pid != own && is_wanted(*group, command));
    wanted.map(|(pid, ..)| pid).collect()
}

/// Parses pid, group, and command with environment.
fn read_line(line: &str) -> Option<(i32, i32, &str)> {
    let (pid, rest) = line.trim_start().split_once(' ')?;
    let (group, command) = rest.trim_start().split_once(' ')?;
    Some((pid.parse().ok()?, group.parse().ok()?, command))
}

/// Whether the command's text contains this variable between spaces. Its value may contain spaces.
fn carries(command: &str, variable: &str) -> bool {
    command.match_indices(variable).any(|(at, _)| {
        let (before, after) = (&command[..at], &command[at + variable.len()..]);
        before.ends_with(' ') && (after.is_empty() || after.starts_with(' '))
    })
}

/// Makes a named pipe that only its owner may use.
pub(crate) fn make_pipe(path: &Path) -> io::Result<()> {
    let made = Command::new("/usr/bin/mkfifo")
        .args(["-m", "600", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .output()?;
    if made.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(
            String::from_utf8_lossy(&made.stderr).trim().to_owned(),
        ))
    }
}

/// Runs one of the system's programs. Returns its output if it succeeds.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("TZ", "UTC0")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux's `ps` (procps) has the same options.
    #[test]
    fn a_process_is_read_from_what_ps_says() {
        let pid = std::process::id().cast_signed();
        let seen = process(pid).expect("ps tells of it");
        let group = rustix::process::getpgrp().as_raw_nonzero().get();
        let now = u64::try_from(chrono::Utc::now().timestamp()).expect("after 1970");
        assert_eq!((seen.group, seen.is_zombie), (group, false));
        assert!(
            (now - 3600..=now + 60).contains(&seen.start_time),
            "{seen:?} at {now}"
        );
        assert_eq!(process(pid), Some(seen), "the same at each look");
        assert_eq!(process(i32::MAX), None);
    }

    /// The format of macOS's ps(1): right-aligned numbers, a state of several letters, a day of the
    /// month without a leading zero.
    #[test]
    fn lines_of_macos_are_read() {
        let line = "  501 Ss+  Thu Nov  5 09:07:03 2026    \n";
        let read = Process {
            group: 501,
            start_time: 1_793_869_623,
            is_zombie: false,
        };
        assert_eq!(read_process(line), Some(read));
        assert!(
            read_process("501 Z Thu Nov  5 09:07:03 2026").is_some_and(|process| process.is_zombie)
        );
        assert_eq!(read_process(""), None);
    }

    #[test]
    fn a_variable_is_found_whole_in_a_command_with_its_environment() {
        let line = "   42    40 sleep 5 HOME=/x MYCLI_ATTEMPT_ID=exec_A-1 READS=/a folder/b TERM=x";
        let (pid, group, command) = read_line(line).expect("a line");
        assert_eq!((pid, group), (42, 40));
        for (variable, is_there) in [
            ("MYCLI_ATTEMPT_ID=exec_A-1", true),
            ("READS=/a folder/b", true),
            ("TERM=x", true),
            ("MYCLI_ATTEMPT_ID=exec_A", false),
            ("ATTEMPT_ID=exec_A-1", false),
        ] {
            assert_eq!(carries(command, variable), is_there, "{variable}");
        }
        assert_eq!(read_line(""), None);
    }

    #[test]
    fn a_pipe_is_made_for_its_owner() {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        make_pipe(&path).expect("it is made");
        let metadata = std::fs::metadata(&path).expect("it is there");
        assert!(metadata.file_type().is_fifo() && metadata.mode() & 0o777 == 0o600);
        assert!(make_pipe(&path).is_err(), "it is there already");
    }
}
