//! The list of a request's keys. A new key begins here; a test (`infra::keys`) then fails until the
//! request, its changes, the API document, the flags of `exec`, the project's file and the manual
//! have it too.

use super::SubmitRequest;

/// A key of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Its name in JSON and YAML.
    pub name: &'static str,
    /// The flags of `exec` that set it. Empty for a key that has none: `command` is the argument,
    /// and `action` is always `exec`.
    pub flags: &'static [&'static str],
    /// Whether it belongs to one run, so that `.mycli.yaml` may not have it.
    pub is_of_one_run: bool,
}

const fn key(name: &'static str, flags: &'static [&'static str]) -> RequestKey {
    RequestKey {
        name,
        flags,
        is_of_one_run: false,
    }
}

const fn of_one_run(name: &'static str, flags: &'static [&'static str]) -> RequestKey {
    RequestKey {
        is_of_one_run: true,
        ..key(name, flags)
    }
}

/// All keys, in the order of the manual.
pub const KEYS: [RequestKey; 28] = [
    of_one_run("action", &[]),
    of_one_run("command", &[]),
    key("repo", &["--repo", "--no-repo"]),
    key("branch", &["--branch"]),
    key("depth", &["--depth"]),
    key("submodules", &["--submodules"]),
    key("lfs", &["--lfs"]),
    key("image", &["--image"]),
    key("env", &["--env", "--env-file"]),
    key("secrets", &["--secret"]),
    key("timeout", &["--timeout"]),
    key("cpu", &["--cpu"]),
    key("memory", &["--memory"]),
    key("storage", &["--storage"]),
    key("arch", &["--arch"]),
    key("capacity", &["--spot", "--on-demand"]),
    key("lock", &["--lock"]),
    key("group", &["--group"]),
    key("max_parallel", &["--max-parallel"]),
    key("priority", &["--priority"]),
    key("retries", &["--retries"]),
    key("retry_on", &["--retry-on"]),
    key("name", &["--name"]),
    key("artifacts", &["--artifact"]),
    key("artifacts_on", &["--artifacts-on"]),
    key("task_role", &["--task-role"]),
    key("registry_secret", &["--registry-secret"]),
    of_one_run("idempotency_key", &["--idempotency-key"]),
];

/// The first key of this request that belongs to one run; `None` if it has none.
#[must_use]
pub fn key_of_one_run(request: &SubmitRequest) -> Option<&'static str> {
    let form = serde_json::to_value(request).unwrap_or_default();
    let is_set = |key: &&RequestKey| key.is_of_one_run && form.get(key.name).is_some();
    KEYS.iter().find(is_set).map(|key| key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_one_run_is_found() {
        let request = SubmitRequest {
            cpu: Some("256".into()),
            ..SubmitRequest::default()
        };
        assert_eq!(key_of_one_run(&request), None);
        let request = SubmitRequest {
            idempotency_key: Some("a".into()),
            ..request
        };
        assert_eq!(key_of_one_run(&request), Some("idempotency_key"));
    }
}
