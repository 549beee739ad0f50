//! Converts between the domain's types and those of ECS's SDK.

use aws_sdk_ecs::{
    operation::{
        register_task_definition::builders::RegisterTaskDefinitionInputBuilder,
        run_task::builders::RunTaskInputBuilder,
    },
    types::{
        AssignPublicIp, AwsVpcConfiguration, CapacityProviderStrategyItem, Compatibility,
        Container as SdkContainer, ContainerCondition, ContainerDefinition, ContainerDependency,
        ContainerOverride as SdkContainerOverride, CpuArchitecture, EphemeralStorage as SdkStorage,
        KeyValuePair as SdkPair, LogConfiguration, LogDriver, MountPoint,
        NetworkConfiguration as SdkNetwork, NetworkMode, OsFamily, RepositoryCredentials,
        RuntimePlatform, Secret, Tag as SdkTag, Task as SdkTask, TaskOverride as SdkTaskOverride,
        Volume, builders::ContainerDefinitionBuilder,
    },
};
use aws_smithy_types::DateTime;
use domain::{
    Timestamp,
    container::{FETCH, INIT, MAIN, PROGRAM, place, variable},
    ecs::{
        Container, ContainerOverride, KeyValuePair, NetworkConfiguration, RunTaskInput,
        STREAM_PREFIX, StopCode, Tag, Task, TaskStatus,
    },
    request::{Arch, TaskSize},
    settings::RunnerImages,
    task::{SecretMapping, TaskDefinition},
    transition::GRACE_SECONDS,
};

use super::Registration;

/// How long a task has between TERM and KILL when ECS stops it: the most that Fargate allows (ECS
/// API reference, `ContainerDefinition`: 2 to 120 s), so that the runner can report how its command
/// ended.
const STOP_TIMEOUT_SECONDS: i32 = 120;
const _: () = assert!(STOP_TIMEOUT_SECONDS as u32 > GRACE_SECONDS);
/// The volume with the runner.
const PROGRAMS: &str = "mycli";
/// The volume with the repository.
const WORKSPACE: &str = "workspace";

/// The call that registers a definition.
///
/// Fargate requires CPU and memory, and every run overrides them. So every definition gets the
/// smallest pair.
pub(super) fn definition(
    definition: &TaskDefinition,
    registration: &Registration,
) -> Result<RegisterTaskDefinitionInputBuilder, String> {
    let containers = Containers::of(definition, registration)?;
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
        .set_volumes(Some(containers.volumes()))
        .set_container_definitions(Some(containers.definitions()?)))
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

/// The containers of a task: `init`, then `fetch` and `main` side by side.
///
/// Both wait for `init` by `COMPLETE`. With `SUCCESS`, a failed `init` left tasks PENDING for ever
/// (amazon-ecs-agent#2579, containers-roadmap#817). So `main` fails at once instead: its entry point
/// is missing.
struct Containers<'a> {
    definition: &'a TaskDefinition,
    registration: &'a Registration,
    images: &'a RunnerImages,
}

impl<'a> Containers<'a> {
    fn of(definition: &'a TaskDefinition, registration: &'a Registration) -> Result<Self, String> {
        let images = definition.helpers.as_ref().ok_or(
            "this stack has no image of the runner: `mycli upgrade` pushes it, and tells the stack",
        )?;
        Ok(Self {
            definition,
            registration,
            images,
        })
    }

    fn volumes(&self) -> Vec<Volume> {
        let workspace = self.definition.fetches.then_some(WORKSPACE);
        let names = [PROGRAMS].into_iter().chain(workspace);
        names
            .map(|name| Volume::builder().name(name).build())
            .collect()
    }

    fn definitions(&self) -> Result<Vec<ContainerDefinition>, String> {
        let fetch = self.definition.fetches.then(|| self.fetch()).transpose()?;
        let containers = [Some(self.init()?), fetch, Some(self.main()?)];
        Ok(containers.into_iter().flatten().collect())
    }

    fn init(&self) -> Result<ContainerDefinition, String> {
        let workspace = self.definition.fetches.then_some(place::WORKSPACE);
        let arguments = ["init", place::PROGRAMS].into_iter().chain(workspace);
        Ok(self
            .container(INIT)?
            .image(self.images.runner.as_str())
            .essential(false)
            .entry_point(format!("/{PROGRAM}"))
            .set_command(Some(arguments.map(str::to_owned).collect()))
            .set_mount_points(Some(self.mounts(false)))
            .build())
    }

    /// It alone has the credentials for git.
    fn fetch(&self) -> Result<ContainerDefinition, String> {
        let by_git = self.images.git.as_ref().map(|_| "--git=system");
        let arguments = ["fetch-for-main", place::WORKSPACE]
            .into_iter()
            .chain(by_git);
        let image = self.images.git.as_ref().unwrap_or(&self.images.runner);
        Ok(self
            .container(FETCH)?
            .image(image.as_str())
            .essential(false)
            .depends_on(after_init()?)
            .set_entry_point(Some(self.definition.entry_point.clone()))
            .set_command(Some(arguments.map(str::to_owned).collect()))
            .set_mount_points(Some(self.mounts(true)))
            .set_secrets(Some(self.secrets(variable::is_for_fetch)?))
            .stop_timeout(STOP_TIMEOUT_SECONDS)
            .build())
    }

    /// It has no init process (`linuxParameters.initProcessEnabled`): as process 1 the runner
    /// reaches every process of the container with one signal, and reaps orphans. As a child of
    /// init it could do neither.
    fn main(&self) -> Result<ContainerDefinition, String> {
        let image = self.definition.image.as_ref();
        let image = image.ok_or("a task on Fargate needs an image")?;
        let credentials = self.definition.registry_secret.as_ref().map(|secret| {
            RepositoryCredentials::builder()
                .credentials_parameter(secret.as_str())
                .build()
                .map_err(unfinished)
        });
        Ok(self
            .container(MAIN)?
            .image(image.as_str())
            .essential(true)
            .depends_on(after_init()?)
            .set_entry_point(Some(self.definition.entry_point.clone()))
            .set_command(Some(self.definition.command.clone()))
            .set_mount_points(Some(self.mounts(true)))
            .set_secrets(Some(self.secrets(|name| !variable::is_for_fetch(name))?))
            .set_repository_credentials(credentials.transpose()?)
            .stop_timeout(STOP_TIMEOUT_SECONDS)
            .build())
    }

    fn container(&self, name: &str) -> Result<ContainerDefinitionBuilder, String> {
        Ok(ContainerDefinition::builder()
            .name(name)
            .log_configuration(log_configuration(self.definition, self.registration)?))
    }

    /// Where the volumes are. Only `init` writes the runner.
    fn mounts(&self, has_runner: bool) -> Vec<MountPoint> {
        let programs = MountPoint::builder()
            .source_volume(PROGRAMS)
            .container_path(place::PROGRAMS)
            .read_only(has_runner);
        let workspace = MountPoint::builder()
            .source_volume(WORKSPACE)
            .container_path(place::WORKSPACE)
            .read_only(false);
        let workspace = self.definition.fetches.then(|| workspace.build());
        [programs.build()].into_iter().chain(workspace).collect()
    }

    fn secrets(&self, is_its_own: impl Fn(&str) -> bool) -> Result<Vec<Secret>, String> {
        let secrets = self.definition.secrets.iter();
        let own = secrets.filter(|secret| is_its_own(&secret.name));
        own.map(|secret| mapped(secret, self.registration))
            .collect()
    }
}

fn after_init() -> Result<ContainerDependency, String> {
    ContainerDependency::builder()
        .container_name(INIT)
        .condition(ContainerCondition::Complete)
        .build()
        .map_err(unfinished)
}

/// A builder fails only if a required field is missing.
fn unfinished(error: impl std::fmt::Display) -> String {
    error.to_string()
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
    let storage = input.overrides.ephemeral_storage.map(|storage| {
        i32::try_from(storage.size_in_gib)
            .map(|gib| SdkStorage::builder().size_in_gib(gib).build())
            .map_err(|error| error.to_string())
    });
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
                .set_ephemeral_storage(storage.transpose()?)
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
