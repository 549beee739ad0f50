//! Why an attempt failed, in plain words, and whether another attempt may succeed.

use self::start_failure::start_failure;
use crate::{
    ecs::{StopCode, Task},
    execution::MarkerFacts,
};

mod start_failure;

/// Why an attempt failed. A text in a variant is ECS's own message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The command exited with this code.
    Exit(i32),
    /// The kernel killed the command for using more memory than the task has.
    OutOfMemory(Option<i32>),
    /// The set-up failed; the command did not start.
    SetUp(String),
    /// The image has no variant for the task's architecture.
    Manifest(String),
    /// The image does not exist or may not be read.
    ImageNotFound(String),
    /// The image could not be pulled, for a reason that may be transient.
    Pull(String),
    /// The image is larger than the task's storage.
    Disk(String),
    /// The task could not reach a service or a registry.
    Network(String),
    /// A secret does not exist or may not be read.
    Secret(String),
    /// Reading a secret was throttled.
    SecretThrottled(String),
    /// The log cannot be written: the log group does not exist, or the execution role may not write
    /// to it.
    Log(String),
    /// ECS cannot assume the execution role or the task role.
    Role(String),
    /// ECS cannot assume its own service-linked role. This becomes possible only some time after
    /// the role was made.
    ServiceLinkedRole(String),
    /// Fargate has no capacity at this moment.
    Capacity(String),
    /// The container's process cannot be started, for example because the image has no `/bin/sh`.
    EntryPoint(String),
    /// Fargate Spot took its capacity back.
    Spot(Option<i32>),
    /// The host failed.
    Host(String),
    /// Somebody stopped the task, but not through mycli.
    StoppedOutside(String),
    /// The task never started, for a reason of no other kind.
    NeverStarted(String),
    /// The container ended without an exit code.
    NoExitCode(String),
}

impl Cause {
    /// The command's own exit code, where it has one. A failure never has 0, although a command
    /// that was stopped half-way may exit with 0.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        let code = match self {
            Self::Exit(code) => Some(*code),
            Self::OutOfMemory(code) | Self::Spot(code) => *code,
            _ => None,
        };
        code.filter(|code| *code != 0)
    }

    /// Whether the cause is transient: another attempt is then made without the user asking for it,
    /// provided the command had not started.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Pull(_)
            | Self::Network(_)
            | Self::SecretThrottled(_)
            | Self::ServiceLinkedRole(_)
            | Self::Capacity(_)
            | Self::Spot(_)
            | Self::Host(_) => true,
            Self::Exit(_)
            | Self::OutOfMemory(_)
            | Self::SetUp(_)
            | Self::Manifest(_)
            | Self::ImageNotFound(_)
            | Self::Disk(_)
            | Self::Secret(_)
            | Self::Log(_)
            | Self::Role(_)
            | Self::EntryPoint(_)
            | Self::StoppedOutside(_)
            | Self::NeverStarted(_)
            | Self::NoExitCode(_) => false,
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(code) => match code.checked_sub(128).and_then(signal_name) {
                Some(signal) => {
                    write!(f, "the command exited with code {code} (128 + {}: killed by {signal})", code - 128)
                }
                None => write!(f, "the command exited with code {code}"),
            },
            Self::OutOfMemory(_) => {
                f.write_str("out of memory: the task used more than it has; ask for more with --memory")
            }
            Self::SetUp(why) => write!(f, "set-up failed, the command did not start: {why}"),
            Self::Manifest(why) => {
                write!(
                    f,
                    "the image has no variant for this architecture; try the other with --arch (x86_64 or arm64): {why}"
                )
            }
            Self::ImageNotFound(why) => write!(
                f,
                "image not found or not readable (check its name; a private registry needs registry_secret): {why}"
            ),
            Self::Pull(why) if is_rate_limited(why) => write!(
                f,
                "the registry limits pulls (sign in with registry_secret, or use an ECR pull-through cache): {why}"
            ),
            Self::Pull(why) => write!(f, "the image could not be pulled: {why}"),
            Self::Disk(why) => write!(f, "the image is larger than the task's storage; use a smaller one: {why}"),
            Self::Network(why) => write!(
                f,
                "the task did not reach a service that it needs (its subnets need public addresses, a NAT gateway, or VPC \
                 endpoints for ECR, S3, CloudWatch Logs and SSM): {why}"
            ),
            Self::Log(why) => {
                write!(f, "the task's log cannot be written (`mycli doctor` looks at its log group and role): {why}")
            }
            Self::Role(why) => {
                write!(f, "ECS cannot assume a role of the task (the role must trust ecs-tasks.amazonaws.com): {why}")
            }
            Self::ServiceLinkedRole(why) => {
                write!(f, "ECS cannot use its service-linked role yet (`mycli init` makes one): {why}")
            }
            Self::Capacity(why) => write!(f, "Fargate has no capacity at this moment: {why}"),
            Self::EntryPoint(why) => {
                write!(
                    f,
                    "the container could not start (does the image have /bin/sh, and may its user run it?): {why}"
                )
            }
            Self::Secret(why) => {
                write!(f, "a secret could not be read (`mycli secrets list` shows those that are set): {why}")
            }
            Self::SecretThrottled(why) => write!(f, "reading a secret was throttled: {why}"),
            Self::Spot(_) => {
                f.write_str("Spot interruption: Fargate Spot took its capacity back (--retry-on spot tries again)")
            }
            Self::Host(why) => write!(f, "the host failed: {why}"),
            Self::StoppedOutside(why) => write!(f, "the task was stopped from outside mycli: {why}"),
            Self::NeverStarted(why) => write!(f, "the task never started: {why}"),
            Self::NoExitCode(why) => write!(f, "the container ended without an exit code: {why}"),
        }
    }
}

/// The name of a signal by its number on Linux (signal(7), the numbers that x86 and ARM share).
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        _ => return None,
    })
}

fn is_rate_limited(why: &str) -> bool {
    let lower = why.to_lowercase();
    lower.contains("toomanyrequests")
        || lower.contains("pull rate limit")
        || lower.contains("too many requests")
}

/// Returns why a stopped task failed; `None` if it exited 0. A missing exit code is never taken for
/// 0.
#[must_use]
pub fn of(task: &Task, said: &MarkerFacts) -> Option<Cause> {
    let container = task.container();
    let exit_code = container.and_then(|c| c.exit_code);
    let words = words(task);
    if container
        .and_then(|c| c.reason.as_deref())
        .is_some_and(is_out_of_memory)
    {
        return Some(Cause::OutOfMemory(exit_code));
    }
    match task.stop_code.as_ref() {
        Some(StopCode::SpotInterruption | StopCode::TerminationNotice) => {
            return Some(Cause::Spot(exit_code));
        }
        Some(StopCode::InfrastructureHealth) => return Some(Cause::Host(words)),
        // Only the text distinguishes this from the scheduler's other stops (Developer Guide, "task
        // maintenance").
        Some(StopCode::UserInitiated | StopCode::ServiceSchedulerInitiated)
            if words.contains("maintenance") =>
        {
            return Some(Cause::Host(words));
        }
        Some(StopCode::UserInitiated | StopCode::ServiceSchedulerInitiated) => {
            return Some(Cause::StoppedOutside(words));
        }
        Some(StopCode::TaskFailedToStart) => return Some(start_failure(words)),
        // Public reports show Spot events without a stop code.
        Some(StopCode::Other(_)) | None if words.contains("Spot Task was interrupted") => {
            return Some(Cause::Spot(exit_code));
        }
        Some(StopCode::EssentialContainerExited | StopCode::Other(_)) | None => {}
    }
    if let Some(why) = &said.set_up_failure {
        return Some(Cause::SetUp(why.clone()));
    }
    match exit_code {
        Some(0) => None,
        Some(code) => Some(Cause::Exit(code)),
        None => Some(
            match container
                .and_then(|c| c.reason.as_ref())
                .map(|_| start_failure(words.clone()))
            {
                Some(Cause::NeverStarted(_)) | None => Cause::NoExitCode(words),
                Some(cause) => cause,
            },
        ),
    }
}

/// ECS's messages of the task and of the container, without repetition.
fn words(task: &Task) -> String {
    let stopped = task.stopped_reason.as_deref().unwrap_or_default();
    let container = task
        .container()
        .and_then(|c| c.reason.as_deref())
        .unwrap_or_default();
    let code = task
        .stop_code
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    match (
        stopped.is_empty(),
        container.is_empty() || stopped.contains(container),
    ) {
        (false, true) => stopped.to_owned(),
        (false, false) => format!("{stopped}: {container}"),
        (true, false) => container.to_owned(),
        (true, true) if code.is_empty() => "no reason was given".to_owned(),
        (true, true) => code,
    }
}

fn is_out_of_memory(reason: &str) -> bool {
    reason.to_lowercase().starts_with("outofmemory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(json: &str) -> Option<Cause> {
        of(
            &serde_json::from_str(json).expect("ECS's JSON"),
            &MarkerFacts::default(),
        )
    }

    fn failed_to_start(reason: &str) -> Cause {
        let task = Task {
            stop_code: Some(StopCode::TaskFailedToStart),
            stopped_reason: Some(reason.into()),
            ..Task::default()
        };
        of(&task, &MarkerFacts::default()).expect("a cause")
    }

    #[test]
    fn an_absent_exit_code_is_not_zero() {
        let cause = stopped(
            r#"{"lastStatus":"STOPPED","stopCode":"EssentialContainerExited","containers":[{"name":"main"}]}"#,
        );
        assert!(matches!(cause, Some(Cause::NoExitCode(_))), "{cause:?}");
        assert!(stopped(r#"{"lastStatus":"STOPPED"}"#).is_some());
    }

    #[test]
    fn exit_codes_are_the_commands_own() {
        let exit = |code: i32| {
            stopped(&format!(
                r#"{{"stopCode":"EssentialContainerExited","containers":[{{"name":"main","exitCode":{code}}}]}}"#
            ))
        };
        assert_eq!(exit(0), None);
        assert_eq!(exit(7), Some(Cause::Exit(7)));
        assert_eq!(
            exit(137).map(|c| c.to_string()).as_deref(),
            Some("the command exited with code 137 (128 + 9: killed by SIGKILL)")
        );
    }

    #[test]
    fn each_kind_of_start_failure_is_told_apart() {
        let denied = "CannotPullContainerError: pull access denied for nope, repository does not exist or may require authorization";
        assert!(matches!(failed_to_start(denied), Cause::ImageNotFound(_)));
        let net = "CannotPullContainerError: failed to resolve ref: dial tcp: i/o timeout";
        assert!(failed_to_start(net).passes());
        let hub =
            "CannotPullContainerError: toomanyrequests: You have reached your pull rate limit";
        assert!(matches!(failed_to_start(hub), Cause::Pull(_)));
        let manifest = "CannotPullContainerError: image Manifest does not contain descriptor matching platform 'linux/arm64'";
        assert!(matches!(failed_to_start(manifest), Cause::Manifest(_)));
        let secret = "ResourceInitializationError: unable to pull secrets or registry auth: unable to retrieve secret from ssm: invalid parameters: /x";
        assert!(matches!(failed_to_start(secret), Cause::Secret(_)));
        let busy = "ResourceInitializationError: unable to retrieve secret from ssm: ThrottlingException: Rate exceeded";
        assert!(matches!(failed_to_start(busy), Cause::SecretThrottled(_)));
    }

    /// A command that is told to stop may exit with 0 without having done its work.
    #[test]
    fn a_failure_has_no_exit_code_0() {
        assert_eq!(Cause::Spot(Some(0)).exit_code(), None);
        assert_eq!(Cause::OutOfMemory(Some(0)).exit_code(), None);
        assert_eq!(Cause::Spot(Some(143)).exit_code(), Some(143));
    }

    #[test]
    fn memory_spot_and_hosts_are_told_apart() {
        let oom = stopped(
            r#"{"stopCode":"EssentialContainerExited","containers":[{"name":"main","exitCode":137,"reason":"OutOfMemoryError: Container killed due to memory usage"}]}"#,
        );
        assert_eq!(oom, Some(Cause::OutOfMemory(Some(137))));
        assert_eq!(
            stopped(r#"{"stopCode":"SpotInterruption"}"#),
            Some(Cause::Spot(None))
        );
        assert!(matches!(
            stopped(r#"{"stopCode":"InfrastructureHealth","stoppedReason":"bad"}"#),
            Some(Cause::Host(_))
        ));
    }
}
