//! The cause of a task's failure to start. Only the text of ECS's message distinguishes the causes:
//! there is no code for them (Developer Guide, "stopped task error codes").
//!
//! The messages are neither stable nor complete: ECS cuts them, spells them in several ways, and
//! changes them. So each rule looks for the shortest part that identifies the cause.
//! `tests/it/aws/fixtures/stop_reasons.json` has a hundred messages that public reports quote, each
//! with its source.

use super::Cause;

/// Messages of a service that throttles.
const THROTTLED: &[&str] = &[
    "throttl",
    "rate exceeded",
    "toomanyrequests",
    "too many requests",
    "request limit exceeded",
];
const FULL_DISK: &[&str] = &["no space left", "not enough space"];
const NO_VARIANT: &[&str] = &[
    "descriptor matching platform",
    "descriptor for platform",
    "no matching manifest",
    "exec format error",
];
const PULL: &[&str] = &[
    "cannotpull",
    "can’t pull the image",
    "can't pull the image",
    "pull image",
    "imagenotfound",
    "image not found",
];
/// Pull failures that another attempt cannot change.
const NO_IMAGE: &[&str] = &[
    "not found",
    "(404)",
    "no such image",
    "does not exist",
    "manifest unknown",
    "name unknown",
    "denied",
    "not authorized",
    "unauthorized",
    "403 forbidden",
    "failed to fetch anonymous token.",
    "invalid reference",
    "has the permissions",
];
const HOST: &[&str] = &[
    "internal error",
    "internalerror",
    "server error",
    "timeouterror",
    "cannotinspect",
    "cannotcreatevolumeerror",
    "provisioning to complete",
    "network interface provision",
];
/// The task, or the agent on its behalf, could not reach a service. ECS cuts a message off after
/// "retried 5 time(s)". It stands for calls without an answer, because a refused call is not
/// retried.
const UNREACHED: &[&str] = &[
    "connection issue",
    "requesterror",
    "request send failed",
    "requestcanceled",
    "deadline exceeded",
    "context deadli",
    "i/o timeout",
    "signal: killed",
    "connection reset",
    "connection refused",
    "no such host",
    "failed to resolve \"fs-",
    "retried 5 time(s)",
    "retrieve ecr registry auth: service call",
    "create network interface",
];
const REFUSED: &[&str] = &["accessdenied", "not authorized"];
const LOG: &[&str] = &["logger args", "logging driver"];
const SECRET: &[&str] = &[
    "pull secrets or registry auth",
    "fetching secret data",
    "retrieve secret",
    "retrieve parameter",
    "secrets manager",
    "parameter store",
];
const ENTRY_POINT: &[&str] = &["starting container process", "executable file not found"];

/// The cause of a task's failure to start. The order of the rules matters: several may match, and
/// the first one says more.
pub(super) fn start_failure(words: String) -> Cause {
    let lower = words.to_lowercase();
    let has = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));
    // A process of this machine has no image.
    if has(FULL_DISK) && !has(&["cannotstartprocesserror"]) {
        return Cause::Disk(words);
    }
    if has(NO_VARIANT) {
        return Cause::Manifest(words);
    }
    if has(PULL) {
        return if has(NO_IMAGE) && !has(THROTTLED) {
            Cause::ImageNotFound(words)
        } else {
            Cause::Pull(words)
        };
    }
    if has(&["assume the service linked role"]) {
        return Cause::ServiceLinkedRole(words);
    }
    if has(&["unable to assume"]) {
        return Cause::Role(words);
    }
    if has(&["capacity is unavailable"]) {
        return Cause::Capacity(words);
    }
    if has(HOST) {
        return Cause::Host(words);
    }
    if has(UNREACHED) && !has(REFUSED) {
        return Cause::Network(words);
    }
    if has(LOG) {
        return Cause::Log(words);
    }
    if has(SECRET) {
        return if has(THROTTLED) {
            Cause::SecretThrottled(words)
        } else {
            Cause::Secret(words)
        };
    }
    if has(ENTRY_POINT) {
        return Cause::EntryPoint(words);
    }
    // ECS gives only this message where the network interface could not be made. Such failures were
    // seen to be transient.
    if lower == "task failed to start" {
        return Cause::Host(words);
    }
    Cause::NeverStarted(words)
}
