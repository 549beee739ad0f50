//! The services that the emulator has: tasks, logs, an event bus, parameters, and queues with dead
//! letters.

use std::time::Duration;

use aws::{
    ecs::{EcsTasks, Registration},
    events::EventBus,
    sqs::Messages,
    ssm::{ParameterError, Parameters, VALUE_MAX},
    system::System,
};
use aws_sdk_eventbridge::types::Target;
use aws_sdk_ssm::types::ParameterType;
use aws_types::SdkConfig;
use domain::{
    announcement::Announcement,
    ecs::{RunTaskInput, TaskOverride},
    execution::ExecutionStatus,
    id::ExecutionId,
    ports::{Announcer, Entropy, Tasks},
    request::{Arch, SecretName},
    task::TaskDefinition,
};
use tests::emulator;

use crate::contract::sqs::Queues;

fn config() -> SdkConfig {
    super::config(&emulator::shared())
}

/// A unique name, because all tests share the emulator.
fn unique(what: &str) -> String {
    format!("{what}-{:016x}", System.bits() as u64)
}

#[tokio::test]
async fn parameters_are_kept_replaced_listed_without_values_and_removed() {
    let (path, other) = (
        unique("/mycli/test/secrets"),
        unique("/mycli/other/secrets"),
    );
    let parameters = Parameters::new(&config(), format!("{path}/"));
    let neighbour = Parameters::new(&config(), format!("{other}/"));
    let name = |name: &str| name.parse::<SecretName>().unwrap();
    parameters
        .put(&name("TOKEN"), &"first".to_owned().into())
        .await
        .unwrap();
    parameters
        .put(&name("TOKEN"), &"second".to_owned().into())
        .await
        .unwrap();
    parameters
        .put(&name("KEY"), &"k".repeat(VALUE_MAX).into())
        .await
        .unwrap();
    neighbour
        .put(&name("THEIRS"), &"theirs".to_owned().into())
        .await
        .unwrap();
    let listed = parameters.list().await.unwrap();
    assert_eq!(
        listed
            .iter()
            .map(|parameter| parameter.name.as_str())
            .collect::<Vec<_>>(),
        ["KEY", "TOKEN"]
    );
    assert!(listed.iter().all(|parameter| parameter.set_at.is_some()));

    let raw = aws_sdk_ssm::Client::new(&config());
    let kept = raw
        .get_parameter()
        .name(format!("{path}/TOKEN"))
        .with_decryption(true)
        .send()
        .await
        .unwrap();
    let kept = kept.parameter.unwrap();
    assert_eq!(
        (kept.value(), kept.r#type().map(ParameterType::as_str)),
        (Some("second"), Some("SecureString"))
    );

    let gone = ["TOKEN".to_owned(), "KEY".to_owned(), "NEVER_SET".to_owned()];
    parameters.remove(&gone).await.unwrap();
    parameters.remove(&gone).await.unwrap();
    assert_eq!(parameters.list().await.unwrap(), []);
    assert_eq!(neighbour.list().await.unwrap().len(), 1);
    neighbour.remove(&["THEIRS".to_owned()]).await.unwrap();
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_refused_without_being_shown() {
    let parameters = Parameters::new(&config(), "/mycli/test/never/".into());
    let name: SecretName = "TOKEN".parse().unwrap();
    let error = parameters
        .put(&name, &"s3cr3t".repeat(1000).into())
        .await
        .unwrap_err();
    assert!(matches!(error, ParameterError::TooLong(6000)), "{error:?}");
    assert!(
        error.to_string().contains("6000 bytes") && !error.to_string().contains("s3cr3t"),
        "{error}"
    );
    let empty = parameters
        .put(&name, &String::new().into())
        .await
        .unwrap_err();
    assert!(matches!(empty, ParameterError::Empty), "{empty:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_announced_to_a_rule_that_asks_for_it() {
    let queues = Queues::new(&emulator::shared()).await;
    let client = aws_sdk_eventbridge::Client::new(&config());
    let rule = unique("mycli-test");
    let pattern = r#"{"source":["mycli"],"detail-type":["Execution State Change"],"detail":{"submitted_by":["RULE"]}}"#;
    client
        .put_rule()
        .name(&rule)
        .event_pattern(pattern.replace("RULE", &rule))
        .send()
        .await
        .unwrap();
    let target = Target::builder()
        .id("queue")
        .arn(queues.control_arn().await)
        .build()
        .unwrap();
    client
        .put_targets()
        .rule(&rule)
        .targets(target)
        .send()
        .await
        .unwrap();

    let announcement = |number, by: &str| Announcement {
        execution_id: ExecutionId::new(domain::Timestamp::default(), number),
        status: ExecutionStatus::Succeeded,
        exit_code: Some(0),
        reason: None,
        name: None,
        group: None,
        repo: None,
        branch: None,
        commit: None,
        submitted_by: by.into(),
        submitted_at: domain::Timestamp::default(),
        started_at: None,
        stopped_at: None,
        attempts: 1,
        cost: None,
    };
    let bus = EventBus::new(&config(), "default".into());
    let mut all: Vec<_> = (0..12).map(|number| announcement(number, &rule)).collect();
    all.push(announcement(99, "somebody else"));
    bus.announce(&all).await.unwrap();

    let mut got = Vec::new();
    while got.len() < 12 {
        let received = queues
            .control()
            .receive(10, Duration::from_secs(60))
            .await
            .unwrap();
        assert!(!received.is_empty(), "only {} of 12 came", got.len());
        got.extend(received.into_iter().map(|message| {
            let event: serde_json::Value = serde_json::from_str(&message.body).unwrap();
            serde_json::from_value::<Announcement>(event["detail"].clone())
                .unwrap()
                .execution_id
        }));
    }
    got.sort();
    let mut expected: Vec<_> = all[..12]
        .iter()
        .map(|announcement| announcement.execution_id.clone())
        .collect();
    expected.sort();
    assert_eq!(got, expected);
    client
        .remove_targets()
        .rule(&rule)
        .ids("queue")
        .send()
        .await
        .unwrap();
    client.delete_rule().name(&rule).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_without_being_taken_and_redriven_to_where_they_were() {
    let queues = Queues::new(&emulator::sqs_endpoint()).await;
    let (dead, source): (Messages, Messages) = (queues.control_dead(), queues.control());
    for number in 0..13 {
        queues.put_dead(&format!("letter {number}")).await;
    }
    assert_eq!(dead.count().await.unwrap(), 13);
    for _ in 0..2 {
        let listed = dead.list(100).await.unwrap();
        let mut bodies: Vec<_> = listed.iter().map(|letter| letter.body.clone()).collect();
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), 13);
        assert!(
            listed
                .iter()
                .all(|letter| letter.sent_at.is_some() && !letter.message_id.is_empty())
        );
    }
    assert_eq!(dead.list(3).await.unwrap().len(), 3);
    assert_eq!(dead.redrive(&source, 4).await.unwrap(), 4);
    assert_eq!(dead.redrive(&source, 100).await.unwrap(), 9);
    assert_eq!(
        (
            dead.list(100).await.unwrap().len(),
            source.list(100).await.unwrap().len()
        ),
        (0, 13)
    );
    assert_eq!(
        queues.all_control_dead().await,
        0,
        "what was moved is still there, hidden"
    );
    assert_eq!(dead.redrive(&source, 100).await.unwrap(), 0);
}

#[tokio::test]
async fn a_task_is_registered_started_listed_described_and_stopped() {
    let client = aws_sdk_ecs::Client::new(&config());
    let cluster = unique("mycli-test");
    client
        .create_cluster()
        .cluster_name(&cluster)
        .send()
        .await
        .unwrap();
    let registration = Registration {
        family_prefix: cluster.clone(),
        execution_role: "arn:aws:iam::000000000000:role/execution".into(),
        task_role: "arn:aws:iam::000000000000:role/task".into(),
        secrets_path: "/mycli/test/secrets/".into(),
        region: emulator::REGION.into(),
    };
    let tasks = EcsTasks::new(&config(), cluster.clone(), Some(registration));
    let definition = TaskDefinition {
        image: Some("ubuntu:22.04".parse().unwrap()),
        arch: Arch::Arm64,
        entry_point: vec!["/mycli/mycli-runner".into()],
        command: vec!["run".into()],
        secrets: Vec::new(),
        registry_secret: None,
        log_group: "/aws/mycli/test".into(),
        helpers: Some(tests::ecs::runner_images()),
        fetches: true,
    };
    let arn = tasks.register_definition(&definition).await.unwrap();
    assert!(
        arn.contains(&format!(
            "task-definition/{cluster}-{}",
            definition.content_hash()
        )),
        "{arn}"
    );

    let attempt = ExecutionId::new(domain::Timestamp::default(), System.bits()).attempt(1);
    let input = RunTaskInput {
        cluster: cluster.clone(),
        task_definition: arn,
        client_token: attempt.to_string(),
        started_by: attempt.to_string(),
        count: 1,
        capacity_provider: Some("FARGATE_SPOT".into()),
        tags: Vec::new(),
        network_configuration: None,
        overrides: TaskOverride {
            cpu: "256".into(),
            memory: "512".into(),
            ephemeral_storage: None,
            task_role_arn: None,
            container_overrides: Vec::new(),
        },
    };
    let task = tasks.run_task(&input).await.unwrap();
    assert_eq!(task.attempt(), Some(attempt.clone()));
    assert_eq!(
        tasks.list_tasks(&attempt).await.unwrap(),
        std::slice::from_ref(&task.task_arn)
    );
    let nobody = ExecutionId::new(domain::Timestamp::default(), System.bits()).attempt(1);
    assert_eq!(tasks.list_tasks(&nobody).await.unwrap().len(), 0);

    tasks
        .stop_task(&task.task_arn, "the test is over")
        .await
        .unwrap();
    let described = tasks
        .describe_tasks(std::slice::from_ref(&task.task_arn))
        .await
        .unwrap();
    assert_eq!(
        described.tasks[0].last_status,
        domain::ecs::TaskStatus::Stopped
    );
    let listed = tasks.list_tasks(&attempt).await.unwrap();
    assert_eq!(
        listed,
        std::slice::from_ref(&task.task_arn),
        "a stopped task is found too"
    );
    tasks.stop_task(&task.task_arn, "again").await.unwrap();
    client
        .delete_cluster()
        .cluster(&cluster)
        .send()
        .await
        .unwrap();
}
