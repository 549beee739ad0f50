//! One command: what mycli adds to the bare shell.

use std::process::Command;

use crate::{
    programs::Programs,
    sample::{self, Times},
};

/// How often each command is run.
const ROUNDS: usize = 50;

/// The times of `mycli exec --local true` and of `sh -c true`, this many of each in turns.
pub(crate) fn times(rounds: usize) -> (Times, Times) {
    let programs = Programs::find();
    let home = tempfile::tempdir().expect("a directory");
    let mycli = || {
        let mut command = Command::new(&programs.mycli);
        command
            .args(["exec", "--local", "--no-repo", "true"])
            .current_dir(home.path())
            .env("MYCLI_HOME", home.path());
        sample::time(&mut command)
    };
    let shell = || sample::time(Command::new("sh").args(["-c", "true"]));
    sample::in_turns(rounds, mycli, shell)
}

/// Compares `mycli exec --local` with `sh -c`.
pub(crate) fn compare() -> String {
    let (ours, theirs) = times(ROUNDS);
    let more = ours.median_millis() - theirs.median_millis();
    format!(
        "## One command\n\n\
         {ROUNDS} of each, in turns.\n\n\
         | command | median | range |\n|---|---|---|\n\
         | `mycli exec --local --no-repo true` | {} |\n\
         | `sh -c true` | {} |\n\n\
         Added: **{more:.1} ms** (aim: at most 30 ms).\n",
        ours.cells(),
        theirs.cells(),
    )
}
