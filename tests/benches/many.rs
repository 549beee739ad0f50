//! Many commands at once: how fast a line drains.

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
};

/// Commands in one round.
const COUNT: usize = 1000;
/// Fewer for pueue, which would take minutes: it starts what waits three times a second.
const PUEUE_COUNT: usize = 120;
/// Rounds, in turns with `xargs`.
const ROUNDS: usize = 3;
/// vCPUs of the server; a command of 256 CPU units takes a quarter of one.
const VCPUS: u32 = 1;
/// Commands at once, the same for all.
const PARALLEL: usize = 4;

/// Compares `mycli local serve` with pueue, which keeps what it ran too, and with `xargs -P`, which keeps nothing.
pub(crate) fn compare() -> String {
    programs::require(&["xargs", "pueue", "pueued"]);
    let programs = &Programs::find();
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.push(xargs());
        ours.push(mycli(programs));
    }
    let pueue = rate(PUEUE_COUNT, Daemon::start(PARALLEL).run(PUEUE_COUNT, "true"));
    let ours = rate(COUNT, Times::of(ours).median());
    let floor = rate(COUNT, Times::of(floor).median());
    format!(
        "## Many commands\n\n\
         {COUNT} times `true`, {PARALLEL} at once, from the first request until all are final; medians of {ROUNDS} rounds, in turns. \
         pueue: {PUEUE_COUNT} times, once.\n\n\
         | | commands a second | mycli is |\n|---|---|---|\n\
         | `mycli local serve`, `POST /execute` over one connection | {ours:.0} | |\n\
         | `pueue add` | {pueue:.1} | **{:.1} × as fast** (aim: at least 20 ×) |\n\
         | `xargs -P{PARALLEL} sh -c true` | {floor:.0} | **{:.2} of it** (aim: at least 0.2) |\n",
        ours / pueue,
        ours / floor,
    )
}

#[expect(clippy::cast_precision_loss, reason = "a thousand")]
fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn mycli(programs: &Programs) -> Duration {
    let server = Server::start(programs, VCPUS);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..COUNT {
            let _id = server.submit("true").await;
        }
        while !server.is_idle().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let took = start.elapsed();
        assert_eq!(server.succeeded().await, COUNT, "every command succeeded");
        took
    })
}

fn xargs() -> Duration {
    let start = Instant::now();
    let mut process = Command::new("xargs")
        .args(["-n1", &format!("-P{PARALLEL}"), "sh", "-c", "true"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("xargs");
    let words: String = (0..COUNT).map(|number| format!("{number}\n")).collect();
    process.stdin.take().expect("its input").write_all(words.as_bytes()).expect("it reads");
    assert!(process.wait().expect("it ends").success());
    start.elapsed()
}
