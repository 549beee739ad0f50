//! The messages between mycli and the program. Both sides use these types.

mod variables;

pub use self::variables::{SET_UP_SECONDS, TaskVariables};

use std::{collections::BTreeMap, fmt, num::NonZeroU32, path::PathBuf};

pub use domain::container::place;

use domain::{
    git::GitHost,
    request::{ArtifactGlob, Artifacts, CommandLine, GitRef, RepoUrl},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};

/// A repository to fetch, and the way to fetch it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FetchOrder {
    /// The repository.
    pub repo: RepoUrl,
    /// The branch, tag or commit; the remote's default branch if there is none.
    #[serde(default)]
    pub reference: Option<GitRef>,
    /// How many commits of the history; all of it, with all branches and tags, if there is no
    /// number.
    #[serde(default)]
    pub depth: Option<NonZeroU32>,
    /// The folder to make. Only `.git` is made in it.
    pub into: PathBuf,
    /// Whether the submodules are fetched too, and theirs.
    #[serde(default)]
    pub submodules: bool,
    /// Whether the large files (Git LFS) are fetched too.
    #[serde(default)]
    pub lfs: bool,
    /// The credentials, each for its hosts.
    #[serde(default)]
    pub credentials: Credentials,
    /// The host keys that are trusted, as lines of a `known_hosts` file.
    #[serde(default)]
    pub known_hosts: String,
    /// The settings for reaching servers.
    #[serde(default)]
    pub network: NetworkSettings,
    /// The program that speaks git's protocol.
    #[serde(default)]
    pub git: GitProgram,
}

/// The program that speaks git's protocol with a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GitProgram {
    /// Our library.
    #[default]
    Library,
    /// Real git, as it is installed where the fetch runs.
    System,
}

/// An order as JSON, with its credentials: only for a pipe to the process that carries it out.
#[must_use]
pub fn to_json(order: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(order).unwrap_or_default()
}

/// The settings for reaching servers.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSettings {
    /// Further certificates of authorities to trust, in PEM form.
    pub authorities: Option<String>,
    /// A file with further certificates of authorities to trust, in PEM form.
    pub authorities_file: Option<PathBuf>,
    /// The proxy for `https://`, as a URL.
    pub https_proxy: Option<String>,
    /// The proxy for `http://`, as a URL.
    pub http_proxy: Option<String>,
    /// The hosts that are reached without a proxy, separated by commas.
    pub no_proxy: Option<String>,
    /// How many seconds no byte may come from a server that is waited for; 60 if it is not set.
    pub silence_seconds: Option<u32>,
}

/// Omits the proxies: their addresses may hold passwords.
impl fmt::Debug for NetworkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkSettings")
            .field("authorities_file", &self.authorities_file)
            .field("no_proxy", &self.no_proxy)
            .field("silence_seconds", &self.silence_seconds)
            .finish_non_exhaustive()
    }
}

/// A credential and the hosts that it is for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The hosts.
    pub hosts: Vec<GitHost>,
    /// The proof of who we are.
    pub proof: Proof,
}

/// The proof to a server of who we are.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Proof {
    /// A user name and a token, for HTTP.
    Basic {
        /// The user name.
        username: String,
        /// The token.
        #[serde(serialize_with = "exposed")]
        password: SecretString,
    },
    /// A private key in OpenSSH's or PEM form, for SSH.
    Key(#[serde(serialize_with = "exposed")] SecretString),
}

/// Writes a secret out: orders travel by pipes between our own processes.
fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

/// The credentials of a fetch.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Credentials(pub Vec<Credential>);

/// The result of a fetch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FetchedCommit {
    /// The id of the commit that HEAD names, in hexadecimal digits.
    pub commit: String,
}

/// A folder in which files are to be written, of a repository that was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CheckOutOrder {
    /// The folder with the repository's `.git`, if it is not in place yet.
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// The folder for the files.
    pub into: PathBuf,
}

/// A repository that was fetched where the command does not run, as it is handed over to the
/// command's keeper.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HandedOver {
    /// The result of the fetch.
    pub outcome: FetchOutcome,
    /// The notes of the fetch for the log, a line each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The wait of a command's keeper for a repository that another container fetches.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AwaitFetchOrder {
    /// The folder that the result is put into ([`place::HANDED_OVER`]).
    pub folder: PathBuf,
    /// The address of the task's metadata endpoint, if there is one.
    #[serde(default)]
    pub metadata: Option<String>,
}

/// The place where the files of a command are kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeepIn {
    /// A folder. It is made when there is something to keep.
    Folder(PathBuf),
    /// A folder that mycli has made. Where there is none, nobody would fetch the files.
    Prepared(PathBuf),
    /// A bucket, by requests that our API signs.
    Api(AttemptAccess),
}

/// The way of an attempt's runner to our API.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptAccess {
    /// The API's address.
    pub api: String,
    /// The attempt's id.
    pub attempt: String,
    /// The attempt's token.
    #[serde(serialize_with = "exposed")]
    pub token: SecretString,
}

/// Files to keep.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeepOrder {
    /// The folder that the command started in.
    pub root: PathBuf,
    /// The patterns of the files.
    pub globs: Vec<ArtifactGlob>,
    /// The place for them.
    pub into: KeepIn,
}

/// The way in which a command gets its repository.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RepositorySource {
    /// It is fetched by the command's keeper.
    Fetch(Box<FetchOrder>),
    /// It was fetched elsewhere, and put into this folder ([`place`]).
    HandedOver(PathBuf),
}

/// A command to run and to supervise.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RunOrder {
    /// The attempt's nonce, 32 hexadecimal digits. The program's marker lines carry tokens of it
    /// ([`domain::marker::token`]).
    #[serde(serialize_with = "exposed")]
    pub nonce: SecretString,
    /// The command.
    pub command: CommandLine,
    /// The command's whole environment. Values may be secrets.
    pub environment: BTreeMap<String, EnvironmentValue>,
    /// The folder that the command starts in if it has no repository; the keeper's own if there is
    /// none.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// The repository that the command starts in.
    #[serde(default)]
    pub source: Option<RepositorySource>,
    /// The way to the rest of this order, if it is to be asked for: it is larger than variables can
    /// be.
    #[serde(default)]
    pub request: Option<AttemptAccess>,
    /// A note for the log, before the repository is there.
    #[serde(default)]
    pub note: Option<String>,
    /// The files to keep after the command's end, and the place for them.
    #[serde(default)]
    pub artifacts: Option<(Artifacts, KeepIn)>,
    /// How many seconds the command may run; no limit if there is none.
    #[serde(default)]
    pub timeout_seconds: Option<u64>,
    /// The seconds between TERM and KILL.
    pub grace_seconds: u64,
    /// How many seconds the set-up may take.
    pub set_up_seconds: u64,
    /// The file that the output goes to, in the form of [`crate::log`]. Without one, the command
    /// writes to the keeper's own stdout and stderr.
    #[serde(default)]
    pub log: Option<PathBuf>,
}

impl RunOrder {
    /// The repository, as words name it.
    #[must_use]
    pub fn repository(&self) -> String {
        match &self.source {
            Some(RepositorySource::Fetch(fetch)) => fetch.repo.to_string(),
            _ => "the repository".to_owned(),
        }
    }
}

/// A value of a variable. It is not shown, because users put secrets into variables.
#[derive(Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub struct EnvironmentValue(#[serde(serialize_with = "exposed")] pub SecretString);

impl From<String> for EnvironmentValue {
    fn from(value: String) -> Self {
        Self(value.into())
    }
}

impl fmt::Debug for EnvironmentValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The outcome of an order to fetch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchOutcome {
    /// The repository is there.
    Done(FetchedCommit),
    /// It is not.
    Failed(FetchFault),
}

/// The kinds of failure, by their remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchFaultKind {
    /// It may pass by itself: a name that does not resolve, a connection that breaks, a server in
    /// trouble. Asking again may help.
    Passing,
    /// Asking again is no use: refused, not there, or not what it should be.
    Final,
    /// Our library cannot do it, and git can.
    NeedsGit,
}

/// A failure of a fetch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FetchFault {
    /// The kind, by its remedy.
    pub kind: FetchFaultKind,
    /// The reason on one line. It holds no credential.
    pub reason: String,
}

/// The most characters of a reason.
const REASON_MAX: usize = 2000;

impl FetchFault {
    /// A failure that may pass by itself.
    pub fn passing(reason: impl fmt::Display) -> Self {
        Self::new(FetchFaultKind::Passing, reason)
    }

    /// A failure that stays.
    pub fn last(reason: impl fmt::Display) -> Self {
        Self::new(FetchFaultKind::Final, reason)
    }

    /// A failure that git would not have.
    pub fn needs_git(reason: impl fmt::Display) -> Self {
        Self::new(FetchFaultKind::NeedsGit, reason)
    }

    /// A failure of this kind. The reason is put on one line, and cut to 2,000 characters: a server
    /// may have written it.
    pub fn new(kind: FetchFaultKind, reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        let words: Vec<_> = reason.split_whitespace().collect();
        let reason = words.join(" ").chars().take(REASON_MAX).collect();
        Self { kind, reason }
    }
}

impl fmt::Display for FetchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for FetchFault {}
