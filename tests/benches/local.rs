//! One machine: what a run costs beside the shell, `xargs`, pueue and a bare container.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tests::engine::{DEBIAN, DEBIAN_GIT, Engine};

use crate::{
    many::{self, COUNT, LONG, PARALLEL, PUEUE_COUNT},
    one,
    programs::{self, Programs},
    pueue::Daemon,
    sample::{self, Times},
};

/// Pairs of each comparison.
const PAIRS: usize = 5;
/// How often the one command is run.
const ROUNDS: usize = 50;
/// The variable that names an older mycli, whose containers ran a script.
const OLD: &str = "MYCLI_BENCH_OLD";

/// Compares runs on one machine with what does less.
pub(crate) fn compare() -> String {
    programs::require(&["xargs", "pueue", "pueued"]);
    let programs = &Programs::find();
    let (ours, shell) = one::times(ROUNDS);
    let more = ours.median_millis() - shell.median_millis();
    let drained = |count| many::mycli(programs, count).took;
    let (rates, floor) = sample::pairs(PAIRS, || drained(COUNT), many::xargs);
    let (ours_rate, floor_rate) = (
        many::rate(COUNT, rates.median()),
        many::rate(COUNT, floor.median()),
    );
    let long = many::rate(LONG, drained(LONG));
    let pueue = many::rate(
        PUEUE_COUNT,
        Daemon::start(PARALLEL).run(PUEUE_COUNT, "true"),
    );
    let (of_xargs, of_pueue) = (ours_rate / floor_rate, ours_rate / pueue);
    let first = first_lines(programs);
    format!(
        "## One machine\n\n\
         Medians of {PAIRS} pairs in turns; the one command {ROUNDS} times; pueue ({PUEUE_COUNT} times) and {LONG} once.\n\n\
         | | figure | aim |\n|---|---|---|\n\
         | `exec --local true` takes more than `sh -c true` | **{more:.1} ms** | at most 8 ms |\n\
         | {COUNT} times `true` by `local serve`: {ours_rate:.0} a second; `xargs -P{PARALLEL}`: {floor_rate:.0} | **{of_xargs:.2}** of it | at least 0.25 |\n\
         | pueue: {pueue:.1} a second | **{of_pueue:.1} ×** | at least 25 × |\n\
         | {LONG} times `true`: {long:.0} a second | **{:.2}** of the rate with {COUNT} | at least 1 |\n\
         {first}\n\
         In short: {more:.1} ms over sh, {of_xargs:.2} of xargs, {of_pueue:.1} x pueue, {:.2} with ten times as many.\n",
        long / ours_rate,
        long / ours_rate,
    )
}

/// The time to the first line of a command on a clone in a container, beside that of a bare
/// container.
fn first_lines(programs: &Programs) -> String {
    let folder = tempfile::tempdir().expect("a directory");
    let repo = repository(folder.path());
    let home = |name: &str| {
        let home = folder.path().join(name);
        fs::create_dir_all(&home).expect("a directory");
        home
    };
    let run = |mycli: &Path, home: &Path, image: &str| {
        let mut command = Command::new(mycli);
        command
            .args(["exec", "--local", "--image", image, "--repo"])
            .args([&*repo.display().to_string(), "echo first; cat f"])
            .env("MYCLI_HOME", home)
            .env("DOCKER_HOST", Engine::shared().docker_host());
        to_first_line(&mut command)
    };
    let bare = || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/images/engine.sh");
        let mut command = Command::new(script);
        command.args(["podman", "run", "--rm", DEBIAN, "echo", "first"]);
        to_first_line(&mut command)
    };
    let ours = home("ours");
    let (new, floor) = sample::pairs(PAIRS, || run(&programs.mycli, &ours, DEBIAN), bare);
    let mut rows = vec![format!(
        "| first line on a clone, image without git: {}; a bare container: {} | **{:.2} ×** | |",
        millis(&new),
        millis(&floor),
        new.median_millis() / floor.median_millis()
    )];
    if let Some(old) = env::var_os(OLD).map(PathBuf::from) {
        let theirs = home("theirs");
        let (new, old) = sample::pairs(
            PAIRS,
            || run(&programs.mycli, &ours, DEBIAN_GIT),
            || run(&old, &theirs, DEBIAN_GIT),
        );
        rows.push(format!(
            "| the same, image with git: {}; the script of {OLD}: {} | **{:.2} ×** | |",
            millis(&new),
            millis(&old),
            new.median_millis() / old.median_millis()
        ));
    }
    rows.join("\n") + "\n"
}

fn millis(times: &Times) -> String {
    format!("{:.0} ms", times.median_millis())
}

/// How long a command takes to print its first line.
fn to_first_line(command: &mut Command) -> Duration {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command can be started");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    output.read_line(&mut line).expect("it prints");
    let took = start.elapsed();
    assert_eq!(line, "first\n");
    let mut rest = String::new();
    while output.read_line(&mut rest).expect("it prints") > 0 {}
    assert!(child.wait().expect("it ends").success());
    took
}

/// A repository with one file.
fn repository(folder: &Path) -> PathBuf {
    let repo = folder.join("repo");
    fs::create_dir(&repo).expect("a directory");
    fs::write(repo.join("f"), "file\n").expect("a file");
    for words in [
        &["init", "-q", "-b", "main"][..],
        &["add", "."],
        &["commit", "-q", "-m", "one"],
    ] {
        let status = Command::new("git")
            .current_dir(&repo)
            .args([
                "-c",
                "user.name=bench",
                "-c",
                "user.email=bench@example.com",
            ])
            .args(words)
            .status();
        assert!(status.expect("git").success());
    }
    repo
}
