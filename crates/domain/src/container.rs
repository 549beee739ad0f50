//! The agreement of a task's containers with each other and with mycli: names, places, variables,
//! exit statuses. A task on the host has the same variables and exit statuses.
//!
//! `init` puts the runner where the others find it, `fetch` gets the repository, and `main` has the
//! user's image and runs the command (DESIGN §6).

/// The container that puts the runner where the others find it.
pub const INIT: &str = "init";
/// The container that fetches the repository.
pub const FETCH: &str = "fetch";
/// The container of the command. A task of an older release has only this one.
pub const MAIN: &str = "main";

/// How many minutes after its launch a task must run (DESIGN §6).
pub const RUNNING_WITHIN_MINUTES: i64 = 30;

/// How many seconds the upload of a command's files may take (DESIGN §6).
pub const UPLOAD_SECONDS: u32 = 3600;
/// How many seconds after TERM the upload may go on. ECS kills a task 120 s after TERM at the
/// latest, and the runner needs some for its last words (DESIGN §6).
pub const UPLOAD_AFTER_TERM_SECONDS: u32 = 105;
/// How many seconds a task with files to keep has between TERM and KILL: the most that Fargate
/// allows (ECS API reference, `ContainerDefinition`, `stopTimeout`).
pub const STOP_SECONDS: u32 = 120;

/// The file name of the program that runs in all of them.
pub const PROGRAM: &str = "mycli-runner";

/// The places in a container.
pub mod place {
    /// The folder of the runner.
    pub const PROGRAMS: &str = "/mycli";
    /// The folder for everything that is brought into the container.
    pub const WORKSPACE: &str = "/workspace";
    /// The clone, in [`WORKSPACE`].
    pub const REPOSITORY: &str = "repo";
    /// The folder for what is handed over, in [`WORKSPACE`].
    pub const HANDED_OVER: &str = ".mycli";
    /// The file with the result of a fetch, in [`HANDED_OVER`].
    pub const OUTCOME: &str = "outcome.json";
    /// The folder with the repository's `.git`, in [`HANDED_OVER`].
    pub const FETCHED: &str = "fetched";
    /// The folder for files that are to be kept, in a container on one machine.
    pub const ARTIFACTS: &str = "/mycli-artifacts";
    /// The folder in [`ARTIFACTS`] that every user may write to.
    pub const KEPT: &str = "kept";
}

/// The exit status of a failed set-up. Without a `fail` marker it is the command's own.
pub const EXIT_SET_UP_FAILED: i32 = 125;

/// The exit status of a command that exceeded its timeout. Without a `timeout` marker it is the
/// command's own.
pub const EXIT_TIMED_OUT: i32 = 124;

/// The environment variables that the runner reads. The command's environment has only
/// [`EXECUTION_ID`](variable::EXECUTION_ID) and [`ATTEMPT_ID`](variable::ATTEMPT_ID) of them.
pub mod variable {
    /// The command, as text for `sh -c`. A long one goes on in [`command_piece`].
    pub const COMMAND: &str = "MYCLI_COMMAND";
    /// `1` if the other variables of the request are to be asked for: they are larger than ECS
    /// takes.
    pub const REQUEST: &str = "MYCLI_REQUEST";

    /// The variable with this piece of the command, from 0.
    #[must_use]
    pub fn command_piece(number: usize) -> String {
        match number {
            0 => COMMAND.to_owned(),
            number => format!("{COMMAND}_{number}"),
        }
    }

    /// `1` if the command is words that are quoted for a shell, and the runner is to run them
    /// without one.
    pub const WORDS: &str = "MYCLI_WORDS";
    /// The repository to clone; none if it is empty or unset.
    pub const REPO: &str = "MYCLI_REPO";
    /// The branch, tag, or full or short commit id. If it is empty: the remote's default branch.
    pub const REF: &str = "MYCLI_REF";
    /// How much of the history is fetched ([`Depth`](crate::request::Depth)); one commit if it is
    /// unset.
    pub const DEPTH: &str = "MYCLI_DEPTH";
    /// The patterns of the files to keep, as a list in JSON; none if it is unset.
    pub const ARTIFACTS: &str = "MYCLI_ARTIFACTS";
    /// After which end they are kept ([`ArtifactsOn`](crate::request::ArtifactsOn)); after every
    /// end if it is unset.
    pub const ARTIFACTS_ON: &str = "MYCLI_ARTIFACTS_ON";
    /// `1` if the submodules are fetched too.
    pub const SUBMODULES: &str = "MYCLI_SUBMODULES";
    /// `1` if the large files are fetched too.
    pub const LFS: &str = "MYCLI_LFS";
    /// How many whole seconds the command may run, from its start; no limit if it is empty.
    pub const TIMEOUT: &str = "MYCLI_TIMEOUT";
    /// The whole seconds between TERM and KILL; 10 by default. Only tests set it.
    pub const GRACE: &str = "MYCLI_GRACE";
    /// The attempt's secret ([`AttemptSecret`](crate::attempt_secret::AttemptSecret)), of which the
    /// nonce and the token are made. A task that does not call our API has the nonce instead.
    pub const SECRET: &str = "MYCLI_SECRET";
    /// The address of our API, as the task reaches it.
    pub const API: &str = "MYCLI_API";
    /// 32 hexadecimal digits that identify mycli's lines in the output ([`crate::marker`]).
    pub const NONCE: &str = "MYCLI_NONCE";
    /// The execution's id; the command sees it too.
    pub const EXECUTION_ID: &str = "MYCLI_EXECUTION_ID";
    /// The attempt's id; the command sees it too.
    pub const ATTEMPT_ID: &str = "MYCLI_ATTEMPT_ID";
    /// The password for an HTTP(S) clone.
    pub const GIT_TOKEN: &str = "MYCLI_GIT_TOKEN";
    /// The hosts that the token is for, separated by spaces; the repository's if it is unset.
    pub const GIT_TOKEN_HOSTS: &str = "MYCLI_GIT_TOKEN_HOSTS";
    /// The hosts that the private key is for, in the same way.
    pub const SSH_KEY_HOSTS: &str = "MYCLI_SSH_KEY_HOSTS";
    /// The user name that goes with the token; `x-access-token` by default.
    pub const GIT_USERNAME: &str = "MYCLI_GIT_USERNAME";
    /// The text of the private key for an SSH clone.
    pub const SSH_KEY: &str = "MYCLI_SSH_KEY";
    /// The host keys to trust, in `known_hosts` form; by default
    /// [`KNOWN_HOSTS`](super::KNOWN_HOSTS).
    pub const KNOWN_HOSTS: &str = "MYCLI_KNOWN_HOSTS";
    /// Why the clone goes without a credential, as one line for the log.
    pub const WITHOUT: &str = "MYCLI_WITHOUT";
    /// The prefix with which a mycli of before the runner wrote names of the request's variables.
    /// They count like those without it.
    pub const HELD_PREFIX: &str = "MYCLI_ENV_";
    /// Another variable of that time, which means nothing any more.
    pub const HELD: &str = "MYCLI_HELD";

    /// The variables that are for whoever fetches the repository, and for nobody else.
    const OF_THE_FETCH: [&str; 10] = [
        REF,
        DEPTH,
        SUBMODULES,
        LFS,
        GIT_TOKEN_HOSTS,
        SSH_KEY_HOSTS,
        GIT_USERNAME,
        GIT_TOKEN,
        SSH_KEY,
        KNOWN_HOSTS,
    ];

    /// Whether a variable is for the fetch alone, so that a container that does not fetch does not
    /// get it.
    #[must_use]
    pub fn is_for_fetch(name: &str) -> bool {
        OF_THE_FETCH.contains(&name)
    }
}

/// The published ed25519 host keys of GitHub and GitLab, in `known_hosts` form. An SSH clone trusts
/// them when the user pins no keys.
///
/// Sources: GitHub, "GitHub's SSH key fingerprints"
/// (SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU) and the `ssh_keys` of its `meta` endpoint;
/// GitLab, "SSH known_hosts entries" of GitLab.com's settings
/// (SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8).
pub const KNOWN_HOSTS: &str = "\
github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl
gitlab.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAfuCHKVTjquxvt6CM6tdG4SLp1Btn/nOeHHE5UOzRdf";
