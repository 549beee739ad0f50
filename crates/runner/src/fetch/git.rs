//! Real git in the place of our library (`--git system`), for what the library cannot do. It gets
//! the same credentials, by a helper that asks this process.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{fs::OpenOptionsExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use domain::request::RepoKind;
use gix::{
    ObjectId,
    bstr::{BString, ByteSlice},
    hash::Kind,
    protocol::handshake::Ref,
};
use rustix::io::{FdFlags, fcntl_setfd};
use secrecy::ExposeSecret as _;

use super::{
    ask::{Ask, Way},
    credentials::Basic,
};
use crate::order::FetchFault;

/// The subcommand that git calls as its credential helper.
pub const CREDENTIAL: &str = "credential";
/// The variable with the number of the descriptor at which the helper asks.
const CREDENTIAL_FD: &str = "MYCLI_CREDENTIAL_FD";
/// A server that has no depths, in git's words (remote-curl.c, fetch-pack.c).
const NO_DEPTH: [&str; 2] = ["does not support shallow", "does not support --depth"];

/// A repository that git reaches.
pub(super) struct GitRemote {
    url: String,
    /// Settings of each call.
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    /// The folder of our files for git: a key, known hosts.
    _private: tempfile::TempDir,
    credential: Option<OwnedFd>,
    refs: Vec<Ref>,
}

impl GitRemote {
    /// Reaches a repository, and reads its refs.
    ///
    /// # Errors
    /// When there is no git, or the repository cannot be reached.
    pub(super) fn open(way: &Way<'_>) -> Result<Self, FetchFault> {
        let private = tempfile::TempDir::new().map_err(|error| not_ready(&error))?;
        let basic = way.credentials.basic_for(way.repo);
        let mut settings = vec![
            "credential.helper=".to_owned(),
            "protocol.version=2".into(),
            "gc.auto=0".into(),
            "maintenance.auto=false".into(),
            "core.hooksPath=/dev/null".into(),
            "safe.directory=*".into(),
        ];
        let mut environment = environment(private.path());
        let mut credential = None;
        if let Some(basic) = basic {
            let program = crate::platform::own_program()
                .and_then(fs::canonicalize)
                .map_err(|error| not_ready(&error))?;
            let origin = basic.origin();
            // git passes the text to a shell, and a path may hold anything.
            environment.push(("MYCLI_RUNNER".into(), program.display().to_string()));
            settings.push(format!(
                "credential.{origin}.helper=!\"$MYCLI_RUNNER\" {CREDENTIAL}"
            ));
            let (ours, theirs) = UnixStream::pair().map_err(|error| not_ready(&error))?;
            let theirs = OwnedFd::from(theirs);
            environment.push((CREDENTIAL_FD.into(), theirs.as_raw_fd().to_string()));
            thread::spawn(move || answer(&basic, ours));
            credential = Some(theirs);
        }
        if matches!(way.repo.kind(), RepoKind::Ssh | RepoKind::ScpLike) {
            environment.extend(ssh(way, private.path()).map_err(|error| not_ready(&error))?);
        }
        let mut remote = Self {
            url: way.repo.to_string(),
            settings,
            environment,
            _private: private,
            credential,
            refs: Vec::new(),
        };
        let listed = remote.run(
            None,
            &["ls-remote", "--quiet", "--symref", "--", way.repo.as_str()],
        )?;
        remote.refs = refs(&listed);
        Ok(remote)
    }

    /// How the repository's objects are hashed. An empty repository does not say.
    pub(super) fn hash(&self) -> Kind {
        let id = self.refs.iter().find_map(|found| found.unpack().1);
        id.map_or(Kind::Sha1, gix::oid::kind)
    }

    /// All refs.
    pub(super) fn refs(&self) -> Vec<Ref> {
        self.refs.clone()
    }

    /// Receives objects into the repository at `git_dir`.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub(super) fn receive(&self, ask: &Ask, git_dir: &Path) -> Result<(), FetchFault> {
        let depth = ask.depth.map(|depth| format!("--depth={depth}"));
        match self.fetch(ask, depth.as_deref(), git_dir) {
            Err(fault)
                if depth.is_some() && NO_DEPTH.iter().any(|text| fault.reason.contains(text)) =>
            {
                self.fetch(ask, None, git_dir)
            }
            fetched => fetched,
        }
    }

    fn fetch(&self, ask: &Ask, depth: Option<&str>, git_dir: &Path) -> Result<(), FetchFault> {
        let mut arguments = vec!["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
        arguments.extend(depth);
        if ask.commits_only && depth.is_some() {
            arguments.push("--filter=tree:0");
        }
        arguments.extend(["--stdin", "--", &self.url]);
        let wants: String = ask.wants.iter().map(|id| format!("{id}\n")).collect();
        self.run_with(Some(git_dir), &arguments, wants).map(drop)
    }

    fn run(&self, git_dir: Option<&Path>, arguments: &[&str]) -> Result<Vec<u8>, FetchFault> {
        self.run_with(git_dir, arguments, String::new())
    }

    fn run_with(
        &self,
        git_dir: Option<&Path>,
        arguments: &[&str],
        input: String,
    ) -> Result<Vec<u8>, FetchFault> {
        let output = self
            .spawn(git_dir, arguments, input)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    FetchFault::last("git is not here, and --git system asks for it")
                }
                _ => FetchFault::last(format!("git cannot be started: {error}")),
            })?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(meaning(&output.stderr.to_str_lossy())),
        }
    }

    fn spawn(
        &self,
        git_dir: Option<&Path>,
        arguments: &[&str],
        input: String,
    ) -> io::Result<Output> {
        if let Some(credential) = &self.credential {
            fcntl_setfd(credential, FdFlags::empty())?;
        }
        let mut command = Command::new("git");
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        if let Some(git_dir) = git_dir {
            command.arg("--git-dir").arg(git_dir);
        }
        let spawned = command
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        if let Some(credential) = &self.credential {
            fcntl_setfd(credential, FdFlags::CLOEXEC)?;
        }
        let mut child = spawned?;
        if let Some(mut stdin) = child.stdin.take() {
            thread::spawn(move || stdin.write_all(input.as_bytes()));
        }
        child.wait_with_output()
    }
}

fn not_ready(error: &io::Error) -> FetchFault {
    FetchFault::last(format!("git cannot be prepared: {error}"))
}

/// git's own settings of a user or a system do not count: only how to reach a server does.
fn environment(home: &Path) -> Vec<(String, String)> {
    let mut environment = vec![
        ("HOME".to_owned(), home.display().to_string()),
        ("LC_ALL".into(), "C".into()),
        ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
        ("GIT_TERMINAL_PROMPT".into(), "0".into()),
        ("GIT_ASKPASS".into(), String::new()),
        ("GIT_NO_LAZY_FETCH".into(), "1".into()),
    ];
    let is_kept = |name: &str| {
        let upper = name.to_ascii_uppercase();
        upper == "PATH"
            || upper.ends_with("_PROXY")
            || ["GIT_SSL_", "GIT_PROXY_SSL_", "SSL_CERT_"]
                .iter()
                .any(|prefix| upper.starts_with(prefix))
    };
    let inherited = std::env::vars().filter(|(name, _)| is_kept(name));
    environment.extend(inherited);
    environment
}

/// How git reaches an SSH server: with the pinned keys and our key alone.
fn ssh(way: &Way<'_>, private: &Path) -> io::Result<Vec<(String, String)>> {
    let write = |name: &str, text: &str| -> io::Result<PathBuf> {
        let path = private.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        writeln!(file, "{}", text.trim_end())?;
        Ok(path)
    };
    let hosts = write("hosts", way.known_hosts)?;
    let mut command =
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=30 \
                       -o LogLevel=ERROR -o ControlPath=none -o GlobalKnownHostsFile=/dev/null \
                       -o UserKnownHostsFile=\"\\\"$MYCLI_HOSTS\\\"\""
            .to_owned();
    let mut variables = vec![("MYCLI_HOSTS".to_owned(), hosts.display().to_string())];
    if let Some(key) = way.credentials.key_for(way.repo) {
        let path = write("key", key.expose_secret())?;
        command.push_str(" -o IdentitiesOnly=yes -i \"$MYCLI_KEY\"");
        variables.push(("MYCLI_KEY".into(), path.display().to_string()));
    }
    variables.push(("GIT_SSH_COMMAND".into(), command));
    variables.push(("GIT_SSH_VARIANT".into(), "ssh".into()));
    Ok(variables)
}

/// Answers the credential helper, once for each line that it sends.
fn answer(basic: &Basic, asked: UnixStream) {
    let Ok(mut reply) = asked.try_clone() else {
        return;
    };
    for _ in BufReader::new(asked).lines().map_while(Result::ok) {
        if reply.write_all(basic.helper_lines().as_bytes()).is_err() {
            return;
        }
    }
}

/// The credential helper: asks the process that started git, and passes the answer on
/// (git-credential, "input/output format"). It has nothing to store or to erase.
///
/// # Errors
/// When the process cannot be asked.
pub fn credential_helper(action: &str) -> io::Result<()> {
    if action != "get" {
        return Ok(());
    }
    let number = std::env::var(CREDENTIAL_FD)
        .ok()
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other("only the git that a fetch starts may ask"))?;
    let mut asking = UnixStream::from(inherited(number));
    asking.write_all(b"get\n")?;
    let mut lines = BufReader::new(asking).lines();
    for line in lines.by_ref().take(2) {
        writeln!(io::stdout(), "{}", line?)?;
    }
    Ok(())
}

/// A descriptor that git has inherited from us and passed on to its helper.
#[expect(
    unsafe_code,
    reason = "only its number tells which descriptor it is; the process that gave the number opened it, and \
              nothing else here owns it"
)]
fn inherited(number: i32) -> OwnedFd {
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// The refs that `git ls-remote --symref` lists.
fn refs(listed: &[u8]) -> Vec<Ref> {
    let lines: Vec<(&[u8], &[u8])> = ByteSlice::lines(listed)
        .filter_map(|line| line.split_once_str("\t"))
        .collect();
    let targets: Vec<_> = lines
        .iter()
        .filter_map(|(value, name)| Some((*name, value.strip_prefix(b"ref: ")?)))
        .collect();
    let target_of = |name: &[u8]| {
        let mut known = targets.iter();
        known.find_map(|(known, target)| (*known == name).then_some(*target))
    };
    let mut found = Vec::new();
    for (at, (value, name)) in lines.iter().enumerate() {
        let Ok(object) = ObjectId::from_hex(value) else {
            continue;
        };
        if name.ends_with(b"^{}") {
            continue;
        }
        // The object that an annotated tag names is on the next line.
        let peeled = lines
            .get(at + 1)
            .filter(|(_, next)| next.strip_suffix(b"^{}").is_some_and(|tag| tag == *name));
        let peeled = peeled.and_then(|(value, _)| ObjectId::from_hex(value).ok());
        let full_ref_name = BString::from(*name);
        found.push(match (target_of(name), peeled) {
            (Some(target), _) => Ref::Symbolic {
                full_ref_name,
                target: target.into(),
                tag: None,
                object,
            },
            (None, Some(peeled)) => Ref::Peeled {
                full_ref_name,
                tag: object,
                object: peeled,
            },
            (None, None) => Ref::Direct {
                full_ref_name,
                object,
            },
        });
    }
    found
}

/// The meaning of a failure, in words of git (http.c, remote-curl.c, connect.c, upload-pack.c), of
/// curl, which git repeats, or of ssh (LC_ALL=C).
fn meaning(said: &str) -> FetchFault {
    let lines = said.lines().map(str::trim).filter(|line| {
        !line.is_empty()
            && ![
                "hint:",
                "and the repository exists.",
                "Please make sure",
                "@@@",
            ]
            .iter()
            .any(|start| line.starts_with(start))
    });
    let reason = lines.collect::<Vec<_>>().join("; ");
    let says = |texts: &[&str]| texts.iter().any(|text| reason.contains(text));
    if !says(&FINAL) && says(&PASSING) {
        FetchFault::passing(reason)
    } else {
        FetchFault::last(reason)
    }
}

/// Texts of failures that stay, whatever else is said.
const FINAL: [&str; 17] = [
    "Authentication failed",
    "could not read Username",
    "could not read Password",
    "returned error: 400",
    "returned error: 401",
    "returned error: 403",
    "returned error: 404",
    "returned error: 407",
    "returned error: 410",
    "ertificate ",
    "Permission denied",
    "Host key verification failed",
    "Repository not found",
    "does not appear to be a git repository",
    "remote error: ",
    "unadvertised object",
    "does not support",
];

/// Texts of failures that may pass by themselves.
const PASSING: [&str; 28] = [
    "returned error: 429",
    "returned error: 5",
    "RPC failed",
    "Could not resolve ",
    "Failed to connect to",
    "onnection timed out",
    "onnection timeout",
    "esolving timed out",
    "peration timed out",
    "peration too slow",
    "onnection reset by",
    "onnection closed by",
    "onnection refused",
    "Broken pipe",
    "Empty reply from server",
    "transfer closed with",
    "was not closed cleanly",
    "HTTP2 framing layer",
    "SSL_ERROR_SYSCALL",
    "unexpected eof",
    "non-properly terminated",
    "early EOF",
    "hung up unexpectedly",
    "unexpected disconnect",
    "unable to connect to",
    "ssh: connect to host",
    "exchange_identification",
    "not responding",
];
