//! Why an attempt failed, in plain words, and whether another attempt may succeed.

use self::start_failure::start_failure;
use crate::{
    container::{FETCH, INIT, RUNNING_WITHIN_MINUTES},
    ecs::{Container, StopCode, Task},
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
    /// A container of ours failed, for this cause, before the command started.
    Helper(&'static str, Box<Cause>),
    /// The task did not run within [`RUNNING_WITHIN_MINUTES`] of its launch, and was stopped.
    Stuck,
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
            Self::Helper(_, cause) => cause.passes(),
            Self::Pull(_)
            | Self::Stuck
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
            Self::Helper(container, cause) => match &**cause {
                Self::OutOfMemory(_) => write!(
                    f,
                    "out of memory: container {container}, which fetches the repository, used more than the task has; ask for \
                     more with --memory"
                ),
                Self::Exit(code) => write!(f, "container {container} of mycli failed with exit code {code}"),
                Self::Manifest(why) | Self::ImageNotFound(why) | Self::Pull(why) | Self::EntryPoint(why) => write!(
                    f,
                    "container {container} of mycli could not start, which is no fault of this run (`mycli doctor` looks at its \
                     image, `mycli upgrade` pushes it again): {why}"
                ),
                cause => write!(f, "container {container} of mycli: {cause}"),
            },
            Self::Stuck => write!(
                f,
                "the task did not run within {RUNNING_WITHIN_MINUTES} minutes of its launch, and was stopped"
            ),
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
    // ECS gives an exit code (143) also to a container that never ran (amazon-ecs-agent PR#3218).
    let exit_code = container
        .and_then(|c| c.exit_code)
        .filter(|_| said.of_its_run());
    let words = words(task);
    if container
        .and_then(|c| c.reason.as_deref())
        .is_some_and(is_out_of_memory)
    {
        // Only what runs uses memory.
        return Some(Cause::OutOfMemory(container.and_then(|c| c.exit_code)));
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
        Some(StopCode::TaskFailedToStart) => {
            return Some(helper_failure(task).unwrap_or_else(|| start_failure(words)));
        }
        // Public reports show Spot events without a stop code.
        Some(StopCode::Other(_)) | None if words.contains("Spot Task was interrupted") => {
            return Some(Cause::Spot(exit_code));
        }
        Some(StopCode::EssentialContainerExited | StopCode::Other(_)) | None => {}
    }
    if !said.of_its_command()
        && let Some(cause) = helper_failure(task)
    {
        return Some(cause);
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

/// The failure of a container of ours that ECS gives a reason for, or of `init`, without which
/// nothing can start. Other failures of `fetch` reach `main`, which tells them.
fn helper_failure(task: &Task) -> Option<Cause> {
    let of = |name: &'static str, container: &Container| {
        let cause = match (&container.reason, container.exit_code) {
            (Some(reason), code) if is_out_of_memory(reason) => Cause::OutOfMemory(code),
            (Some(reason), _) => start_failure(reason.clone()),
            (None, Some(code)) if name == INIT && code != 0 => Cause::Exit(code),
            (None, _) => return None,
        };
        Some(Cause::Helper(name, Box::new(cause)))
    };
    [INIT, FETCH]
        .into_iter()
        .find_map(|name| of(name, task.named(name)?))
}

/// ECS's messages of the task and of the container of the command, without repetition.
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

    /// The cause of a task whose command has started.
    fn stopped(json: &str) -> Option<Cause> {
        let started = MarkerFacts {
            started_at: Some(crate::Timestamp::default()),
            ..MarkerFacts::default()
        };
        of(&serde_json::from_str(json).expect("ECS's JSON"), &started)
    }

    /// The cause of a task whose log says nothing.
    fn silent(json: &str) -> Option<Cause> {
        let task = serde_json::from_str(json).expect("ECS's JSON");
        of(&task, &MarkerFacts::default())
    }

    fn said(cause: Option<Cause>) -> String {
        cause.map(|cause| cause.to_string()).unwrap_or_default()
    }

    /// ECS gives a container that never ran 143.
    #[test]
    fn an_exit_code_without_a_line_of_the_runner_is_none() {
        for code in [0, 1, 143] {
            let cause = silent(&format!(
                r#"{{"stopCode":"EssentialContainerExited","containers":[{{"name":"main","exitCode":{code}}}]}}"#
            ));
            assert!(matches!(cause, Some(Cause::NoExitCode(_))), "{cause:?}");
        }
    }

    #[test]
    fn the_container_that_failed_is_named() {
        let task = |init: &str, fetch: &str, main: &str| {
            format!(
                r#"{{"stopCode":"EssentialContainerExited","containers":[{{"name":"init"{init}}},{{"name":"fetch"{fetch}}},{{"name":"main"{main}}}]}}"#
            )
        };
        let pull = r#","reason":"CannotPullContainerError: pull image manifest has been retried 1 time(s): not found""#;
        let ours = silent(&task(pull, "", r#","exitCode":143"#));
        assert!(
            said(ours.clone()).starts_with("container init of mycli could not start"),
            "{ours:?}"
        );
        assert!(!ours.is_some_and(|cause| cause.passes()));
        let slow = r#","reason":"CannotPullContainerError: dial tcp: i/o timeout""#;
        let ours = silent(&task(slow, "", ""));
        assert!(ours.is_some_and(|cause| cause.passes()));
        let failed = silent(&task(r#","exitCode":1"#, "", ""));
        assert!(said(failed).starts_with("container init of mycli failed with exit code 1"));
        // The reason that `fetch` told counts, unless ECS gives one of its own.
        let told = MarkerFacts {
            set_up_at: Some(crate::Timestamp::default()),
            set_up_failure: Some("no branch x".into()),
            ..MarkerFacts::default()
        };
        let of_task = |json: &str| of(&serde_json::from_str(json).expect("ECS's JSON"), &told);
        let main = r#","exitCode":125"#;
        let plain = of_task(&task("", r#","exitCode":1"#, main));
        assert_eq!(plain, Some(Cause::SetUp("no branch x".into())));
        let memory =
            r#","exitCode":137,"reason":"OutOfMemoryError: Container killed due to memory usage""#;
        let killed = of_task(&task("", memory, main));
        assert!(said(killed).starts_with("out of memory: container fetch"));
        // A command that ran is never blamed on what came before it.
        let ran = stopped(&task("", memory, r#","exitCode":3"#));
        assert_eq!(ran, Some(Cause::Exit(3)));
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
