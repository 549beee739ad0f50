//! Removes a stack and all that belongs to it. Each step looks for what is left, so the next call
//! completes a removal that was interrupted.

use std::time::Duration;

use aws::ssm::{ParameterError, Parameters};
use aws_sdk_ecs::{
    Client,
    error::ProvideErrorMetadata,
    types::{DesiredStatus, TaskDefinitionFamilyStatus, TaskDefinitionStatus},
};
use tokio::time::sleep;

use crate::{
    Account, CallError, StackName,
    bucket::StackBucket,
    gateway_log::{self, LogRoleFate},
    kept::{self, KeptTable},
    runner_image::RunnerRepository,
    stack::{Setting, StackCondition, StackError, StackProgress, StackView, Stacks},
    table::Table,
    template::{Template, TemplateError},
};

/// How often the removal of the stack is tried. A cluster cannot be removed while tasks run in it,
/// and a launcher may start a task while we stop the others. A few tries are enough, because each
/// one finds only the tasks that were started during the one before.
const TRIES: u32 = 4;
/// The types of resources that cannot be removed because of tasks: one that runs, and one that has
/// just stored a file.
const STOPPING: [&str; 2] = ["AWS::ECS::Cluster", "AWS::S3::Bucket"];
/// How many deregistrations are sent without a pause, and the pause before each further one. ECS
/// allows a burst of 20 and one a second after that (ECS API reference, "Request throttling for the
/// Amazon ECS API").
const BURST: usize = 15;
const PACE: Duration = Duration::from_millis(1100);
/// The most task definitions in one deletion (ECS API reference, `DeleteTaskDefinitions`).
const DELETE_MAX: usize = 10;

/// Why a removal was not completed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The stack could not be removed.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The template that keeps the table could not be made.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The values of the secrets could not be removed.
    #[error(transparent)]
    Secrets(#[from] ParameterError),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// The things that were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Whether there was a stack.
    pub stack: bool,
    /// How many tasks were stopped.
    pub tasks: usize,
    /// Whether there was a table that an earlier removal had kept.
    pub kept_table: bool,
    /// How many values of secrets.
    pub secrets: usize,
    /// Whether there was a bucket.
    pub bucket: bool,
    /// Whether there was a repository of the runner's images.
    pub repository: bool,
    /// How many task definitions.
    pub definitions: usize,
}

/// Removes the stack, its secrets, its bucket and its task definitions. With `keep_history` the
/// table stays. Idempotent.
///
/// # Errors
/// [`RemoveError`]. The next call continues from there.
pub async fn remove(
    account: &Account,
    name: &StackName,
    keep_history: bool,
    tell: &impl Fn(StackProgress),
) -> Result<Removed, RemoveError> {
    let stacks = Stacks::new(account, name);
    let tasks = StackTasks {
        client: Client::new(&account.config),
    };
    let files = StackBucket::files(account, name);
    let mut removed = Removed::default();
    let mut stack = settled(&stacks, tell).await?;
    let log_roles = gateway_log::ours(account, name, stack.is_some()).await?;
    if let Some(found) = stack.take() {
        let found = if keep_history {
            keep_table(account, name, &stacks, found, tell).await?
        } else {
            Table::new(account, &name.table()).protect(false).await?;
            found
        };
        removed.tasks = remove_stack(&stacks, &tasks, &files, &found, tell).await?;
        removed.stack = true;
    }
    if !keep_history {
        removed.kept_table = remove_kept_table(account, name, tell).await?;
    }
    for role in log_roles {
        remove_log_role(account, &role, tell).await?;
    }
    removed.secrets = remove_secrets(account, name, tell).await?;
    removed.definitions = tasks.forget_definitions(name, tell).await?;
    removed.repository = RunnerRepository::new(account, name).remove().await?;
    removed.bucket = StackBucket::code(account, name).remove().await?;
    Ok(removed)
}

async fn remove_kept_table(
    account: &Account,
    name: &StackName,
    tell: &impl Fn(StackProgress),
) -> Result<bool, CallError> {
    let table = name.table();
    if kept::look(account, name).await? != KeptTable::History {
        return Ok(false);
    }
    tell(StackProgress::Step(format!(
        "removing the history that was kept in the table {table}"
    )));
    kept::remove(account, &table).await?;
    Ok(true)
}

/// Removes API Gateway's log role unless it is in use. The template retains the role when the stack
/// is removed, because it belongs to the whole account.
async fn remove_log_role(
    account: &Account,
    role: &str,
    tell: &impl Fn(StackProgress),
) -> Result<(), CallError> {
    tell(StackProgress::Step(
        match gateway_log::remove(account, role).await? {
            LogRoleFate::Nothing => format!("removed {role}, the log role of API Gateway"),
            LogRoleFate::InUse => {
                format!("{role} stays: other APIs of this region use it to write their logs")
            }
        },
    ));
    Ok(())
}

async fn remove_secrets(
    account: &Account,
    name: &StackName,
    tell: &impl Fn(StackProgress),
) -> Result<usize, ParameterError> {
    let parameters = Parameters::new(&account.config, name.secrets_path());
    let names: Vec<_> = parameters
        .list()
        .await?
        .into_iter()
        .map(|parameter| parameter.name)
        .collect();
    if !names.is_empty() {
        tell(StackProgress::Step(format!(
            "removing the values of {} secrets",
            names.len()
        )));
        parameters.remove(&names).await?;
    }
    Ok(names.len())
}

async fn settled(
    stacks: &Stacks,
    tell: &impl Fn(StackProgress),
) -> Result<Option<StackView>, StackError> {
    let Some(stack) = stacks.find().await? else {
        return Ok(None);
    };
    if stack.condition() != StackCondition::Busy {
        return Ok(Some(stack));
    }
    tell(StackProgress::Step(format!(
        "the stack is {}: waiting until that is over",
        stack.status
    )));
    stacks.settle(&stack, tell).await?;
    stacks.find().await
}

/// Makes the table outlive the stack. CloudFormation removes a table with its stack unless the
/// template says otherwise, so the template is changed first.
async fn keep_table(
    account: &Account,
    name: &StackName,
    stacks: &Stacks,
    stack: StackView,
    tell: &impl Fn(StackProgress),
) -> Result<StackView, RemoveError> {
    if stack.condition() != StackCondition::Stands {
        return Ok(stack);
    }
    tell(StackProgress::Step(format!(
        "letting the table {} outlive the stack",
        name.table()
    )));
    let template = Template::whole(&stacks.template().await?)?.keeping_the_table()?;
    let bucket = StackBucket::code(account, name);
    bucket.ensure().await?;
    let url = bucket.put_template(&template).await?;
    let settings = stack
        .parameters
        .keys()
        .map(|name| (name.clone(), Setting::Previous))
        .collect();
    let changed = stacks.update(&stack, &url, &settings, tell).await?;
    Ok(changed.unwrap_or(stack))
}

/// Stops the tasks, removes the files of runs, and removes the stack. Returns how many tasks were stopped.
async fn remove_stack(
    stacks: &Stacks,
    tasks: &StackTasks,
    files: &StackBucket,
    stack: &StackView,
    tell: &impl Fn(StackProgress),
) -> Result<usize, RemoveError> {
    let mut stopped = 0;
    let mut tried = 0;
    loop {
        tried += 1;
        if let Some(cluster) = stack.outputs.get("Cluster") {
            stopped += tasks.stop_all(cluster, tell).await?;
        }
        // CloudFormation removes no bucket that has something in it.
        files.empty().await?;
        tell(StackProgress::Step("removing the stack".into()));
        match stacks.delete(stack, tell).await {
            Ok(()) => return Ok(stopped),
            Err(StackError::Failed {
                resource: Some(event),
                ..
            }) if tried < TRIES && STOPPING.contains(&event.kind.as_str()) => {
                tell(StackProgress::Step(
                    "tasks ran meanwhile: trying again".into(),
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The ECS calls for tasks and task definitions, which CloudFormation does not remove.
struct StackTasks {
    client: Client,
}

impl StackTasks {
    /// Stops all running tasks of a cluster. Their runs are lost with the table that records them.
    async fn stop_all(
        &self,
        cluster: &str,
        tell: &impl Fn(StackProgress),
    ) -> Result<usize, CallError> {
        let call = self
            .client
            .list_tasks()
            .cluster(cluster)
            .desired_status(DesiredStatus::Running);
        let mut pages = call.into_paginator().items().send();
        let mut arns = Vec::new();
        while let Some(arn) = pages.next().await {
            match arn {
                Ok(arn) => arns.push(arn),
                Err(error) if error.code() == Some("ClusterNotFoundException") => return Ok(0),
                Err(error) => {
                    return Err(CallError::of(format!(
                        "list the tasks of the cluster {cluster}"
                    ))(error));
                }
            }
        }
        if !arns.is_empty() {
            tell(StackProgress::Step(format!(
                "stopping {} tasks",
                arns.len()
            )));
        }
        for arn in &arns {
            let call = self
                .client
                .stop_task()
                .cluster(cluster)
                .task(arn)
                .reason("mycli destroy");
            call.send()
                .await
                .map_err(CallError::of(format!("stop the task {arn}")))?;
        }
        Ok(arns.len())
    }

    /// Deregisters and deletes the stack's task definitions. Returns how many there were.
    async fn forget_definitions(
        &self,
        name: &StackName,
        tell: &impl Fn(StackProgress),
    ) -> Result<usize, CallError> {
        let active = self.definitions(name, TaskDefinitionStatus::Active).await?;
        if !active.is_empty() {
            tell(StackProgress::Step(format!(
                "removing {} task definitions",
                active.len()
            )));
        }
        for (index, arn) in active.iter().enumerate() {
            if index >= BURST {
                sleep(PACE).await;
            }
            let call = self
                .client
                .deregister_task_definition()
                .task_definition(arn);
            call.send()
                .await
                .map_err(CallError::of(format!("deregister {arn}")))?;
        }
        let inactive = self
            .definitions(name, TaskDefinitionStatus::Inactive)
            .await?;
        for arns in inactive.chunks(DELETE_MAX) {
            let call = self
                .client
                .delete_task_definitions()
                .set_task_definitions(Some(arns.to_vec()));
            call.send()
                .await
                .map_err(CallError::of("delete task definitions"))?;
        }
        Ok(active.len())
    }

    async fn definitions(
        &self,
        name: &StackName,
        status: TaskDefinitionStatus,
    ) -> Result<Vec<String>, CallError> {
        let doing = || "list task definitions";
        let call = self
            .client
            .list_task_definition_families()
            .family_prefix(name.family_prefix());
        let mut families = call
            .status(TaskDefinitionFamilyStatus::All)
            .into_paginator()
            .items()
            .send();
        let mut arns = Vec::new();
        while let Some(family) = families.next().await {
            let family = family.map_err(CallError::of(doing()))?;
            if !name.owns_family(&family) {
                continue;
            }
            let call = self
                .client
                .list_task_definitions()
                .family_prefix(&family)
                .status(status.clone());
            let mut pages = call.into_paginator().items().send();
            while let Some(arn) = pages.next().await {
                arns.push(arn.map_err(CallError::of(doing()))?);
            }
        }
        Ok(arns)
    }
}
