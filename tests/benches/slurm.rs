//! Slurm, the peer for many commands on one machine among cluster schedulers, with one node on
//! loopback, run from its own folder.

use std::{
    fmt, fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::process::Process;

/// A limit for a hang: until its daemons answer, or an array is done.
const PATIENCE: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_millis(50);

/// The settings of its scheduler.
#[derive(Clone, Copy)]
pub(crate) enum Settings {
    /// The default: it looks for jobs to start some seconds apart.
    Default,
    /// The settings for many short jobs, from its High Throughput Computing Guide: no pause between
    /// two looks, none after a submission, first come first served, the whole queue looked at,
    /// little logged.
    Tuned,
}

impl fmt::Display for Settings {
    /// The settings as lines of `slurm.conf`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "",
            Self::Tuned => {
                "SchedulerType=sched/builtin\n\
                 SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,sched_interval=1,default_queue_depth=10000\n\
                 EpilogMsgTime=0\nSlurmctldDebug=error\nSlurmdDebug=error\nMinJobAge=2\n"
            }
        })
    }
}

/// Its daemons. They end when this is dropped.
pub(crate) struct Cluster {
    // The fields are in the order in which they end.
    _node: Process,
    _controller: Process,
    _munge: Process,
    home: TempDir,
}

impl Cluster {
    /// Starts a cluster with one node that runs `parallel` jobs at the same time.
    pub(crate) fn start(parallel: usize, settings: Settings) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        fs::write(
            home.path().join("slurm.conf"),
            configuration(home.path(), parallel, settings),
        )
        .expect("a file");
        fs::write(home.path().join("munge.key"), [7; 128]).expect("a file");
        let munge = Process::of(&mut munged(home.path()));
        wait_until("munge listens", || {
            home.path().join("munge.socket").exists()
        });
        let controller = Process::of(daemon("slurmctld", home.path()).arg("-c"));
        let node = Process::of(&mut daemon("slurmd", home.path()));
        let cluster = Self {
            _node: node,
            _controller: controller,
            _munge: munge,
            home,
        };
        wait_until("the node is there", || {
            cluster
                .ask(&["sinfo", "-h", "-o", "%T"])
                .is_some_and(|state| state.trim() == "idle")
        });
        cluster
    }

    /// Submits an array of `count` jobs that run `true`, and waits until all have succeeded.
    pub(crate) fn run(&self, count: usize) -> Duration {
        let start = Instant::now();
        let array = format!("--array=1-{count}");
        self.ask(&[
            "sbatch",
            &array,
            "--output=/dev/null",
            "--chdir=/",
            "--wrap=true",
        ])
        .expect("it takes an array");
        wait_until("all jobs have succeeded", || self.completed() == count);
        start.elapsed()
    }

    /// How many jobs have succeeded, by the controller's own record of jobs.
    fn completed(&self) -> usize {
        let record = fs::read_to_string(self.home.path().join("jobs")).unwrap_or_default();
        record
            .lines()
            .filter(|line| line.contains("JobState=COMPLETED"))
            .count()
    }

    /// The answer of one of its programs; `None` if it fails.
    fn ask(&self, words: &[&str]) -> Option<String> {
        let conf = self.home.path().join("slurm.conf");
        let output = Command::new(words[0])
            .args(&words[1..])
            .env("SLURM_CONF", conf)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn munged(home: &Path) -> Command {
    let file = |name: &str| home.join(name).display().to_string();
    let mut command = Command::new("munged");
    command
        .args([
            "--foreground",
            "--force",
            "--key-file",
            &file("munge.key"),
            "--socket",
            &file("munge.socket"),
        ])
        .args([
            "--pid-file",
            &file("munge.pid"),
            "--log-file",
            &file("munge.log"),
            "--seed-file",
            &file("munge.seed"),
        ]);
    quiet(command)
}

fn daemon(name: &str, home: &Path) -> Command {
    let mut command = Command::new(name);
    command.arg("-D").arg("-f").arg(home.join("slurm.conf"));
    quiet(command)
}

fn quiet(mut command: Command) -> Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// One node on loopback that reports `parallel` processors, whatever the machine has.
fn configuration(home: &Path, parallel: usize, settings: Settings) -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let (name, home, ports) = (name.trim(), home.display(), free_ports());
    format!(
        "ClusterName=bench\nSlurmctldHost={name}(127.0.0.1)\nSlurmctldPort={}\nSlurmdPort={}\nSlurmUser=root\n\
         AuthInfo=socket={home}/munge.socket\nStateSaveLocation={home}/state\nSlurmdSpoolDir={home}/spool\n\
         SlurmctldPidFile={home}/slurmctld.pid\nSlurmdPidFile={home}/slurmd.pid\nSlurmctldLogFile={home}/slurmctld.log\n\
         SlurmdLogFile={home}/slurmd.log\nJobCompType=jobcomp/filetxt\nJobCompLoc={home}/jobs\nProctrackType=proctrack/linuxproc\n\
         TaskPlugin=task/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nSlurmdParameters=config_overrides\n\
         ReturnToService=2\n{settings}NodeName={name} NodeAddr=127.0.0.1 CPUs={parallel} State=UNKNOWN\n\
         PartitionName=all Nodes={name} Default=YES State=UP\n",
        ports[0], ports[1],
    )
}

/// Loopback ports that are free now.
fn free_ports() -> [u16; 2] {
    let listeners =
        [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it took too long until {what}");
        thread::sleep(LOOK);
    }
}
