//! Converts between the domain's types and those of ECS's SDK.

use aws_sdk_ecs::{
    operation::{
        register_task_definition::builders::RegisterTaskDefinitionInputBuilder,
        run_task::builders::RunTaskInputBuilder,
    },
    types::{
        AssignPublicIp, AwsVpcConfiguration, CapacityProviderStrategyItem, Compatibility,
        Container as SdkContainer, ContainerDefinition, ContainerOverride as SdkContainerOverride,
        CpuArchitecture, KeyValuePair as SdkPair, LogConfiguration, LogDriver,
        NetworkConfiguration as SdkNetwork, NetworkMode, OsFamily, RepositoryCredentials,
        RuntimePlatform, Secret, Tag as SdkTag, Task as SdkTask, TaskOverride as SdkTaskOverride,
    },
};
use aws_smithy_types::DateTime;
use domain::{
    Timestamp,
    ecs::{
        CONTAINER, Container, ContainerOverride, KeyValuePair, NetworkConfiguration, RunTaskInput,
        STREAM_PREFIX, StopCode, Tag, Task, TaskStatus,
    },
    request::{Arch, TaskSize},
    task::{SecretMapping, TaskDefinition},
    transition::GRACE_SECONDS,
};

use super::Registration;

/// How long a task has between TERM and KILL when ECS stops it. Fargate allows 2 to 120 s; its
/// default is 30 (ECS API reference, `ContainerDefinition`). The value must exceed the script's own
/// grace, or the script could not report how its command ended.
const STOP_TIMEOUT_SECONDS: i32 = 30;
const _: () = assert!(STOP_TIMEOUT_SECONDS as u32 > GRACE_SECONDS);

/// The call that registers a definition.
///
/// Fargate requires CPU and memory, and every run overrides them. So every definition gets the
/// smallest pair.
pub(super) fn definition(
    definition: &TaskDefinition,
    registration: &Registration,
) -> Result<RegisterTaskDefinitionInputBuilder, String> {
    Ok(RegisterTaskDefinitionInputBuilder::default()
        .family(format!(
            "{}-{}",
            registration.family_prefix,
            definition.content_hash()
        ))
        .requires_compatibilities(Compatibility::Fargate)
        .network_mode(NetworkMode::Awsvpc)
        .cpu(TaskSize::SMALLEST.cpu().to_string())
        .memory(TaskSize::SMALLEST.memory().to_string())
        .runtime_platform(platform(definition.arch))
        .execution_role_arn(&registration.execution_role)
        .task_role_arn(&registration.task_role)
        .container_definitions(container_definition(definition, registration)?))
}

fn platform(arch: Arch) -> RuntimePlatform {
    let arch = match arch {
        Arch::Arm64 => CpuArchitecture::Arm64,
        Arch::X86_64 => CpuArchitecture::X8664,
    };
    RuntimePlatform::builder()
        .cpu_architecture(arch)
        .operating_system_family(OsFamily::Linux)
        .build()
}

/// The task's container. It has no init process (`linuxParameters.initProcessEnabled`): as process
/// 1 the script reaches every process of the task with one signal, and reaps orphans. As a child of
/// init it could do neither.
fn container_definition(
    definition: &TaskDefinition,
    registration: &Registration,
) -> Result<ContainerDefinition, String> {
    let image = definition
        .image
        .as_ref()
        .ok_or("a task on Fargate needs an image")?;
    let credentials = definition.registry_secret.as_ref().map(|secret| {
        // The builder fails only if this one field is missing.
        RepositoryCredentials::builder()
            .credentials_parameter(secret.as_str())
            .build()
            .map_err(|e| e.to_string())
    });
    let secrets: Result<Vec<_>, _> = definition
        .secrets
        .iter()
        .map(|secret| mapped(secret, registration))
        .collect();
    Ok(ContainerDefinition::builder()
        .name(CONTAINER)
        .image(image.as_str())
        .essential(true)
        .set_entry_point(Some(definition.entry_point.clone()))
        .set_command(Some(definition.command.clone()))
        .set_secrets(Some(secrets?))
        .set_repository_credentials(credentials.transpose()?)
        .stop_timeout(STOP_TIMEOUT_SECONDS)
        .log_configuration(log_configuration(definition, registration)?)
        .build())
}

/// A secret as ECS takes it, by the parameter's name. ECS looks up a name in the task's own region
/// (ECS Developer Guide, "Pass Systems Manager parameters").
fn mapped(secret: &SecretMapping, registration: &Registration) -> Result<Secret, String> {
    let parameter = format!("{}{}", registration.secrets_path, secret.value_from);
    Secret::builder()
        .name(&secret.name)
        .value_from(parameter)
        .build()
        .map_err(|error| error.to_string())
}

/// The log configuration. `mode` is given, because ECS's default has been `non-blocking` since June
/// 25, 2025 (ECS API reference, `LogConfiguration`). That mode drops lines when its buffer is full,
/// and a dropped line may be the one that reports how a command ended. With `blocking`, a command
/// that writes faster than CloudWatch Logs accepts is slowed down, as by any pipe.
fn log_configuration(
    definition: &TaskDefinition,
    registration: &Registration,
) -> Result<LogConfiguration, String> {
    LogConfiguration::builder()
        .log_driver(LogDriver::Awslogs)
        .options("awslogs-group", &definition.log_group)
        .options("awslogs-region", &registration.region)
        .options("awslogs-stream-prefix", STREAM_PREFIX)
        .options("mode", "blocking")
        .build()
        .map_err(|error| error.to_string())
}

/// The call that starts a task: exactly what is stored.
///
/// With a capacity provider no launch type may be given. Tags made by ECS and propagated tags are
/// left out: they would repeat the given ones.
pub(super) fn run_task(input: &RunTaskInput) -> Result<RunTaskInputBuilder, String> {
    let strategy = input.capacity_provider.as_ref().map(|provider| {
        let item = CapacityProviderStrategyItem::builder()
            .capacity_provider(provider)
            .weight(1)
            .build();
        item.map(|item| vec![item])
            .map_err(|error| error.to_string())
    });
    let network = input
        .network_configuration
        .as_ref()
        .map(network)
        .transpose()?;
    Ok(RunTaskInputBuilder::default()
        .cluster(&input.cluster)
        .task_definition(&input.task_definition)
        .client_token(&input.client_token)
        .started_by(&input.started_by)
        .count(i32::try_from(input.count).map_err(|error| error.to_string())?)
        .enable_ecs_managed_tags(false)
        .set_tags(
            Some(input.tags.iter().map(tag).collect()).filter(|tags: &Vec<_>| !tags.is_empty()),
        )
        .set_capacity_provider_strategy(strategy.transpose()?)
        .set_network_configuration(network)
        .overrides(
            SdkTaskOverride::builder()
                .cpu(&input.overrides.cpu)
                .memory(&input.overrides.memory)
                .set_task_role_arn(input.overrides.task_role_arn.clone())
                .set_container_overrides(Some(
                    input
                        .overrides
                        .container_overrides
                        .iter()
                        .map(container_override)
                        .collect(),
                ))
                .build(),
        ))
}

fn tag(tag: &Tag) -> SdkTag {
    SdkTag::builder().key(&tag.key).value(&tag.value).build()
}

fn network(network: &NetworkConfiguration) -> Result<SdkNetwork, String> {
    let public_ip = if network.assign_public_ip {
        AssignPublicIp::Enabled
    } else {
        AssignPublicIp::Disabled
    };
    let groups = Some(network.security_groups.clone()).filter(|groups| !groups.is_empty());
    let vpc = AwsVpcConfiguration::builder()
        .set_subnets(Some(network.subnets.clone()))
        .set_security_groups(groups)
        .assign_public_ip(public_ip)
        .build()
        .map_err(|error| error.to_string())?;
    Ok(SdkNetwork::builder().awsvpc_configuration(vpc).build())
}

fn container_override(container: &ContainerOverride) -> SdkContainerOverride {
    let pair = |pair: &KeyValuePair| {
        SdkPair::builder()
            .name(&pair.name)
            .value(&pair.value)
            .build()
    };
    SdkContainerOverride::builder()
        .name(&container.name)
        .set_environment(Some(container.environment.iter().map(pair).collect()))
        .build()
}

/// A task as the domain knows it.
pub(super) fn task(task: &SdkTask) -> Task {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    Task {
        task_arn: text(task.task_arn()).into(),
        cluster_arn: text(task.cluster_arn()),
        task_definition_arn: text(task.task_definition_arn()),
        last_status: text(task.last_status()).into(),
        desired_status: text(task.desired_status()).into(),
        started_by: task.started_by.clone(),
        capacity_provider_name: task.capacity_provider_name.clone(),
        containers: task.containers().iter().map(container).collect(),
        stop_code: task
            .stop_code()
            .map(|code| StopCode::from(code.as_str().to_owned())),
        stopped_reason: task.stopped_reason.clone(),
        version: task.version,
        created_at: time(task.created_at()),
        pull_started_at: time(task.pull_started_at()),
        pull_stopped_at: time(task.pull_stopped_at()),
        started_at: time(task.started_at()),
        stopping_at: time(task.stopping_at()),
        execution_stopped_at: time(task.execution_stopped_at()),
        stopped_at: time(task.stopped_at()),
    }
}

fn container(container: &SdkContainer) -> Container {
    Container {
        name: container.name.clone().unwrap_or_default(),
        image: container.image.clone(),
        image_digest: container.image_digest.clone(),
        runtime_id: container.runtime_id.clone(),
        last_status: container.last_status().map(TaskStatus::from),
        exit_code: container.exit_code,
        reason: container.reason.clone(),
    }
}

/// The time to the nearest millisecond, the precision that the domain keeps. ECS's times are
/// decimal fractions, and floating point can be slightly below them.
fn time(time: Option<&DateTime>) -> Option<Timestamp> {
    let nanos = time?.as_nanos();
    Timestamp::from_timestamp_millis(i64::try_from((nanos + 500_000).div_euclid(1_000_000)).ok()?)
}
