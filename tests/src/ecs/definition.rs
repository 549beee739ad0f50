//! Task definitions.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use domain::{Timestamp, request::TaskSize};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{account::Account, refusal::Refusal, task::epoch};

/// Seconds between TERM and KILL if a definition does not set `stopTimeout` (API Reference,
/// `ContainerDefinition`).
const STOP_TIMEOUT: i64 = 30;
/// The highest `stopTimeout` of a definition (ibid.).
const STOP_TIMEOUT_MAX: i64 = 120;

/// The part of a definition that the model reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Shape {
    family: String,
    cpu: String,
    memory: String,
    network_mode: String,
    container_definitions: Vec<ContainerShape>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerShape {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) essential: Option<bool>,
    pub(super) depends_on: Vec<Dependency>,
    stop_timeout: Option<i64>,
}

/// A condition of another container for a container's start.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Dependency {
    pub(super) container_name: String,
    pub(super) condition: String,
}

impl ContainerShape {
    /// Whether the task ends with it: the default (API Reference, `ContainerDefinition`).
    pub(super) fn is_essential(&self) -> bool {
        self.essential.unwrap_or(true)
    }
}

/// A registered task definition.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub(super) arn: String,
    pub(super) family: String,
    pub(super) revision: u32,
    pub(super) active: bool,
    pub(super) cpu: String,
    pub(super) memory: String,
    pub(super) containers: Vec<ContainerShape>,
    pub(super) stop_timeout: TimeDelta,
    pub(super) needs_network: bool,
    body: Value,
    registered_at: Timestamp,
    deregistered_at: Option<Timestamp>,
}

impl Definition {
    /// Whether the start of another container waits for the success of this one.
    pub(super) fn needs_success_of(&self, name: &str) -> bool {
        let of_all = self.containers.iter().flat_map(|one| &one.depends_on);
        let mut of_it = of_all.filter(|dependency| dependency.container_name == name);
        of_it.any(|dependency| dependency.condition == "SUCCESS")
    }

    /// The definition as RegisterTaskDefinition and DescribeTaskDefinition show it.
    pub(super) fn json(&self) -> Value {
        let mut shown = self.body.clone();
        shown["taskDefinitionArn"] = json!(self.arn);
        shown["revision"] = json!(self.revision);
        shown["status"] = json!(if self.active { "ACTIVE" } else { "INACTIVE" });
        shown["registeredAt"] = epoch(self.registered_at);
        if let Some(at) = self.deregistered_at {
            shown["deregisteredAt"] = epoch(at);
        }
        shown
    }
}

/// Every definition, by family and revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Definitions(BTreeMap<String, Vec<Definition>>);

impl Definitions {
    /// Registers the next revision of a family.
    pub(super) fn register(
        &mut self,
        account: &Account,
        body: &Value,
        now: Timestamp,
    ) -> Result<&Definition, Refusal> {
        let shape: Shape = serde_json::from_value(body.clone())
            .map_err(|error| Refusal::client(error.to_string()))?;
        let stop_timeout = check(&shape)?.stop_timeout.unwrap_or(STOP_TIMEOUT);
        let revisions = self.0.entry(shape.family.clone()).or_default();
        let revision = u32::try_from(revisions.len()).unwrap_or(u32::MAX) + 1;
        revisions.push(Definition {
            arn: account.arn(&format!("task-definition/{}:{revision}", shape.family)),
            family: shape.family,
            revision,
            active: true,
            cpu: shape.cpu,
            memory: shape.memory,
            containers: shape.container_definitions,
            stop_timeout: TimeDelta::seconds(stop_timeout),
            needs_network: shape.network_mode == "awsvpc",
            body: body.clone(),
            registered_at: now,
            deregistered_at: None,
        });
        revisions.last().ok_or_else(Refusal::server)
    }

    /// Marks a definition INACTIVE: it can still be described, and its tasks run on (API Reference,
    /// `DeregisterTaskDefinition`).
    pub(super) fn deregister(
        &mut self,
        name: &str,
        now: Timestamp,
    ) -> Result<&Definition, Refusal> {
        let (family, revision) = parse(name);
        let revision = revision
            .ok_or_else(|| Refusal::client("The revision of the task definition is missing."))?;
        let found = self
            .0
            .get_mut(family)
            .and_then(|all| all.iter_mut().find(|one| one.revision == revision));
        let definition = found
            .ok_or_else(|| Refusal::client("The specified task definition does not exist."))?;
        definition.active = false;
        definition.deregistered_at.get_or_insert(now);
        Ok(definition)
    }

    /// Finds a definition by ARN, by `family:revision`, or by the family alone, which means its
    /// latest active revision.
    pub(super) fn find(&self, name: &str) -> Option<&Definition> {
        let (family, revision) = parse(name);
        let mut newest_first = self.0.get(family)?.iter().rev();
        newest_first.find(|one| revision.map_or(one.active, |revision| one.revision == revision))
    }

    /// Finds a definition for RunTask, which takes active ones only.
    pub(super) fn active(&self, name: &str) -> Result<&Definition, Refusal> {
        let found = self
            .find(name)
            .ok_or_else(|| Refusal::client("TaskDefinition not found."))?;
        if found.active {
            Ok(found)
        } else {
            Err(Refusal::client("TaskDefinition is inactive"))
        }
    }
}

/// Returns the family, and the revision if one is named.
fn parse(name: &str) -> (&str, Option<u32>) {
    let short = name
        .rsplit_once("task-definition/")
        .map_or(name, |(_, short)| short);
    match short.rsplit_once(':') {
        Some((family, revision)) => (family, Some(revision.parse().unwrap_or_default())),
        None => (short, None),
    }
}

/// Returns the essential container. The model knows definitions with one.
fn check(shape: &Shape) -> Result<&ContainerShape, Refusal> {
    if shape.family.is_empty() {
        return Err(Refusal::client("Family should not be null or empty."));
    }
    size(&shape.cpu, &shape.memory)?;
    let containers = &shape.container_definitions;
    if containers.is_empty() {
        return Err(Refusal::client("Container list cannot be empty."));
    }
    for container in containers {
        check_container(container, containers)?;
    }
    let essential = containers.iter().find(|one| one.is_essential());
    essential.ok_or_else(|| {
        Refusal::client("A task definition must have at least one essential container.")
    })
}

fn check_container(container: &ContainerShape, all: &[ContainerShape]) -> Result<(), Refusal> {
    if container.name.is_empty() || container.image.is_empty() {
        return Err(Refusal::client(
            "Container.name and Container.image should not be null or empty.",
        ));
    }
    for dependency in &container.depends_on {
        let on = all.iter().find(|one| one.name == dependency.container_name);
        let on =
            on.ok_or_else(|| Refusal::client("A container depends on one that is not there."))?;
        // API Reference, `ContainerDependency`.
        if on.is_essential() && ["SUCCESS", "COMPLETE"].contains(&&*dependency.condition) {
            return Err(Refusal::client(
                "SUCCESS and COMPLETE cannot be conditions of an essential container.",
            ));
        }
    }
    match container.stop_timeout {
        Some(seconds) if seconds > STOP_TIMEOUT_MAX => Err(Refusal::client(format!(
            "Invalid stopTimeout: at most {STOP_TIMEOUT_MAX} on Fargate."
        ))),
        _ => Ok(()),
    }
}

/// Parses one of the CPU and memory pairs that Fargate sells (seen so by aws/amazon-ecs-cli#463).
pub(super) fn size(cpu: &str, memory: &str) -> Result<TaskSize, Refusal> {
    let number = |text: &str| text.parse().unwrap_or_default();
    TaskSize::new(number(cpu), number(memory))
        .map_err(|_| Refusal::client("No Fargate configuration exists for given values."))
}
