//! The changes that a rerun makes to the request of an earlier run.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{CommandLine, LaunchRequest, Scalar, SubmitRequest, given};

/// The changes of a rerun: the body of `POST /executions/{id}/rerun`.
///
/// It has the keys of [`SubmitRequest`] except `action`, and nothing in it can be trusted either. A
/// key that is absent stays as it was; without any changes the same request runs again.
/// [`Changes::applied_to`] has the rules. `Debug` shows no value of `env` and no credentials in
/// `repo`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the keys of SubmitRequest, which documents them"
)]
pub struct Changes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandLine>,
    /// An empty text means no repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submodules: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lfs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Variables to set. All others stay.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "given::variables"
    )]
    pub env: BTreeMap<String, String>,
    /// All secrets; they replace the earlier list.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given::given_texts"
    )]
    pub secrets: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
    /// All causes; they replace the earlier list.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given::given_texts"
    )]
    pub retry_on: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// All patterns; they replace the earlier list. An empty list keeps no files.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given::given_texts"
    )]
    pub artifacts: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts_on: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_secret: Option<String>,
}

impl Changes {
    /// Returns the request that runs `launch` again with these changes.
    ///
    /// A key that is given replaces the earlier one. Four more rules apply:
    ///
    /// - Variables are merged by name.
    /// - A branch belongs to its repository: another repository drops it. An empty `repo` drops
    ///   both, and how to clone too.
    /// - CPU and memory are a pair: if only one is given, the other is chosen again.
    /// - The earlier idempotency key is never copied, because it would return the earlier run.
    #[must_use]
    pub fn applied_to(self, launch: &LaunchRequest) -> SubmitRequest {
        let mut request = SubmitRequest {
            idempotency_key: None,
            ..SubmitRequest::from(launch)
        };
        self.apply(&mut request);
        request
    }

    /// Applies the changes to a request as a user wrote it.
    pub fn apply(self, request: &mut SubmitRequest) {
        if self.repo.is_some() {
            (request.repo, request.branch) = (None, None);
        }
        if self.repo.as_deref() == Some("") {
            (request.depth, request.submodules, request.lfs) = (None, None, None);
        }
        if self.cpu.is_some() || self.memory.is_some() {
            (request.cpu, request.memory) = (None, None);
        }
        replace(&mut request.command, self.command);
        replace(&mut request.repo, self.repo.filter(|repo| !repo.is_empty()));
        replace(&mut request.branch, self.branch);
        replace(&mut request.depth, self.depth);
        replace(&mut request.submodules, self.submodules);
        replace(&mut request.lfs, self.lfs);
        replace(&mut request.image, self.image);
        request.env.extend(self.env);
        replace_list(&mut request.secrets, self.secrets);
        replace(&mut request.timeout, self.timeout);
        replace(&mut request.cpu, self.cpu);
        replace(&mut request.memory, self.memory);
        replace(&mut request.storage, self.storage);
        replace(&mut request.arch, self.arch);
        replace(&mut request.capacity, self.capacity);
        replace(&mut request.lock, self.lock);
        replace(&mut request.group, self.group);
        replace(&mut request.max_parallel, self.max_parallel);
        replace(&mut request.priority, self.priority);
        replace(&mut request.retries, self.retries);
        replace_list(&mut request.retry_on, self.retry_on);
        replace(&mut request.name, self.name);
        if self.artifacts.as_ref().is_some_and(Vec::is_empty) {
            request.artifacts_on = None;
        }
        replace_list(&mut request.artifacts, self.artifacts);
        replace(&mut request.artifacts_on, self.artifacts_on);
        replace(&mut request.idempotency_key, self.idempotency_key);
        replace(&mut request.task_role, self.task_role);
        replace(&mut request.registry_secret, self.registry_secret);
    }
}

fn replace<T>(value: &mut Option<T>, given: Option<T>) {
    if given.is_some() {
        *value = given;
    }
}

fn replace_list(list: &mut Vec<String>, given: Option<Vec<String>>) {
    if let Some(given) = given {
        *list = given;
    }
}

impl From<SubmitRequest> for Changes {
    /// Returns the changes that set what the request sets. An empty list sets nothing. `action` is
    /// dropped, because a rerun has no such key.
    fn from(request: SubmitRequest) -> Self {
        let given = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
        Self {
            command: request.command,
            repo: request.repo,
            branch: request.branch,
            depth: request.depth,
            submodules: request.submodules,
            lfs: request.lfs,
            image: request.image,
            env: request.env,
            secrets: given(request.secrets),
            timeout: request.timeout,
            cpu: request.cpu,
            memory: request.memory,
            storage: request.storage,
            arch: request.arch,
            capacity: request.capacity,
            lock: request.lock,
            group: request.group,
            max_parallel: request.max_parallel,
            priority: request.priority,
            retries: request.retries,
            retry_on: given(request.retry_on),
            name: request.name,
            artifacts: given(request.artifacts),
            artifacts_on: request.artifacts_on,
            idempotency_key: request.idempotency_key,
            task_role: request.task_role,
            registry_secret: request.registry_secret,
        }
    }
}

impl fmt::Debug for Changes {
    /// Writes the changes as a request that sets the same keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut request = SubmitRequest::default();
        self.clone().apply(&mut request);
        f.debug_tuple("Changes").field(&request).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::request::{Arch, Defaults};

    /// A run with every key that can be stored.
    fn before() -> LaunchRequest {
        let request = json!({
            "command": "make", "repo": "https://git.example/me/p", "branch": "v1", "image": "alpine:3",
            "env": {"A": "a", "B": "b"}, "secrets": ["S"], "timeout": "5m", "cpu": 512, "memory": 2048,
            "lock": "l", "group": "g", "max_parallel": 2, "priority": 3, "retries": 1, "retry_on": ["spot"],
            "name": "n", "idempotency_key": "k",
        });
        let request: SubmitRequest = serde_json::from_value(request).unwrap();
        request
            .validate(&Defaults::one_machine(Arch::Arm64))
            .unwrap()
    }

    fn changed(changes: Value) -> LaunchRequest {
        let changes: Changes = serde_json::from_value(changes).unwrap();
        changes
            .applied_to(&before())
            .validate(&Defaults::one_machine(Arch::X86_64))
            .unwrap()
    }

    /// Checks which keys differ from those of a rerun without changes. A null stands for a key that
    /// is gone.
    #[track_caller]
    fn check(changes: Value, expected: &Value) {
        let keys =
            |launch: &LaunchRequest| serde_json::to_value(SubmitRequest::from(launch)).unwrap();
        let mut same = keys(&changed(json!({})));
        for (key, value) in expected.as_object().unwrap() {
            match value {
                Value::Null => drop(same.as_object_mut().unwrap().remove(key)),
                value => same[key] = value.clone(),
            }
        }
        assert_eq!(keys(&changed(changes)), same);
    }

    #[test]
    fn a_larger_disk_is_asked_for_and_taken_back() {
        check(json!({"storage": 100}), &json!({"storage": "100"}));
        let large = changed(json!({"storage": "100"}));
        let changes: Changes = serde_json::from_value(json!({"storage": 20})).unwrap();
        let usual = changes.applied_to(&large);
        let usual = usual
            .validate(&Defaults::one_machine(Arch::X86_64))
            .unwrap();
        assert_eq!(usual.storage, None);
    }

    #[test]
    fn nothing_changed_is_the_same_under_no_key() {
        assert_eq!(
            changed(json!({})),
            LaunchRequest {
                idempotency_key: None,
                ..before()
            }
        );
    }

    #[test]
    fn what_is_given_replaces_and_variables_join() {
        check(
            json!({"command": "make all", "timeout": 60}),
            &json!({"command": "make all", "timeout": "1m"}),
        );
        check(
            json!({"env": {"B": "", "C": "c"}}),
            &json!({"env": {"A": "a", "B": "", "C": "c"}}),
        );
        check(json!({"env": {}}), &json!({}));
        check(json!({"secrets": ["T"]}), &json!({"secrets": ["T"]}));
        check(json!({"secrets": []}), &json!({"secrets": null}));
        check(
            json!({"retry_on": ["host"]}),
            &json!({"retry_on": ["host"]}),
        );
        check(
            json!({"idempotency_key": "new"}),
            &json!({"idempotency_key": "new"}),
        );
    }

    #[test]
    fn a_branch_goes_with_its_repository_and_cpu_with_memory() {
        check(json!({"branch": "main"}), &json!({"branch": "main"}));
        check(
            json!({"repo": "/srv/q"}),
            &json!({"repo": "/srv/q", "branch": null}),
        );
        check(
            json!({"depth": "full", "submodules": true, "lfs": true}),
            &json!({"depth": "full", "submodules": true, "lfs": true}),
        );
        check(
            json!({"command": ["make", "a b"]}),
            &json!({"command": ["make", "a b"]}),
        );
        check(
            json!({"repo": "/srv/q", "branch": "x"}),
            &json!({"repo": "/srv/q", "branch": "x"}),
        );
        check(
            json!({"repo": ""}),
            &json!({"repo": null, "branch": null, "depth": null, "submodules": null, "lfs": null}),
        );
        check(json!({"cpu": 256}), &json!({"cpu": "256", "memory": "512"}));
        check(
            json!({"cpu": 1024, "memory": 4096}),
            &json!({"cpu": "1024", "memory": "4096"}),
        );
    }

    #[test]
    fn no_other_keys_are_known() {
        for unknown in [json!({"action": "exec"}), json!({"comand": "x"})] {
            let refused = serde_json::from_value::<Changes>(unknown)
                .unwrap_err()
                .to_string();
            assert!(refused.starts_with("unknown field"), "{refused}");
        }
    }

    #[test]
    fn debug_shows_no_value_of_a_variable() {
        let changes = json!({"env": {"A": "hidden"}, "repo": "https://me:hidden@git.example/p"});
        let shown = format!("{:?}", serde_json::from_value::<Changes>(changes).unwrap());
        assert!(
            shown.contains("\"A\"") && !shown.contains("hidden"),
            "{shown}"
        );
    }
}
