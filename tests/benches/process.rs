//! A process that is started to be measured.

use std::{
    fs,
    process::{Child, Command},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// A process that is ended when this is dropped, also after a panic.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub(crate) fn of(command: &mut Command) -> Self {
        Self(
            command
                .spawn()
                .unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program())),
        )
    }

    /// The processor time of its threads that are still running.
    ///
    /// # Panics
    /// If it has ended.
    pub(crate) fn busy(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0.id()))
            .expect("it runs")
            .flatten();
        // A thread may end meanwhile. The first number is nanoseconds on a processor (the kernel's
        // `sched-stats`).
        let times =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
        times
            .filter_map(|time| Some(Duration::from_nanos(time.split(' ').next()?.parse().ok()?)))
            .sum()
    }

    /// The processor time of all its threads, including those that have ended, to a hundredth of a
    /// second.
    ///
    /// # Panics
    /// If it has ended.
    pub(crate) fn spent(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        // The numbers follow the name, which may contain any character. The 12th and 13th are the
        // times in user and in kernel mode (proc_pid_stat(5)).
        let (_, numbers) = stat.rsplit_once(") ").expect("its name");
        let ticks = numbers
            .split(' ')
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().expect("a number"));
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// A size from `/proc/PID/status`, in bytes.
    pub(crate) fn memory(&self, name: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .expect("its memory");
        let kilobytes: f64 = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number");
        kilobytes * 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _gone = kill_process(pid, Signal::TERM);
        }
        let _ended = self.0.wait();
    }
}
