use serde_json::{Value, json};

use super::super::{Arch, Capacity};
use super::*;

fn request(value: Value) -> SubmitRequest {
    serde_json::from_value(value).unwrap()
}

fn accepted(value: Value) -> LaunchRequest {
    request(value).validate(&Defaults::aws()).unwrap()
}

/// Returns the faults of a request as a user reads them, one a line.
fn faults(value: Value) -> Vec<String> {
    let faults = request(value).validate(&Defaults::aws()).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

/// Returns the one fault of a valid request with `field` set to `value`.
fn fault(field: &str, value: Value) -> String {
    let mut whole = json!({"command": "true"});
    whole[field] = value;
    let faults = faults(whole);
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.into_iter().next().unwrap()
}

#[test]
fn a_bare_command_takes_every_default() {
    let launch = accepted(json!({"command": "terraform plan"}));
    insta::assert_json_snapshot!(launch, @r#"
    {
      "command": "terraform plan",
      "source": null,
      "image": "ubuntu:22.04",
      "env": {},
      "secrets": [],
      "timeout": 3600,
      "size": {
        "cpu": 256,
        "memory": 512
      },
      "arch": "arm64",
      "capacity": "spot",
      "lock": null,
      "group": null,
      "priority": 0,
      "retries": 0,
      "retry_on": [],
      "name": null,
      "idempotency_key": null,
      "task_role": null,
      "registry_secret": null
    }
    "#);
    let local = request(json!({"command": "true"}))
        .validate(&Defaults::one_machine(Arch::X86_64))
        .unwrap();
    assert_eq!(
        (local.image, local.arch, local.capacity),
        (None, Arch::X86_64, Capacity::OnDemand)
    );
}

#[test]
fn every_key_reaches_the_run() {
    let launch = accepted(full());
    insta::assert_json_snapshot!(launch, @r#"
    {
      "command": "make",
      "source": {
        "repo": "https://github.com/me/project",
        "reference": "main"
      },
      "image": "alpine:3.20",
      "env": {
        "A": "1"
      },
      "secrets": [
        "TOKEN"
      ],
      "timeout": 5400,
      "size": {
        "cpu": 1024,
        "memory": 4096
      },
      "arch": "x86_64",
      "capacity": "on-demand",
      "lock": "prod",
      "group": "nightly",
      "priority": -3,
      "retries": 2,
      "retry_on": [
        "spot",
        "host"
      ],
      "name": "build",
      "idempotency_key": "k 1",
      "task_role": "deployer",
      "registry_secret": "ci/registry"
    }
    "#);
}

/// A request that uses every key, with numbers written in every possible way.
fn full() -> Value {
    json!({
        "action": "exec", "command": "make", "repo": "https://github.com/me/project", "branch": "main",
        "image": "alpine:3.20", "env": {"A": "1"}, "secrets": ["TOKEN"], "timeout": "1h30m", "cpu": 1024,
        "memory": "4096", "arch": "amd64", "capacity": "on-demand", "lock": "prod", "group": "nightly", "priority": -3,
        "retries": 2, "retry_on": ["host", "spot"], "name": "build", "idempotency_key": "k 1",
        "task_role": "deployer", "registry_secret": "ci/registry"
    })
}

#[test]
fn a_run_asked_for_again_is_the_same_run() {
    for place in [Defaults::aws(), Defaults::one_machine(Arch::Arm64)] {
        for value in [full(), json!({"command": "true"})] {
            let launch = request(value).validate(&place).unwrap();
            assert_eq!(
                SubmitRequest::from(&launch).validate(&Defaults {
                    timeout: Timeout::MAX,
                    ..place.clone()
                }),
                Ok(launch)
            );
        }
    }
}

#[test]
fn every_fault_is_named_at_once() {
    let faults = faults(json!({
        "action": "stop", "command": " ", "repo": "https://me:hunter2@github.com/a", "branch": "-b", "image": "Ubuntu",
        "env": {"1A": "x", "MYCLI_X": "y", "NUL": "a\u{0}b", "OK": "z"}, "secrets": ["OK", "T", "T", "a-b"],
        "timeout": "8d", "cpu": 300, "memory": "1G", "arch": "riscv", "capacity": "cheap", "lock": "-", "group": "",
        "priority": 101, "retries": 11, "retry_on": ["spot", "rain", "spot"], "name": "a b", "idempotency_key": "",
        "task_role": "a b", "registry_secret": "user:hunter2"
    }));
    insta::assert_snapshot!(faults.join("\n"), @r#"
    action: is not known: use `exec`, the only action there is
    command: is blank: say what to run, as in `terraform plan`
    repo: holds a user name or password, which would be stored with the run: remove the part before the `@` and store the token with `mycli secrets set GIT_TOKEN`
    branch: `-b` starts with `-`, which git reads as an option: name the commit's SHA instead
    image: has upper case in `Ubuntu`, image names are lower case: write `ubuntu`
    env.1A: `1A` is not a variable name: use letters, digits and `_`, starting with a letter or `_`
    env.MYCLI_X: `MYCLI_X` is reserved, because mycli uses the names that start with `MYCLI_`: choose another
    env.NUL: the value holds a NUL byte, which no environment can carry: encode it, for example as base64
    secrets[0]: `OK` is in `env` too: give it in one of the two
    secrets[2]: `T` is named twice: name it once
    secrets[3]: `a-b` is not a variable name: use letters, digits and `_`, starting with a letter or `_`
    timeout: is longer than the limit of 7d: shorten it, or split the work
    memory: `1G` is not a whole number: write MB as digits alone, as in `1024`
    cpu: 300 CPU units are not offered by Fargate: use 256, 512, 1024, 2048, 4096, 8192 or 16384 (1024 = one vCPU)
    arch: `riscv` is not known: use `arm64` or `x86_64`
    capacity: `cheap` is not known: use `spot` or `on-demand`
    lock: `-` starts with '-': start with a letter or a digit
    group: is empty: give 1 to 64 characters, or leave it out
    priority: is 101: use -100 to 100; a higher one goes first
    retries: is 11: use 0 to 10
    retry_on[1]: `rain` is not known: use `spot`, `host` or `failure`
    retry_on[2]: `spot` is named twice: name it once
    name: `a b` holds ' ': use only letters, digits, `.`, `_` and `-`
    idempotency_key: is empty: give 1 to 64 characters, or leave it out
    task_role: is neither a role's name (1 to 64 letters, digits or `+=,.@_-`) nor its ARN: write it like `my-role` or `arn:aws:iam::123456789012:role/my-role`
    registry_secret: is neither a secret's name (1 to 512 letters, digits or `/_+=.@-`) nor its ARN: write it like `registry/ci` or `arn:aws:secretsmanager:eu-west-1:123456789012:secret:registry/ci-AbCdEf`
    "#);
    assert!(!faults.join("\n").contains("hunter2"));
}

#[test]
fn the_command_must_say_something() {
    assert_eq!(
        faults(json!({})),
        ["command: is missing: say what to run, as in `terraform plan`"]
    );
    for blank in ["", " ", "\n\t "] {
        assert_eq!(
            faults(json!({"command": blank})),
            ["command: is blank: say what to run, as in `terraform plan`"]
        );
    }
    assert_eq!(
        faults(json!({"command": "a\u{0}b"})),
        ["command: holds a NUL byte, which no command can take: remove it"]
    );
    assert_eq!(accepted(json!({"command": " a\n"})).command, " a\n".into());
}

#[test]
fn words_must_name_a_program() {
    assert_eq!(
        faults(json!({"command": []})),
        [r#"command: is an empty list: say what to run, as in `["terraform", "plan"]`"#]
    );
    assert_eq!(
        faults(json!({"command": ["", "a"]})),
        ["command[0]: is blank: say what to run, as in `terraform plan`"]
    );
    assert_eq!(
        faults(json!({"command": ["a", "", "b\u{0}"]})),
        ["command[2]: holds a NUL byte, which no command can take: remove it"]
    );
    let words = ["a".to_owned(), String::new()];
    assert_eq!(
        accepted(json!({"command": words})).command,
        CommandLine::Words(words.into())
    );
}

/// A record of words is read by releases that know only text, as the text that ran there before.
#[test]
fn words_are_stored_as_text_too() {
    let launch = accepted(json!({"command": ["echo", "a b"]}));
    let stored = serde_json::to_value(&launch).unwrap();
    assert_eq!(
        (&stored["command"], &stored["is_words"]),
        (&json!("echo 'a b'"), &json!(true))
    );
    assert_eq!(
        serde_json::from_value::<LaunchRequest>(stored).unwrap(),
        launch
    );
    let text = serde_json::to_value(accepted(json!({"command": "ls"}))).unwrap();
    assert_eq!(text.get("is_words"), None);
    let mut broken = text;
    (broken["command"], broken["is_words"]) = (json!("'a"), json!(true));
    assert!(serde_json::from_value::<LaunchRequest>(broken).is_err());
}

#[test]
fn a_clone_may_be_deeper() {
    let more =
        json!({"command": "ls", "repo": "/srv/x", "depth": 5, "submodules": true, "lfs": true});
    let request: SubmitRequest = serde_json::from_value(more.clone()).unwrap();
    let source = request
        .validate(&Defaults::one_machine(Arch::Arm64))
        .unwrap()
        .source
        .unwrap();
    assert_eq!(source.depth.to_string(), "5");
    assert!(source.submodules && source.lfs);
    let stored = serde_json::to_value(&source).unwrap();
    assert_eq!(serde_json::from_value::<Source>(stored).unwrap(), source);
    let mut on_aws = more;
    on_aws["repo"] = json!("https://git.example/x");
    let request: SubmitRequest = serde_json::from_value(on_aws.clone()).unwrap();
    let same = request.validate(&Defaults::aws()).unwrap().source.unwrap();
    assert_eq!(
        (same.depth, same.submodules, same.lfs),
        (source.depth, true, true)
    );
    on_aws["depth"] = json!(0);
    assert!(faults(on_aws)[0].contains("neither a number of commits"));
    let without = json!({"command": "ls", "submodules": true});
    assert_eq!(
        faults(without),
        ["submodules: is given without a repository: add `repo`, or leave `submodules` out"]
    );
}

#[test]
fn what_is_too_large_is_told_with_its_count_but_only_once_all_else_is_right() {
    let long = "x".repeat(128_001);
    assert_eq!(
        fault("command", json!(long)),
        "command: has 128001 bytes, the limit is 128000, since Linux gives no program more in one piece: \
         put it into a file of the repository"
    );
    assert_eq!(faults(json!({"command": long, "priority": 101})).len(), 1);
    let words = faults(json!({"command": ["a", long], "env": {"LONG": "v".repeat(127_996)}}));
    let begins: Vec<_> = words
        .iter()
        .map(|fault| &fault[..fault.len().min(27)])
        .collect();
    assert_eq!(
        begins,
        ["command[1]: has 128001 byte", "env.LONG: has 128001 bytes,"]
    );
    assert!(!words[1].contains("vvv"), "no value is repeated");
    let fits = json!({"command": "x".repeat(128_000), "env": {"LONG": "v".repeat(127_995)}});
    assert!(request(fits).validate(&Defaults::aws()).is_ok());
}

#[test]
fn a_request_that_is_too_large_altogether_is_told_of_what_takes_the_most() {
    let check = |command: Value, env: Value, expected: &str| {
        let faults = faults(json!({"command": command, "env": env}));
        assert_eq!(faults, [expected]);
    };
    let (c, v) = (json!("c".repeat(100_000)), "v".repeat(99_998));
    check(
        c,
        json!({"A": v, "B": v}),
        "env: is too large: the command has 100000 bytes and the variables 200000, together 37856 over the limit of \
         262144. Put long texts into a file of the repository",
    );
    let word = "w".repeat(100_000);
    check(
        json!([word, word, word]),
        json!({"A": "b"}),
        "command: is too large: the command has 300000 bytes and the variables 3, together 37859 over the limit of \
         262144. Put long texts into a file of the repository",
    );
}

#[test]
fn a_branch_needs_a_repository() {
    assert_eq!(
        fault("branch", json!("main")),
        "branch: is given without a repository: add `repo`, or leave `branch` out"
    );
}

#[test]
fn local_repositories_are_for_one_machine() {
    assert!(fault("repo", json!("/srv/a")).starts_with("repo: is a directory on one machine"));
    let local = request(json!({"command": "true", "repo": "/srv/a"}))
        .validate(&Defaults::one_machine(Arch::Arm64));
    assert_eq!(local.unwrap().source.unwrap().repo.as_str(), "/srv/a");
}

#[test]
fn an_image_is_needed_where_no_host_shell_is() {
    let no_default = Defaults {
        image: None,
        ..Defaults::aws()
    };
    let faults = request(json!({"command": "true"}))
        .validate(&no_default)
        .unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "image: is missing, and the stack has no default: name one, as in `alpine:3.20`"
    );
    assert!(
        request(json!({"command": "true", "image": "alpine"}))
            .validate(&no_default)
            .is_ok()
    );
}

#[test]
fn a_value_in_a_variables_name_is_not_repeated() {
    let fault = fault("env", json!({"TOKEN=hunter2": ""}));
    assert!(
        fault.starts_with("env.TOKEN=: `TOKEN=` is not a variable name"),
        "{fault}"
    );
}

#[test]
fn numbers_may_be_quoted_but_not_have_units() {
    for timeout in [json!(90), json!("90"), json!("90s"), json!("1m30s")] {
        assert_eq!(
            accepted(json!({"command": "true", "timeout": timeout}))
                .timeout
                .seconds(),
            90
        );
    }
    for memory in [json!(2048), json!("2048")] {
        assert_eq!(
            accepted(json!({"command": "true", "memory": memory}))
                .size
                .memory(),
            2048
        );
    }
    assert_eq!(
        fault("memory", json!("2GB")),
        "memory: `2GB` is not a whole number: write MB as digits alone, as in `1024`"
    );
    assert_eq!(
        fault("cpu", json!(-1)),
        "cpu: `-1` is not a whole number: write CPU units as digits alone, as in `1024`"
    );
    assert!(fault("timeout", json!(-1)).starts_with("timeout: `-1` is not a duration"));
}

#[test]
fn a_size_by_half_is_completed_and_a_wrong_pair_is_told_the_right_ones() {
    let pair = |value: Value| {
        let size = accepted(value).size;
        (size.cpu(), size.memory())
    };
    assert_eq!(pair(json!({"command": "true", "cpu": 1024})), (1024, 2048));
    assert_eq!(
        pair(json!({"command": "true", "memory": 4096})),
        (512, 4096)
    );
    assert_eq!(
        faults(json!({"command": "true", "cpu": 1024, "memory": 512})),
        [
            "memory: 512 MB does not go with 1024 CPU units on Fargate: use 2048 to 8192 in steps of 1024"
        ]
    );
    assert_eq!(
        faults(json!({"command": "true", "cpu": 300, "memory": 700})).len(),
        2
    );
    assert!(
        fault("cpu", json!(257))
            .starts_with("cpu: 257 CPU units are not offered by Fargate: use 256,")
    );
}

#[test]
fn the_stacks_own_timeout_limit_is_the_one_named() {
    let strict = Defaults {
        max_timeout: Timeout::HOUR,
        ..Defaults::aws()
    };
    let faults = request(json!({"command": "true", "timeout": "61m"}))
        .validate(&strict)
        .unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "timeout: is longer than the limit of 1h: shorten it, or split the work"
    );
}

#[test]
fn priority_and_retries_have_limits() {
    for priority in [-101, 101, i64::MIN, i64::MAX] {
        let expected = format!("priority: is {priority}: use -100 to 100; a higher one goes first");
        assert_eq!(fault("priority", json!(priority)), expected);
    }
    for retries in [-1, 11, 256, i64::MAX] {
        assert_eq!(
            fault("retries", json!(retries)),
            format!("retries: is {retries}: use 0 to 10")
        );
    }
    let edge = accepted(json!({"command": "true", "priority": -100, "retries": 10}));
    assert_eq!((edge.priority, edge.retries), (-100, 10));
}

#[test]
fn retries_are_for_the_causes_that_were_asked_for() {
    let allowed = |value: Value| {
        let launch = accepted(value);
        [RetryOn::Spot, RetryOn::Host, RetryOn::Failure].map(|cause| launch.retries_on(cause))
    };
    assert_eq!(allowed(json!({"command": "true"})), [false, false, false]);
    assert_eq!(
        allowed(json!({"command": "true", "retries": 1})),
        [true, true, true]
    );
    assert_eq!(
        allowed(json!({"command": "true", "retry_on": ["spot"]})),
        [true, false, false]
    );
    assert_eq!(
        allowed(json!({"command": "true", "retries": 3, "retry_on": ["spot", "host"]})),
        [true, true, false]
    );
    assert_eq!(
        allowed(json!({"command": "true", "retries": 0, "retry_on": ["spot"]})),
        [false, false, false]
    );
}

#[test]
fn unknown_keys_and_wrong_types_are_named() {
    let error = |value: Value| {
        serde_json::from_value::<SubmitRequest>(value)
            .unwrap_err()
            .to_string()
    };
    assert!(
        error(json!({"comand": "x"}))
            .starts_with("unknown field `comand`, expected one of `action`, `command`")
    );
    assert_eq!(
        error(json!({"timeout": 1.5})),
        "invalid type: floating point `1.5`, expected a text or a whole number"
    );
    assert_eq!(
        error(json!({"env": {"A": 1}})),
        "invalid type: integer `1`, expected a string"
    );
    assert_eq!(
        request(json!({"env": null, "secrets": null, "retry_on": null, "repo": null})),
        SubmitRequest::default()
    );
}

#[test]
fn debug_shows_no_value_and_no_credential() {
    let value = json!({
        "command": "true", "env": {"TOKEN": "hunter2", "X=hunter2": ""}, "repo": "https://me:hunter2@host/a"
    });
    assert_eq!(
        format!("{:?}", request(value)),
        r#"SubmitRequest {"command":"true","repo":"https://…@host/a","env":{"TOKEN":"7 bytes","X=":"0 bytes"}}"#
    );
    let launch = accepted(json!({"command": "true", "env": {"TOKEN": "hunter2"}}));
    assert!(!format!("{launch:?}").contains("hunter2"));
}

#[test]
fn a_list_of_values_is_no_request() {
    for list in [json!([]), json!(["exec", "true"])] {
        let error = serde_json::from_value::<SubmitRequest>(list.clone()).unwrap_err();
        assert!(
            error.to_string().contains("expected a request"),
            "{list}: {error}"
        );
    }
    let line = serde_json::from_value::<crate::api::BulkRequest>(
        json!({"submission_id": "s", "executions": [["exec", "true"]]}),
    );
    assert!(line.is_err(), "{line:?}");
}
