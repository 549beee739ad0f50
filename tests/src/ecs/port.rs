//! The model behind the domain's port, in the same process: for simulations on virtual time.
//!
//! The code that interprets AWS's answers (`aws::ecs::answer`) interprets the model's too. The
//! SDK's retries are left out: it repeats a throttled DescribeTasks, ListTasks or StopTask twice,
//! after pauses; here the first refusal is returned at once.

use crate::ecs::STOPPED;
use std::sync::{Arc, Mutex};

use aws::{
    ecs::answer::{self, Unplaced},
    error::Fault,
};
use domain::{
    container::{FETCH, INIT, MAIN},
    ecs::{RunTaskInput, Task, TaskArn},
    id::AttemptId,
    limit::CapacityPool,
    ports::{AccountQuotas, Clock, Described, LaunchError, PortError, Tasks},
    request::TaskSize,
    task::TaskDefinition,
};
use serde_json::{Value, json};

use super::{Answer, Answered, Ecs, Kind, ListTasks, RunTask, VCPU, wire::lock};

/// The service named in the error of a failed read.
const SERVICE: &str = "ECS";
/// Fargate's service code in Service Quotas.
const FARGATE: &str = "fargate";

/// The model, called in the same process, without a wire.
#[derive(Clone)]
pub struct InProcess<C> {
    ecs: Arc<Mutex<Ecs>>,
    clock: C,
    cluster: String,
}

impl<C: Clock> InProcess<C> {
    /// The model with this clock.
    #[must_use]
    pub fn new(ecs: Arc<Mutex<Ecs>>, clock: C) -> Self {
        let cluster = lock(&ecs).account().cluster.clone();
        Self {
            ecs,
            clock,
            cluster,
        }
    }

    /// Calls the model. An error comes with the tasks that it names.
    fn call<T>(
        &self,
        call: impl FnOnce(&mut Ecs, domain::Timestamp) -> Answer<T>,
    ) -> Result<T, (Fault, Vec<String>)> {
        let answer = call(&mut lock(&self.ecs), self.clock.now());
        answer.map_err(|refusal| {
            let fault = Fault::answered(refusal.status, Some(refusal.code), &refusal.message);
            (fault, refusal.resource_ids)
        })
    }

    fn look<T>(
        &self,
        call: impl FnOnce(&mut Ecs, domain::Timestamp) -> Answer<T>,
    ) -> Result<T, PortError> {
        self.call(call)
            .map_err(|(fault, _)| fault.of_service(SERVICE))
    }

    fn describe(&self, task_arns: &[String]) -> Result<Described, PortError> {
        if task_arns.is_empty() {
            return Ok(Described::default());
        }
        let answer = self.look(|ecs, now| ecs.describe_tasks(&self.cluster, task_arns, now))?;
        let missing = answer
            .failures
            .into_iter()
            .filter(|failure| failure.reason == "MISSING");
        Ok(Described {
            missing: missing
                .filter_map(|failure| failure.arn)
                .map(TaskArn::from)
                .collect(),
            tasks: answer.tasks.into_iter().map(|shown| shown.task).collect(),
        })
    }

    fn list(&self, started_by: &AttemptId, status: Option<&str>) -> Result<Vec<String>, PortError> {
        let mut request = ListTasks {
            cluster: self.cluster.clone(),
            started_by: Some(started_by.to_string()),
            desired_status: status.map(str::to_owned),
            ..ListTasks::default()
        };
        let mut arns = Vec::new();
        loop {
            let page = self.look(|ecs, now| ecs.list_tasks(&request, now))?;
            request.next_token = page.next_token();
            arns.extend(page.task_arns);
            if request.next_token.is_none() {
                return Ok(arns);
            }
        }
    }
}

fn started(answered: &Answered) -> Result<Task, LaunchError> {
    let unplaced = answered.failures.first().map(|failure| Unplaced {
        reason: Some(&failure.reason),
        detail: None,
    });
    answer::started(
        answered.tasks.first().map(|shown| shown.task.clone()),
        unplaced,
    )
}

/// The definition that the adapter registers, as far as the model reads it.
fn registered(cluster: &str, definition: &TaskDefinition) -> Result<Value, LaunchError> {
    let image = definition.image.as_ref();
    let image =
        image.ok_or_else(|| LaunchError::Refused("a task on Fargate needs an image".into()))?;
    let images = definition.helpers.as_ref();
    let runner = images
        .map(|images| images.runner.as_str())
        .unwrap_or_default();
    let helper = |name: &str, waits: bool| {
        let mut helper = json!({ "name": name, "image": runner, "essential": false });
        if waits {
            helper["dependsOn"] = json!([{ "containerName": INIT, "condition": "COMPLETE" }]);
        }
        helper
    };
    let fetch = definition.fetches.then(|| helper(FETCH, true));
    let main = json!({
        "name": MAIN, "image": image.as_str(), "stopTimeout": 120,
        "dependsOn": [{ "containerName": INIT, "condition": "COMPLETE" }],
    });
    let containers: Vec<_> = [helper(INIT, false)]
        .into_iter()
        .chain(fetch)
        .chain([main])
        .collect();
    Ok(json!({
        "family": format!("{cluster}-{}", definition.content_hash()),
        "cpu": TaskSize::SMALLEST.cpu().to_string(),
        "memory": TaskSize::SMALLEST.memory().to_string(),
        "networkMode": "awsvpc",
        "containerDefinitions": containers,
    }))
}

impl<C: Clock> Tasks for InProcess<C> {
    async fn register_definition(
        &self,
        definition: &TaskDefinition,
    ) -> Result<String, LaunchError> {
        let body = registered(&self.cluster, definition)?;
        let shown = self.call(|ecs, now| ecs.register_task_definition(&body, now));
        let shown = shown.map_err(|(fault, _)| answer::refusal(&fault))?;
        Ok(shown["taskDefinitionArn"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    async fn run_task(&self, input: &RunTaskInput) -> Result<Task, LaunchError> {
        match self.call(|ecs, now| ecs.run_task(&RunTask::from(input), now)) {
            Ok(answered) => started(&answered),
            Err((fault, task_arns)) if fault.is("ConflictException") => {
                answer::existing(self.describe(&task_arns)?, &fault)
            }
            Err((fault, _)) => Err(answer::refusal(&fault)),
        }
    }

    async fn stop_task(&self, task_arn: &TaskArn, reason: &str) -> Result<(), PortError> {
        match self
            .call(|ecs, now| ecs.stop_task(&self.cluster, task_arn.as_str(), Some(reason), now))
        {
            Ok(_) => Ok(()),
            Err((fault, _)) if answer::is_unknown_task(&fault) => Ok(()),
            Err((fault, _)) => Err(fault.of_service(SERVICE)),
        }
    }

    async fn describe_tasks(&self, task_arns: &[TaskArn]) -> Result<Described, PortError> {
        let arns: Vec<_> = task_arns.iter().map(ToString::to_string).collect();
        self.describe(&arns)
    }

    async fn list_tasks(&self, started_by: &AttemptId) -> Result<Vec<TaskArn>, PortError> {
        let mut arns = self.list(started_by, None)?;
        arns.extend(self.list(started_by, Some(STOPPED))?);
        arns.sort_unstable();
        arns.dedup();
        Ok(arns.into_iter().map(TaskArn::from).collect())
    }
}

impl<C: Clock> AccountQuotas for InProcess<C> {
    async fn cpu(&self, pool: CapacityPool) -> Result<Option<u32>, PortError> {
        let Some(kind) = Kind::ALL
            .into_iter()
            .find(|kind| Some(kind.provider()) == pool.provider())
        else {
            return Ok(None);
        };
        let code = kind.quota_code();
        let applied = self.call(|ecs, now| ecs.get_service_quota(FARGATE, code, now));
        let quota = match applied {
            Err((fault, _)) if fault.is("NoSuchResourceException") => {
                self.look(|ecs, now| ecs.get_aws_default_service_quota(FARGATE, code, now))
            }
            other => other.map_err(|(fault, _)| fault.of_service("Service Quotas")),
        };
        let vcpus = quota?["Value"].as_f64().unwrap_or_default();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the model has whole vCPUs"
        )]
        Ok(Some((vcpus * f64::from(VCPU)) as u32))
    }
}
