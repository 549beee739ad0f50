//! Many commands at the same time: how fast a backlog drains.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::runtime::Builder;

use crate::{
    programs::{self, Programs},
    pueue::Daemon,
    sample::Times,
    server::Server,
    slurm::{Cluster, Settings},
};

/// Commands in one round.
pub(crate) const COUNT: usize = 1000;
/// Fewer for pueue, which would take minutes: it starts waiting commands three times a second.
pub(crate) const PUEUE_COUNT: usize = 120;
/// Fewer for Slurm with its default settings, for the same reason.
const SLURM_COUNT: usize = 30;
/// More for mycli, to see whether a long backlog and a long history slow it down.
pub(crate) const LONG: usize = 10_000;
/// Rounds, alternating with `xargs`.
const ROUNDS: usize = 3;
/// vCPUs of the server; a command of 256 CPU units takes a quarter of one.
const VCPUS: u32 = 1;
/// Commands that run at the same time, the same number for all.
pub(crate) const PARALLEL: usize = 4;

/// Compares `mycli local serve` with pueue and Slurm, which also keep a record of what they ran,
/// and with `xargs -P`, which keeps none.
pub(crate) fn compare() -> String {
    programs::require(&[
        "xargs",
        "pueue",
        "pueued",
        "sbatch",
        "slurmctld",
        "slurmd",
        "munged",
    ]);
    let programs = &Programs::find();
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    let mut round = || {
        floor.push(xargs());
        ours.push(mycli(programs, COUNT));
    };
    (0..ROUNDS - 1).for_each(|_| round());
    let long = mycli(programs, LONG);
    round();
    let tuned = rate(COUNT, Cluster::start(PARALLEL, Settings::Tuned).run(COUNT));
    let slurm = rate(
        SLURM_COUNT,
        Cluster::start(PARALLEL, Settings::Default).run(SLURM_COUNT),
    );
    let pueue = rate(
        PUEUE_COUNT,
        Daemon::start(PARALLEL).run(PUEUE_COUNT, "true"),
    );
    let (took, spent) = ours
        .into_iter()
        .map(|drained| (drained.took, drained.spent))
        .unzip();
    let (ours, spent) = (
        rate(COUNT, Times::of(took).median()),
        a_run(COUNT, Times::of(spent).median()),
    );
    let (rate_of_long, spent_on_long) = (rate(LONG, long.took), a_run(LONG, long.spent));
    let floor = rate(COUNT, Times::of(floor).median());
    format!(
        "## Many commands\n\n\
         {COUNT} times `true`, {PARALLEL} at once, from the first request until all are final; medians of {ROUNDS} rounds, in turns. \
         Once: {LONG} before the last round, Slurm, Slurm as it comes ({SLURM_COUNT} times) and pueue ({PUEUE_COUNT} times).\n\n\
         | | commands a second | mycli is |\n|---|---|---|\n\
         | `mycli local serve`, `POST /execute` over one connection; its server takes {spent:.2} ms of processor time a run | {ours:.0} | |\n\
         | the same with {LONG}; {spent_on_long:.2} ms | {rate_of_long:.0} | **{:.2} of the rate with {COUNT}** (aim: about 1), {:.2} × the server's processor time |\n\
         | `pueue add` | {pueue:.1} | **{:.1} × as fast** (aim: at least 20 ×) |\n\
         | Slurm, `sbatch --array`, tuned | {tuned:.1} | **{:.1} × as fast** (aim: ahead) |\n\
         | Slurm, `sbatch --array`, as it comes | {slurm:.1} | {:.1} × as fast |\n\
         | `xargs -P{PARALLEL} sh -c true` | {floor:.0} | **{:.2} of it** (aim: at least 0.2) |\n",
        rate_of_long / ours,
        spent_on_long / spent,
        ours / pueue,
        ours / tuned,
        ours / slurm,
        ours / floor,
    )
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Milliseconds for each of `count` runs.
#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn a_run(count: usize, spent: Duration) -> f64 {
    spent.as_secs_f64() * 1000.0 / count as f64
}

/// A backlog that was drained.
pub(crate) struct Drained {
    /// From the first request until all are final.
    pub(crate) took: Duration,
    /// The server's processor time.
    spent: Duration,
}

pub(crate) fn mycli(programs: &Programs, count: usize) -> Drained {
    let server = Server::start(programs, VCPUS);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..count {
            let _id = server.submit("true").await;
        }
        while !server.is_idle().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let drained = Drained {
            took: start.elapsed(),
            spent: server.spent(),
        };
        assert_eq!(server.succeeded().await, count, "every command succeeded");
        drained
    })
}

pub(crate) fn xargs() -> Duration {
    let start = Instant::now();
    let mut process = Command::new("xargs")
        .args(["-n1", &format!("-P{PARALLEL}"), "sh", "-c", "true"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("xargs");
    let words: String = (0..COUNT).map(|number| format!("{number}\n")).collect();
    process
        .stdin
        .take()
        .expect("its input")
        .write_all(words.as_bytes())
        .expect("it reads");
    assert!(process.wait().expect("it ends").success());
    start.elapsed()
}
