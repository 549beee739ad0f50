//! The script that every task runs: POSIX `sh`, for dash, busybox ash and bash.
//!
//! Stage 1 (`script/bootstrap.sh`) takes mycli's variables out of the environment and clones the
//! repository. Stage 2 (`script/supervise.sh`) runs the command as a child and reports its end. One
//! text contains both, stage 2 as a quoted string, because a task definition has room for one
//! command and a user's image contains no file of mycli.
//!
//! The input is the environment (see [`variable`]) and two optional arguments that save time (see
//! [`text`]). The output is the marker lines of [`crate::marker`], on stderr.

use std::sync::LazyLock;

const BOOTSTRAP: &str = include_str!("script/bootstrap.sh");
const SUPERVISE: &str = include_str!("script/supervise.sh");

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

/// The exit status of a failed set-up. Without a `fail` marker it is the command's own.
pub const EXIT_SET_UP_FAILED: i32 = 125;

/// The exit status of a command that exceeded its timeout. Without a `timeout` marker it is the
/// command's own.
pub const EXIT_TIMED_OUT: i32 = 124;

/// The script's second argument if the process's initial environment has no credential and no nonce
/// (a line before the script then sets `MYCLI_NONCE`). Stage 2 then runs in the same shell, because
/// an `exec` would have nothing to hide.
pub const OPEN: &str = "open";

/// The environment variables that the script reads. The command's environment has only
/// [`EXECUTION_ID`](variable::EXECUTION_ID) and [`ATTEMPT_ID`](variable::ATTEMPT_ID) of them.
pub mod variable {
    /// The command, as text for `sh -c`.
    pub const COMMAND: &str = "MYCLI_COMMAND";
    /// `1` if the command is words that are quoted for a shell, and the runner is to run them
    /// without one. The script runs the quoted text.
    pub const WORDS: &str = "MYCLI_WORDS";
    /// The repository to clone; none if it is empty or unset.
    pub const REPO: &str = "MYCLI_REPO";
    /// The branch, tag, or full or short commit id. If it is empty: the remote's default branch.
    pub const REF: &str = "MYCLI_REF";
    /// How much of the history is fetched ([`Depth`](crate::request::Depth)); one commit if it is
    /// unset. Only the runner reads it.
    pub const DEPTH: &str = "MYCLI_DEPTH";
    /// `1` if the submodules are fetched too. Only the runner reads it.
    pub const SUBMODULES: &str = "MYCLI_SUBMODULES";
    /// `1` if the large files are fetched too. Only the runner reads it.
    pub const LFS: &str = "MYCLI_LFS";
    /// How many whole seconds the command may run, from its start; no limit if it is empty.
    pub const TIMEOUT: &str = "MYCLI_TIMEOUT";
    /// The whole seconds between TERM and KILL; 10 by default. Only tests set it.
    pub const GRACE: &str = "MYCLI_GRACE";
    /// 32 hexadecimal digits that identify mycli's lines in the output. Where the command can read
    /// these lines: [`crate::marker::tokens`].
    pub const NONCE: &str = "MYCLI_NONCE";
    /// The execution's id; the command sees it too.
    pub const EXECUTION_ID: &str = "MYCLI_EXECUTION_ID";
    /// The attempt's id; the command sees it too.
    pub const ATTEMPT_ID: &str = "MYCLI_ATTEMPT_ID";
    /// The directory in which the clone is made; by default the first writable one of the usual
    /// temporary directories.
    pub const WORKDIR: &str = "MYCLI_WORKDIR";
    /// The password for an HTTP(S) clone.
    pub const GIT_TOKEN: &str = "MYCLI_GIT_TOKEN";
    /// The hosts that the token is for, separated by spaces; the repository's if it is unset. Only
    /// the runner reads it.
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
    /// The names of the request's variables that the set-up must not see
    /// ([`crate::git::steers_set_up`]), separated by spaces.
    pub const HELD: &str = "MYCLI_HELD";
    /// The prefix of such a variable's name until the set-up is over.
    pub const HELD_PREFIX: &str = "MYCLI_ENV_";
}

/// The text of the script, to be run as `/bin/sh -c <text>`. Lines may be put before it.
///
/// After a `$0`, two arguments are accepted, and either may be empty. The first is the path of an
/// `env` that has `--default-signal`, so that the script need not search for one. The second is
/// [`OPEN`].
#[must_use]
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let (stage2, pins) = (quote(&strip(SUPERVISE)), quote(KNOWN_HOSTS));
        format!(
            "mycli_stage2={stage2} mycli_pins={pins}\n{}",
            strip(BOOTSTRAP)
        )
    });
    &TEXT
}

/// Quotes `text` so that `sh` reads it back byte for byte.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Removes comment lines, blank lines and indentation, which every task would otherwise carry and
/// parse.
///
/// The two scripts have no string over several lines; a test checks that.
fn strip(source: &str) -> String {
    let lines = source
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_keeps_its_quotes() {
        assert_eq!(quote("a'b"), r"'a'\''b'");
    }

    #[test]
    fn it_is_small_beside_the_64_kib_of_a_task_definition() {
        assert!(text().len() < 17 * 1024, "{} bytes", text().len());
    }

    #[test]
    fn no_string_of_a_script_spans_lines() {
        for script in [BOOTSTRAP, SUPERVISE] {
            assert!(
                script
                    .lines()
                    .all(|line| line.matches('\'').count() % 2 == 0
                        || line.trim_start().starts_with('#'))
            );
        }
    }
}
