//! Reads ECS's answers to a launch into a typed cause, which decides what to do next.
//!
//! This needs no type of the SDK, so a model of ECS without a network uses the same code.

use domain::{
    ecs::Task,
    ports::{Described, LaunchError},
    scheduler::adaptive_limit::Shortage,
};

use crate::error::{Fault, Remedy};

/// Why ECS placed no task, in ECS's words: an entry of `failures[]`.
#[derive(Clone, Copy, Debug)]
pub struct Unplaced<'a> {
    /// `RESOURCE:ENI`, or a sentence.
    pub reason: Option<&'a str>,
    /// More about the reason.
    pub detail: Option<&'a str>,
}

/// Reads a 200 from `RunTask`: a task, or why there is none.
///
/// # Errors
/// Why there is no task. A 200 with neither a task nor a reason is [`LaunchError::Unknown`]: a task
/// may exist.
pub fn started(task: Option<Task>, failure: Option<Unplaced<'_>>) -> Result<Task, LaunchError> {
    match (task, failure) {
        (Some(task), _) => Ok(task),
        (None, Some(failure)) => Err(unplaced(failure)),
        (None, None) => Err(LaunchError::Unknown(
            "RunTask answered with neither a task nor a reason".into(),
        )),
    }
}

/// Reads a reason for not placing a task (`failures[]` in a 200; ECS Developer Guide, "API failure
/// reasons").
///
/// The vCPU limit, "Capacity is unavailable at this time" and `RESOURCE:*` mean that nothing was
/// started and that there may be room later. A reason that is not known is treated in the same way.
/// ECS accepted the request as such, or it would have answered with an error. A needless wait is
/// visible (the reason is shown beside WAITING) and can be cancelled; failing a run that could have
/// started cannot be undone. The launch is refused only for reasons that waiting cannot change:
/// their words are about container instances, and Fargate has none.
fn unplaced(failure: Unplaced<'_>) -> LaunchError {
    let reason = failure.reason.unwrap_or("no reason was given");
    let words = match failure.detail {
        Some(detail) if !detail.is_empty() => format!("ECS: {reason} ({detail})"),
        _ => format!("ECS: {reason}"),
    };
    match Fault::answered(200, None, reason).remedy {
        Remedy::Wait => LaunchError::Throttled(words),
        _ if matches!(reason, "ATTRIBUTE" | "INACTIVE" | "MISSING" | "LOCATION") => {
            LaunchError::Refused(words)
        }
        _ => full(words),
    }
}

/// The shortage, by ECS's words: it always calls a quota a limit; anything else is capacity.
fn full(words: String) -> LaunchError {
    let by_quota = words.to_lowercase().contains("limit");
    LaunchError::Full {
        shortage: if by_quota {
            Shortage::Quota
        } else {
            Shortage::Capacity
        },
        words,
    }
}

/// The answer if the token is already used with other parameters: the task it was used for.
///
/// # Errors
/// [`LaunchError::Unknown`] while ECS does not show that task.
pub fn existing(described: Described, said: &Fault) -> Result<Task, LaunchError> {
    let unseen = || LaunchError::Unknown(format!("{said}; ECS does not show that task yet"));
    described.tasks.into_iter().next().ok_or_else(unseen)
}

/// Reads an error of `RunTask` or `RegisterTaskDefinition`.
#[must_use]
pub fn refusal(fault: &Fault) -> LaunchError {
    match fault.remedy {
        Remedy::Wait => LaunchError::Throttled(fault.to_string()),
        // A refused connection is not told apart from a cut one: the same call with the same token
        // is right for both.
        Remedy::Ask => LaunchError::Unknown(fault.to_string()),
        Remedy::Change if is_full(fault) => full(format!("ECS: {}", fault.words)),
        Remedy::Change if is_first_use(fault) => full(format!(
            "ECS: {} ECS makes it when an account first uses ECS; if this error stays, run `aws iam create-service-linked-role \
             --aws-service-name ecs.amazonaws.com`",
            fault.words
        )),
        Remedy::Change if is_unknown_definition(fault) => {
            LaunchError::NoDefinition(fault.to_string())
        }
        Remedy::Change => LaunchError::Refused(format!("{fault}{}", remedy(fault))),
    }
}

/// The advice to the user or the operator about a refusal.
fn remedy(fault: &Fault) -> &'static str {
    let about_roles = ["iam:PassRole", "assume the role", "AssumeRole"]
        .iter()
        .any(|words| fault.words.contains(words));
    match fault.code.as_deref() {
        _ if fault.words.contains("above your limit") => {
            ". The account may not run a task of this size at all: ask for less, or raise its vCPU quota for Fargate in Service Quotas"
        }
        _ if about_roles => {
            ". The role has to exist under the stack's path for roles, and to trust ecs-tasks.amazonaws.com"
        }
        Some("AccessDeniedException") => {
            ". The launcher's role does not allow it, or a policy of the organisation denies it: `mycli upgrade` restores the role"
        }
        Some("BlockedException") => ". AWS has blocked the account: only AWS Support can help",
        Some("ClusterNotFoundException") => {
            ". The stack's cluster is gone: `mycli doctor` says what the stack lacks"
        }
        Some("PlatformTaskDefinitionIncompatibilityException" | "PlatformUnknownException") => {
            ". Fargate has no platform for this task here: try the other --arch, or other --cpu and --memory"
        }
        Some("UnsupportedFeatureException") => {
            ". The region lacks something that the task asks for: try --on-demand, or the other --arch"
        }
        _ => "",
    }
}

/// Whether a limit or a lack of capacity came as an error, as older clients have seen it.
fn is_full(fault: &Fault) -> bool {
    let lower = fault.words.to_lowercase();
    fault.is("LimitExceededException")
        || [
            "you've reached the limit on the number of",
            "capacity is unavailable",
        ]
        .iter()
        .any(|words| lower.contains(words))
}

/// Whether the account uses ECS for the first time. ECS's own role is then still being created, and
/// the next call finds it (reported in awslabs/fargatecli#35 and by many others). A new user's
/// first run should not fail for that.
fn is_first_use(fault: &Fault) -> bool {
    fault.is("InvalidParameterException") && fault.words.contains("service linked role")
}

/// Whether the definition was deregistered ("TaskDefinition is inactive") or deleted
/// ("TaskDefinition not found").
fn is_unknown_definition(fault: &Fault) -> bool {
    let lower = fault
        .words
        .to_lowercase()
        .replace("task definition", "taskdefinition");
    let gone = [
        "inactive",
        "not found",
        "does not exist",
        "unable to find",
        "unable to describe",
        "delete_in_progress",
    ];
    (fault.is("ClientException") || fault.is("InvalidParameterException"))
        && lower.contains("taskdefinition")
        && gone.iter().any(|words| lower.contains(words))
}

/// Whether `StopTask` failed because ECS does not know the task (any more).
#[must_use]
pub fn is_unknown_task(fault: &Fault) -> bool {
    fault.is("InvalidParameterException")
        && fault.words.to_lowercase().contains("task was not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(reason: &str) -> LaunchError {
        started(
            None,
            Some(Unplaced {
                reason: Some(reason),
                detail: None,
            }),
        )
        .unwrap_err()
    }

    fn refused(status: u16, code: &str, message: &str) -> LaunchError {
        refusal(&Fault::answered(status, Some(code), message))
    }

    #[test]
    fn a_want_of_room_is_waited_for() {
        for reason in [
            "You've reached the limit on the number of vCPUs you can run concurrently",
            "Capacity is unavailable at this time. Please try again later or in a different availability zone",
            "RESOURCE:ENI",
            "something new",
        ] {
            let error = placed(reason);
            assert!(
                matches!(&error, LaunchError::Full { words, .. } if words.contains(reason)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn what_waiting_cannot_mend_is_refused() {
        assert!(matches!(placed("ATTRIBUTE"), LaunchError::Refused(_)));
    }

    #[test]
    fn a_throttle_among_the_failures_is_one() {
        assert!(matches!(placed("Rate exceeded"), LaunchError::Throttled(_)));
    }

    #[test]
    fn a_200_that_says_nothing_is_no_answer() {
        assert!(matches!(started(None, None), Err(LaunchError::Unknown(_))));
    }

    #[test]
    fn a_definition_that_is_gone_is_registered_again() {
        for (code, words) in [
            ("ClientException", "TaskDefinition is inactive"),
            ("InvalidParameterException", "TaskDefinition is inactive"),
            ("ClientException", "TaskDefinition not found."),
            ("ClientException", "Unable to find task definition mycli:7"),
        ] {
            assert!(
                matches!(refused(400, code, words), LaunchError::NoDefinition(_)),
                "{code}: {words}"
            );
        }
        let role = "Role is not valid: the task was not found";
        assert!(matches!(
            refused(400, "ClientException", role),
            LaunchError::Refused(_)
        ));
    }

    #[test]
    fn a_refusal_says_what_can_be_done() {
        let pass_role = "User: arn:aws:sts::111122223333:assumed-role/l/l is not authorized to perform: iam:PassRole on resource: x";
        let error = refused(400, "AccessDeniedException", pass_role).to_string();
        assert!(
            error.contains("iam:PassRole on resource: x")
                && error.contains("ecs-tasks.amazonaws.com"),
            "{error}"
        );
        let error = refused(
            400,
            "AccessDeniedException",
            "not authorized to perform: ecs:RunTask",
        )
        .to_string();
        assert!(
            error.contains("ecs:RunTask") && error.contains("mycli upgrade"),
            "{error}"
        );
        for code in [
            "BlockedException",
            "ClusterNotFoundException",
            "PlatformTaskDefinitionIncompatibilityException",
            "UnsupportedFeatureException",
        ] {
            let error = refused(400, code, "no");
            assert!(
                matches!(&error, LaunchError::Refused(words) if words.len() > code.len() + 20),
                "{error:?}"
            );
        }
    }

    #[test]
    fn the_first_use_of_ecs_is_waited_for() {
        let words = "Unable to assume the service linked role. Please verify that the ECS service linked role exists.";
        let error = refused(400, "InvalidParameterException", words);
        assert!(
            matches!(&error, LaunchError::Full { words, .. } if words.contains("create-service-linked-role")),
            "{error:?}"
        );
        let of_the_task = "ECS was unable to assume the role 'arn:aws:iam::111122223333:role/mycli/team/x' that was provided for this task.";
        let error = refused(400, "ClientException", of_the_task);
        assert!(
            matches!(&error, LaunchError::Refused(words) if words.contains("ecs-tasks.amazonaws.com")),
            "{error:?}"
        );
    }

    #[test]
    fn a_size_that_the_account_may_not_have_is_refused() {
        let error = refused(
            400,
            "ClientException",
            "The requested CPU configuration is above your limit",
        );
        assert!(
            matches!(&error, LaunchError::Refused(words) if words.contains("Service Quotas")),
            "{error:?}"
        );
    }

    #[test]
    fn limits_that_come_as_errors_are_waited_for_too() {
        let limit = "You've reached the limit on the number of tasks you can run concurrently";
        assert!(matches!(
            refused(400, "ClientException", limit),
            LaunchError::Full {
                shortage: Shortage::Quota,
                ..
            }
        ));
        assert!(matches!(
            refused(400, "LimitExceededException", "limit"),
            LaunchError::Full {
                shortage: Shortage::Quota,
                ..
            }
        ));
    }
}
