//! One command: what mycli adds to the bare shell.

use std::process::Command;

use crate::{programs::Programs, sample};

/// How often each command is run.
const ROUNDS: usize = 50;

/// Compares `mycli exec --local` with `sh -c`.
pub(crate) fn compare() -> String {
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
    let (ours, theirs) = sample::in_turns(ROUNDS, mycli, shell);
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
