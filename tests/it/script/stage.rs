//! The stage that a script plays on: a shell as `/bin/sh`, an environment, and directories that can
//! be searched afterwards.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::Read,
    os::unix::{
        ffi::OsStrExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use domain::{
    marker::{self, Marker, PREFIX},
    script,
};
use tempfile::TempDir;

/// The attempt's nonce in every test.
pub(crate) const NONCE: &str = "5eed5eed5eed5eed0123456789abcdef";

/// A bound on a hang: longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shell that is `/bin/sh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shell {
    Dash,
    Busybox,
    Bash,
}

pub(crate) const SHELLS: [Shell; 3] = [Shell::Dash, Shell::Busybox, Shell::Bash];

impl Shell {
    pub(crate) fn binary(self) -> &'static str {
        match self {
            Self::Dash => "/usr/bin/dash",
            Self::Busybox => "/usr/bin/busybox",
            Self::Bash => "/usr/bin/bash",
        }
    }
}

/// Waits until a condition holds, for at most [`PATIENCE`].
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A task before its start: its command, its environment and its private directories.
pub(crate) struct Stage {
    shell: Shell,
    root: TempDir,
    env: Vec<(OsString, OsString)>,
    pid_one: bool,
    user: Option<u32>,
    prepare: String,
    root_directory: Option<PathBuf>,
    before: &'static str,
    proc: &'static str,
    told: [&'static str; 2],
}

impl Stage {
    /// A task without a repository, in an empty directory.
    pub(crate) fn new(shell: Shell, command: impl AsRef<OsStr>) -> Self {
        let root = tempfile::Builder::new()
            .prefix("mycli-script-")
            .tempdir()
            .unwrap();
        for directory in ["home", "tmp", "work"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        let path = |name: &str| root.path().join(name).into_os_string();
        let env = vec![
            ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
            ("HOME".into(), path("home")),
            ("TMPDIR".into(), path("tmp")),
            ("MYCLI_COMMAND".into(), command.as_ref().to_owned()),
            ("MYCLI_NONCE".into(), NONCE.into()),
            ("MYCLI_TIMEOUT".into(), "50".into()),
            ("MYCLI_GRACE".into(), "5".into()),
            ("MYCLI_EXECUTION_ID".into(), "exec_1".into()),
            ("MYCLI_ATTEMPT_ID".into(), "exec_1-1".into()),
        ];
        Self {
            shell,
            root,
            env,
            pid_one: false,
            user: None,
            prepare: String::new(),
            root_directory: None,
            before: "",
            proc: "/proc",
            told: [""; 2],
        }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Adds the arguments of a caller that knows this machine's `env`, and perhaps that the
    /// environment holds nothing to hide.
    pub(crate) fn told(self, env: &'static str, open: &'static str) -> Self {
        Self {
            told: [env, open],
            ..self
        }
    }

    /// Passes the nonce not in the environment but in a file, read by a line before the script.
    pub(crate) fn with_nonce_from_a_file(mut self) -> Self {
        self.env.retain(|(name, _)| name != "MYCLI_NONCE");
        fs::write(self.directory("home").join("nonce"), format!("{NONCE}\n")).unwrap();
        Self {
            before: "IFS= read -r MYCLI_NONCE <nonce; rm nonce\n",
            ..self
        }
    }

    /// Simulates a system without `/proc`.
    pub(crate) fn without_proc(self) -> Self {
        Self {
            proc: "/no-proc",
            ..self
        }
    }

    /// Adds a repository, cloned beneath the stage's own directory.
    pub(crate) fn repo(self, url: impl AsRef<OsStr>, reference: &str) -> Self {
        let work = self.directory("work");
        self.env("MYCLI_REPO", url)
            .env("MYCLI_REF", reference)
            .env("MYCLI_WORKDIR", work)
    }

    /// Runs it as pid 1 of a pid namespace, like a container's first process.
    pub(crate) fn with_pid_one(mut self) -> Self {
        self.pid_one = true;
        self
    }

    /// Runs it as an unprivileged user who owns the stage's directories.
    pub(crate) fn with_user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        for directory in ["", "home", "tmp", "work"] {
            std::os::unix::fs::chown(self.root.path().join(directory), Some(uid), Some(uid))
                .unwrap();
        }
        self
    }

    /// Runs it in another root directory, which this shell text makes in the namespace, as root. In
    /// the text `$root` is the directory. The stage's shell becomes its `/bin/sh` afterwards.
    pub(crate) fn in_root(mut self, text: &str) -> Self {
        let directory = self.directory("root");
        fs::create_dir(&directory).unwrap();
        self.prepare = format!("set -e\nroot={}\n{text}\nset +e\n", directory.display());
        self.root_directory = Some(directory);
        self
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Runs the script to its end.
    pub(crate) fn play(self) -> Outcome {
        self.start().end()
    }

    pub(crate) fn start(self) -> Running {
        let (text, [env, open]) = (script::text().replace("/proc", self.proc), self.told);
        let text = format!("{}{text}", self.before);
        self.launch(&["/bin/sh", "-c", &text, "mycli", env, open].map(OsStr::new))
    }

    /// Runs the bare command as `sh -c` would, to compare the script with.
    pub(crate) fn play_bare(self) -> Outcome {
        let command = self
            .env
            .iter()
            .find(|(name, _)| name == "MYCLI_COMMAND")
            .unwrap()
            .1
            .clone();
        self.launch(&[
            "/bin/sh".as_ref(),
            "-c".as_ref(),
            "--".as_ref(),
            command.as_ref(),
        ])
        .end()
    }

    fn launch(self, words: &[&OsStr]) -> Running {
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if self.pid_one {
            command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        }
        // busybox reads no file that the tested environment may name (BASH_ENV, ENV). Its own `sh`
        // is not /bin/sh.
        command.args(["/usr/bin/busybox", "sh", "-c"]);
        let root = self.root_directory.clone().unwrap_or_default();
        let become_sh = format!(
            "mount --bind {} {}/bin/sh",
            self.shell.binary(),
            root.display()
        );
        command
            .arg(format!("{}{become_sh} && exec \"$@\"", self.prepare))
            .arg("sh");
        match (&self.root_directory, self.user) {
            (None, None) => {}
            (None, Some(uid)) => {
                command.args([
                    "/usr/bin/setpriv",
                    &format!("--reuid={uid}"),
                    &format!("--regid={uid}"),
                    "--clear-groups",
                ]);
            }
            (Some(root), uid) => {
                let uid = uid.unwrap_or(0);
                command
                    .args(["/usr/sbin/chroot", &format!("--userspec={uid}:{uid}")])
                    .arg(root);
            }
        }
        command
            .args(words)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.directory("home")).process_group(0);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare");
        let (stdout, stderr) = (
            drain(child.stdout.take().unwrap()),
            drain(child.stderr.take().unwrap()),
        );
        Running {
            child,
            stdout,
            stderr,
            root: self.root,
        }
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// A running task.
pub(crate) struct Running {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    pub(crate) root: TempDir,
}

impl Running {
    /// The script's process id. It leads its process group.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success(), "kill {}", self.pid());
    }

    /// Waits until the command has made this file in its home.
    pub(crate) fn has_made(&self, file: &str) {
        let path = self.root.path().join("home").join(file);
        until(&format!("there is {file}"), || path.exists());
    }

    /// Waits for the script's own end, then for every process that holds its output.
    pub(crate) fn end(mut self) -> Outcome {
        let mut status = None;
        let end = Instant::now() + PATIENCE;
        while status.is_none() && Instant::now() < end {
            status = self.child.try_wait().unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        if status.is_none() {
            self.signal("KILL");
        }
        let status = status.expect("the script ends in time");
        // A process that was left behind would hold the pipes.
        let left: Vec<_> = processes()
            .filter(|found| found.group == self.pid() && !found.zombie)
            .collect();
        let stdout = self.stdout.join().unwrap();
        Outcome::new(
            status,
            &stdout,
            &self.stderr.join().unwrap(),
            left,
            self.root,
        )
    }
}

/// A process, as `/proc` shows it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    group: u32,
    zombie: bool,
}

/// All processes of this machine.
pub(crate) fn processes() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat =
            String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
        let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
        Some(Process {
            pid,
            group: fields[2].parse().ok()?,
            zombie: fields[0] == "Z",
        })
    })
}

/// Splits the text into the part without marker lines and the marker lines.
fn without_markers(text: &[u8]) -> (Vec<u8>, Vec<Marker>) {
    let (mut said, mut markers) = (Vec::new(), Vec::new());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        // Text that is not UTF-8 is the command's and stays as it is. A marker may follow it.
        let ours = match str::from_utf8(line) {
            Ok(_) => Some(0),
            Err(_) => line
                .windows(PREFIX.len())
                .rposition(|window| window == PREFIX.as_bytes()),
        };
        let (theirs, rest) = line.split_at(ours.unwrap_or(line.len()));
        said.extend_from_slice(theirs);
        match marker::split(
            NONCE,
            str::from_utf8(rest)
                .unwrap_or_default()
                .trim_end_matches('\n'),
        ) {
            (_, None) => said.extend_from_slice(rest),
            (before, Some(marker)) => {
                said.extend_from_slice(before.unwrap_or_default().as_bytes());
                markers.push(marker);
            }
        }
    }
    (said, markers)
}

/// The result of a task.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code as a shell reports it: 128 + n for a signal.
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    /// Standard error without the marker lines.
    pub(crate) stderr: Vec<u8>,
    /// The marker lines except the last; see `ends`.
    pub(crate) markers: Vec<Marker>,
    /// Whether the script's last line was its end marker, on stdout and on stderr.
    pub(crate) ends: [bool; 2],
    /// The processes of the script's process group that outlived it.
    pub(crate) left: Vec<Process>,
    pub(crate) root: TempDir,
}

impl Outcome {
    fn new(
        status: ExitStatus,
        stdout: &[u8],
        stderr: &[u8],
        left: Vec<Process>,
        root: TempDir,
    ) -> Self {
        let code = status
            .code()
            .or_else(|| Some(128 + status.signal()?))
            .unwrap();
        let ((stdout, mut out), (stderr, mut markers)) =
            (without_markers(stdout), without_markers(stderr));
        let has_ended =
            |markers: &mut Vec<Marker>| markers.pop_if(|last| *last == Marker::Ended).is_some();
        let ends = [has_ended(&mut out), has_ended(&mut markers)];
        assert_eq!(out, [], "nothing else is said on stdout");
        Self {
            code,
            stdout,
            stderr,
            markers,
            ends,
            left,
            root,
        }
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The reason why set-up failed.
    pub(crate) fn failure(&self) -> &str {
        assert_eq!(
            (self.code, self.ends),
            (script::EXIT_SET_UP_FAILED, [true, true]),
            "{self:?}"
        );
        match self.markers.last() {
            Some(Marker::Fail(why)) => why,
            other => panic!("{other:?} instead of a failure: {self:?}"),
        }
    }

    /// All files beneath the stage's directories, except git's own.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(self.root.path(), &mut found);
        found
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Whether `haystack` contains `needle`.
pub(crate) fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

/// Quotes bytes for a shell.
pub(crate) fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![b'\''];
    for byte in bytes {
        match byte {
            b'\'' => out.extend_from_slice(br"'\''"),
            other => out.push(*other),
        }
    }
    out.push(b'\'');
    out
}

/// Bytes as an environment value.
pub(crate) fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
