//! The ECS adapter on the wire.

use aws::ecs::{EcsTasks, Registration};
use domain::{
    attempt_secret::AttemptSecret,
    ecs::{
        ContainerOverride, EphemeralStorage, KeyValuePair, NetworkConfiguration, RunTaskInput,
        StopCode, Tag, TaskOverride,
    },
    execution::Execution,
    git_access::GitAccess,
    id::AttemptId,
    ports::{LaunchError, Tasks},
    request::Arch,
    settings::Settings,
    task::{self, AttemptProof, SecretMapping, TaskDefinition},
};
use serde_json::json;

use super::stand_in::{
    Answer::{self, Cut, File},
    StandIn,
};
use crate::contract::records::{Wish, settings};

const CLUSTER: &str = "mycli-team";
const ATTEMPT: &str = "exec_01KAPR1BX00000000000000000-1";
const TASK: &str =
    "arn:aws:ecs:eu-west-1:111122223333:task/mycli-team/0123456789abcdef0123456789abcdef";

fn tasks(stand_in: &StandIn) -> EcsTasks {
    let registration = Registration {
        family_prefix: CLUSTER.into(),
        execution_role: "arn:aws:iam::111122223333:role/mycli/team/execution".into(),
        task_role: "arn:aws:iam::111122223333:role/mycli/team/task".into(),
        secrets_path: "/mycli/team/secrets/".into(),
        region: "eu-west-1".into(),
    };
    EcsTasks::new(&stand_in.config(), CLUSTER.into(), Some(registration))
}

fn input() -> RunTaskInput {
    RunTaskInput {
        cluster: CLUSTER.into(),
        task_definition:
            "arn:aws:ecs:eu-west-1:111122223333:task-definition/mycli-team-0011223344556677:1"
                .into(),
        client_token: ATTEMPT.into(),
        started_by: ATTEMPT.into(),
        count: 1,
        capacity_provider: Some("FARGATE_SPOT".into()),
        tags: vec![Tag {
            key: "mycli:stack".into(),
            value: "team".into(),
        }],
        network_configuration: Some(NetworkConfiguration {
            subnets: vec!["subnet-a".into(), "subnet-b".into(), "subnet-c".into()],
            security_groups: vec!["sg-a".into()],
            assign_public_ip: true,
        }),
        overrides: TaskOverride {
            cpu: "1024".into(),
            memory: "2048".into(),
            ephemeral_storage: Some(EphemeralStorage { size_in_gib: 50 }),
            task_role_arn: Some("arn:aws:iam::111122223333:role/mycli/team/deployer".into()),
            container_overrides: vec![ContainerOverride {
                name: "main".into(),
                environment: vec![KeyValuePair {
                    name: "MYCLI_COMMAND".into(),
                    value: "make \"deploy\"".into(),
                }],
            }],
        },
    }
}

/// The tags let an account split its costs by stack, submitter and group.
#[test]
fn a_task_is_tagged_with_stack_submitter_and_group() {
    let tags = |execution: &Execution, stack: Option<&str>| {
        let settings = Settings {
            task_tags: stack.map(str::to_owned),
            ..settings()
        };
        let input = task::run_task(
            execution,
            "arn",
            AttemptProof::Nonce(&AttemptSecret::of_bits(0)),
            &GitAccess::default(),
            &settings,
        );
        input
            .tags
            .into_iter()
            .map(|tag| format!("{}={}", tag.key, tag.value))
            .collect::<Vec<_>>()
    };
    let mut execution = Wish {
        group: Some("nightly"),
        ..Wish::of("alice", 0)
    }
    .execution();
    let all = [
        "mycli:stack=team",
        "mycli:submitter=alice",
        "mycli:group=nightly",
    ];
    assert_eq!(tags(&execution, Some("team")), all);
    assert_eq!(tags(&execution, None), [""; 0]);
    execution.request.group = None;
    // A name from before names were checked.
    execution.submitted_by = "Bob <bob@example.com>".into();
    assert_eq!(
        tags(&execution, Some("team")),
        ["mycli:stack=team", "mycli:submitter=Bob _bob@example.com_"]
    );
}

fn definition() -> TaskDefinition {
    TaskDefinition {
        image: Some("ghcr.io/team/tool:1".parse().unwrap()),
        arch: Arch::Arm64,
        entry_point: vec!["/mycli/mycli-runner".into()],
        command: vec!["run".into()],
        secrets: ["DEPLOY_TOKEN", "MYCLI_GIT_TOKEN"]
            .map(|name| SecretMapping {
                name: name.into(),
                value_from: name.replace("MYCLI_", ""),
            })
            .into(),
        registry_secret: Some("mycli/team/ghcr".parse().unwrap()),
        log_group: "/aws/mycli/team".into(),
        helpers: Some(tests::ecs::runner_images()),
        fetches: true,
    }
}

/// Returns the error of a launch that gets this answer, and how often ECS was called.
async fn launched(answer: Answer) -> (LaunchError, usize) {
    let stand_in = StandIn::always(answer).await;
    let error = tasks(&stand_in).run_task(&input()).await.unwrap_err();
    (error, stand_in.calls().len())
}

#[tokio::test]
async fn a_task_is_started_exactly_as_it_is_stored() {
    let stand_in = StandIn::always(File(200, "run-task-started.json")).await;
    let task = tasks(&stand_in).run_task(&input()).await.unwrap();
    insta::assert_json_snapshot!("run_task", stand_in.calls()[0].body);
    assert_eq!(
        (
            task.task_arn.as_str(),
            task.last_status.as_str(),
            task.version
        ),
        (TASK, "PROVISIONING", 1)
    );
    assert_eq!(task.attempt().unwrap().to_string(), ATTEMPT);
    assert_eq!(
        task.created_at.unwrap().timestamp_millis(),
        1_795_478_400_123
    );
    assert_eq!(task.container().unwrap().exit_code, None);
}

#[tokio::test]
async fn what_is_not_asked_for_is_left_to_ecs() {
    let stand_in = StandIn::always(File(200, "run-task-started.json")).await;
    let mut input = input();
    input.capacity_provider = None;
    input.network_configuration = None;
    input.overrides.task_role_arn = None;
    tasks(&stand_in).run_task(&input).await.unwrap();
    let body = &stand_in.calls()[0].body;
    assert_eq!(
        (body.get("launchType"), body.get("capacityProviderStrategy")),
        (None, None)
    );
    assert_eq!(body.get("networkConfiguration"), None);
    assert_eq!(body["overrides"].get("taskRoleArn"), None);
}

#[tokio::test]
async fn a_want_of_room_is_one_and_says_so_in_ecs_own_words() {
    for (file, words) in [
        (
            "run-task-vcpu-limit.json",
            "ECS: You've reached the limit on the number of vCPUs you can run concurrently",
        ),
        (
            "run-task-no-capacity.json",
            "ECS: Capacity is unavailable at this time. Please try again later or in a different availability zone",
        ),
        ("run-task-resource.json", "ECS: RESOURCE:ENI"),
        (
            "run-task-unheard-of.json",
            "ECS: SOLAR_FLARE (the region is being shielded)",
        ),
    ] {
        let (error, calls) = launched(File(200, file)).await;
        assert!(
            matches!(&error, LaunchError::Full { words: said, .. } if said == words),
            "{file}: {error:?}"
        );
        assert_eq!(calls, 1);
    }
}

#[tokio::test]
async fn every_shape_of_a_throttle_is_one() {
    for (status, file) in [
        (400, "throttled.json"),
        (400, "throttled-by-ec2.json"),
        (400, "throttled-family.json"),
        (429, "bad-gateway.html"),
        (400, "expired-token.json"),
    ] {
        let (error, calls) = launched(File(status, file)).await;
        assert!(
            matches!(error, LaunchError::Throttled(_)),
            "{file}: {error:?}"
        );
        assert_eq!(
            calls, 1,
            "the launcher decides about the next call, not the SDK"
        );
    }
}

#[tokio::test]
async fn what_may_have_started_a_task_is_unknown_and_not_repeated_by_itself() {
    for answer in [
        File(500, "server-error.json"),
        File(400, "server-error.json"),
        File(502, "bad-gateway.html"),
        File(200, "garbage.txt"),
        File(200, "run-task-neither.json"),
        Cut(200, "run-task-started.json"),
        Cut(500, "server-error.json"),
    ] {
        let (error, calls) = launched(answer.clone()).await;
        assert!(
            matches!(error, LaunchError::Unknown(_)),
            "{answer:?}: {error:?}"
        );
        assert_eq!(calls, 1, "{answer:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_unknown_too() {
    let stand_in = StandIn::always(File(200, "run-task-started.json")).await;
    let tasks = tasks(&stand_in);
    drop(stand_in);
    let error = tasks.run_task(&input()).await.unwrap_err();
    assert!(matches!(error, LaunchError::Unknown(_)), "{error:?}");
    assert!(!error.to_string().contains("MYCLI_COMMAND"), "{error}");
}

#[tokio::test]
async fn what_can_never_be_started_is_refused_with_the_way_out() {
    for (file, remedy) in [
        (
            "access-denied.json",
            "iam:PassRole on resource: arn:aws:iam::111122223333:role/mycli/team/deployer",
        ),
        ("blocked.json", "AWS Support"),
        ("no-cluster.json", "mycli doctor"),
        ("platform.json", "--arch"),
        ("unsupported.json", "--on-demand"),
    ] {
        let (error, _) = launched(File(400, file)).await;
        assert!(
            matches!(&error, LaunchError::Refused(words) if words.contains(remedy)),
            "{file}: {error:?}"
        );
    }
    let (error, _) = launched(File(200, "run-task-attribute.json")).await;
    assert!(matches!(error, LaunchError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_definition_that_is_gone_is_said_to_be() {
    for file in ["definition-inactive.json", "definition-deleted.json"] {
        let (error, _) = launched(File(400, file)).await;
        assert!(
            matches!(error, LaunchError::NoDefinition(_)),
            "{file}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_token_that_is_known_is_answered_with_its_task() {
    let stand_in = StandIn::new(|call, _| match call.operation.as_str() {
        "RunTask" => File(400, "conflict.json"),
        _ => File(200, "describe-tasks.json"),
    })
    .await;
    let task = tasks(&stand_in).run_task(&input()).await.unwrap();
    assert_eq!(
        (task.task_arn.as_str(), task.started_by.as_deref()),
        (TASK, Some(ATTEMPT))
    );
    assert_eq!(stand_in.operations(), ["RunTask", "DescribeTasks"]);
    assert_eq!(
        stand_in.calls()[1].body,
        json!({ "cluster": CLUSTER, "tasks": [TASK] })
    );
}

#[tokio::test]
async fn a_known_token_whose_task_is_not_shown_yet_is_asked_about_again() {
    let stand_in = StandIn::new(|call, _| match call.operation.as_str() {
        "RunTask" => File(400, "conflict.json"),
        _ => File(200, "run-task-neither.json"),
    })
    .await;
    let error = tasks(&stand_in).run_task(&input()).await.unwrap_err();
    assert!(matches!(error, LaunchError::Unknown(_)), "{error:?}");
}

#[tokio::test]
async fn a_definition_is_registered_whole_and_holds_no_secret() {
    let stand_in = StandIn::always(File(200, "register-task-definition.json")).await;
    let arn = tasks(&stand_in)
        .register_definition(&definition())
        .await
        .unwrap();
    assert_eq!(
        arn,
        "arn:aws:ecs:eu-west-1:111122223333:task-definition/mycli-team-0011223344556677:1"
    );
    let mut body = stand_in.calls()[0].body.clone();
    let family = std::mem::replace(&mut body["family"], json!("by content"));
    assert_eq!(family, format!("{CLUSTER}-{}", definition().content_hash()));
    insta::assert_json_snapshot!("register_task_definition", body);
}

/// Without a repository nothing is fetched and no workspace is mounted. With an image for git, that
/// one fetches.
#[tokio::test]
async fn there_is_a_container_for_what_there_is_to_do() {
    let names = async |definition: &TaskDefinition| {
        let stand_in = StandIn::always(File(200, "register-task-definition.json")).await;
        let registered = tasks(&stand_in).register_definition(definition).await;
        registered.unwrap();
        stand_in.calls()[0].body.clone()
    };
    let plain = TaskDefinition {
        fetches: false,
        ..definition()
    };
    let body = names(&plain).await;
    let containers = body["containerDefinitions"].as_array().unwrap();
    let of = |key: &str| -> Vec<_> { containers.iter().map(|one| one[key].clone()).collect() };
    assert_eq!(of("name"), ["init", "main"]);
    assert_eq!(of("command"), [json!(["init", "/mycli"]), json!(["run"])]);
    assert_eq!(body["volumes"], json!([{ "name": "mycli" }]));
    let git = "public.ecr.aws/team/git:2";
    let mut by_git = definition();
    by_git.helpers.as_mut().unwrap().git = Some(git.parse().unwrap());
    assert_ne!(by_git.content_hash(), definition().content_hash());
    assert_ne!(plain.content_hash(), definition().content_hash());
    let body = names(&by_git).await;
    let fetch = &body["containerDefinitions"][1];
    assert_eq!(
        (&fetch["name"], &fetch["image"]),
        (&json!("fetch"), &json!(git))
    );
    assert_eq!(
        fetch["command"],
        json!(["fetch-for-main", "/workspace", "--git=system"])
    );
}

#[tokio::test]
async fn a_registration_that_is_throttled_is_waited_for_and_not_repeated_by_itself() {
    for file in ["throttled.json", "throttled-family.json"] {
        let stand_in = StandIn::always(File(400, file)).await;
        let error = tasks(&stand_in)
            .register_definition(&definition())
            .await
            .unwrap_err();
        assert!(
            matches!(error, LaunchError::Throttled(_)),
            "{file}: {error:?}"
        );
        assert_eq!(stand_in.calls().len(), 1);
    }
}

#[tokio::test]
async fn a_task_without_an_image_is_refused_before_ecs_is_asked() {
    let stand_in = StandIn::always(File(200, "register-task-definition.json")).await;
    let imageless = TaskDefinition {
        image: None,
        ..definition()
    };
    let error = tasks(&stand_in)
        .register_definition(&imageless)
        .await
        .unwrap_err();
    assert!(matches!(error, LaunchError::Refused(_)), "{error:?}");
    assert_eq!(stand_in.operations().len(), 0);
}

#[tokio::test]
async fn a_described_task_is_the_same_as_its_event() {
    let stand_in = StandIn::always(File(200, "describe-tasks.json")).await;
    let unknown =
        "arn:aws:ecs:eu-west-1:111122223333:task/mycli-team/ffffffffffffffffffffffffffffffff";
    let described = tasks(&stand_in)
        .describe_tasks(&[TASK.into(), unknown.into()])
        .await
        .unwrap();
    assert_eq!(described.missing, [unknown]);
    let task = &described.tasks[0];
    assert_eq!(
        (task.version, &task.stop_code),
        (6, &Some(StopCode::EssentialContainerExited))
    );
    let event: serde_json::Value =
        serde_json::from_str(include_str!("fixtures/events/exit-3.json")).unwrap();
    let of_event: domain::ecs::Task = serde_json::from_value(event["detail"].clone()).unwrap();
    assert_eq!(*task, of_event);
}

#[tokio::test]
async fn nothing_is_asked_about_no_tasks() {
    let stand_in = StandIn::always(File(200, "describe-tasks.json")).await;
    assert!(
        tasks(&stand_in)
            .describe_tasks(&[])
            .await
            .unwrap()
            .tasks
            .is_empty()
    );
    assert_eq!(stand_in.operations().len(), 0);
}

#[tokio::test]
async fn a_look_at_tasks_is_repeated_by_itself() {
    let stand_in = StandIn::new(|_, before| match before {
        0 => File(400, "throttled.json"),
        1 => File(500, "server-error.json"),
        _ => File(200, "describe-tasks.json"),
    })
    .await;
    let described = tasks(&stand_in)
        .describe_tasks(&[TASK.into()])
        .await
        .unwrap();
    assert_eq!((described.tasks.len(), stand_in.calls().len()), (1, 3));
}

#[tokio::test]
async fn an_attempts_tasks_are_listed_running_and_stopped_page_by_page_each_once() {
    let stand_in = StandIn::new(|call, _| {
        match (
            call.body["desiredStatus"].as_str(),
            call.body.get("nextToken"),
        ) {
            (Some("RUNNING"), None) => File(200, "list-tasks-1.json"),
            (Some("RUNNING"), Some(_)) => File(200, "list-tasks-2.json"),
            _ => File(200, "list-tasks-stopped.json"),
        }
    })
    .await;
    let attempt: AttemptId = ATTEMPT.parse().unwrap();
    let arns = tasks(&stand_in).list_tasks(&attempt).await.unwrap();
    let digits: Vec<_> = arns
        .iter()
        .filter_map(|arn| arn.as_str().chars().last())
        .collect();
    assert_eq!(digits, ['1', '2', '3']);
    for call in stand_in.calls() {
        assert_eq!(call.body["startedBy"], ATTEMPT);
        assert_eq!(
            (call.body.get("family"), call.body.get("launchType")),
            (None, None)
        );
    }
}

#[tokio::test]
async fn a_task_is_stopped_for_a_reason_and_one_that_is_over_is_no_error() {
    let stand_in = StandIn::always(File(400, "task-unknown.json")).await;
    let tasks = tasks(&stand_in);
    tasks
        .stop_task(&TASK.into(), &"é".repeat(2000))
        .await
        .unwrap();
    let body = &stand_in.calls()[0].body;
    assert_eq!(
        (&body["cluster"], &body["task"]),
        (&json!(CLUSTER), &json!(TASK))
    );
    assert_eq!(body["reason"].as_str().unwrap().chars().count(), 1024);
}

#[tokio::test]
async fn a_stop_that_is_not_answered_is_said() {
    let stand_in = StandIn::always(File(500, "server-error.json")).await;
    let error = tasks(&stand_in)
        .stop_task(&TASK.into(), "cancelled")
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "ECS is unavailable: ServerException: Service Unavailable. Please try again later."
    );
}
