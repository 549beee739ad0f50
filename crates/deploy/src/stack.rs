//! The CloudFormation stack: creates, changes and removes it, and reports what happens meanwhile.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_cloudformation::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{
        Capability, ChangeSetStatus, ChangeSetType, Parameter, ResourceToImport, Stack, StackEvent,
        Tag, TemplateStage,
    },
};
use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep};

use crate::{
    Account, CallError, StackName,
    names::TAG,
    template::{ADOPTED, TABLE},
};

/// The pauses between two looks at a stack. The first is short, because a small change ends soon.
/// The longest is three seconds, because CloudFormation shows about one event a second.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long any change may take. A network, a REST API and four functions take a few minutes, so a
/// change that is still going on after an hour is stuck.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// The name of the change set that imports a table.
const IMPORT: &str = "mycli-import";

/// A report on an operation in progress.
#[derive(Clone, Debug)]
pub enum StackProgress {
    /// A step begins; describes it in words.
    Step(String),
    /// A resource of the stack has a new event.
    Resource(ResourceEvent),
}

/// An event of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceEvent {
    /// The time of the event.
    pub at: DateTime<Utc>,
    /// The resource's name in the template.
    pub name: String,
    /// The resource's type, such as `AWS::SQS::Queue`.
    pub kind: String,
    /// The resource's status, such as `CREATE_COMPLETE`.
    pub status: String,
    /// The reason in AWS's words.
    pub reason: Option<String>,
}

impl ResourceEvent {
    /// Whether the resource failed by itself. A resource that was cancelled because another one
    /// failed does not count.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        let cancelled = self
            .reason
            .as_deref()
            .is_some_and(|reason| reason.contains("cancelled"));
        self.status.ends_with("_FAILED") && !cancelled
    }

    /// Whether the event is about the stack as a whole.
    #[must_use]
    pub fn is_of_the_stack(&self) -> bool {
        self.kind == "AWS::CloudFormation::Stack"
    }

    /// Whether the work on this resource is complete.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.status.ends_with("_COMPLETE") && !self.is_of_the_stack()
    }
}

/// A stack as CloudFormation describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackView {
    /// The stack's full id.
    pub id: String,
    /// The status, such as `CREATE_COMPLETE`.
    pub status: String,
    /// The reason for the status, in AWS's words.
    pub reason: Option<String>,
    /// Parameters and their values.
    pub parameters: BTreeMap<String, String>,
    /// Outputs and their values.
    pub outputs: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Whether the stack holds only an imported table so far, the history of an earlier stack.
    pub is_adopted: bool,
}

/// The possible next steps with a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackCondition {
    /// The stack is complete and can be changed.
    Stands,
    /// The stack's creation failed: it can only be removed.
    NeverStood,
    /// An operation on the stack is in progress.
    Busy,
    /// A change failed, and so did its rollback.
    Stuck,
    /// The stack's removal failed part-way.
    HalfRemoved,
}

impl StackCondition {
    /// Derives the condition from a status (CloudFormation user guide, "Stack status codes").
    #[must_use]
    pub fn of(status: &str) -> Self {
        match status {
            "CREATE_FAILED" | "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "REVIEW_IN_PROGRESS" => {
                Self::NeverStood
            }
            "IMPORT_ROLLBACK_COMPLETE" | "IMPORT_ROLLBACK_FAILED" => Self::NeverStood,
            "UPDATE_ROLLBACK_FAILED" => Self::Stuck,
            "DELETE_FAILED" => Self::HalfRemoved,
            busy if busy.ends_with("_IN_PROGRESS") => Self::Busy,
            _ => Self::Stands,
        }
    }
}

impl StackView {
    /// The possible next steps with the stack.
    #[must_use]
    pub fn condition(&self) -> StackCondition {
        StackCondition::of(&self.status)
    }

    /// Returns an output by its name.
    ///
    /// # Errors
    /// When the output is missing: the stack is not complete, or not one of ours.
    pub fn output(&self, name: &str) -> Result<&str, CallError> {
        let missing = || {
            CallError::new(
                "read the stack's outputs",
                format!("there is no `{name}`: run `mycli init`"),
            )
        };
        self.outputs
            .get(name)
            .map(String::as_str)
            .ok_or_else(missing)
    }

    /// The version of mycli that deployed the stack.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.outputs
            .get("Version")
            .or_else(|| self.parameters.get("Version"))
            .map(String::as_str)
    }
}

impl From<&Stack> for StackView {
    fn from(stack: &Stack) -> Self {
        fn map<'a>(
            pairs: impl Iterator<Item = (Option<&'a str>, Option<&'a str>)>,
        ) -> BTreeMap<String, String> {
            pairs
                .filter_map(|(name, value)| Some((name?.to_owned(), value?.to_owned())))
                .collect()
        }
        Self {
            id: stack.stack_id().unwrap_or_default().to_owned(),
            status: stack
                .stack_status()
                .map(|status| status.as_str().to_owned())
                .unwrap_or_default(),
            reason: stack
                .stack_status_reason()
                .filter(|reason| !reason.is_empty())
                .map(str::to_owned),
            parameters: map(stack
                .parameters()
                .iter()
                .map(|one| (one.parameter_key(), one.parameter_value()))),
            outputs: map(stack
                .outputs()
                .iter()
                .map(|one| (one.output_key(), one.output_value()))),
            tags: map(stack.tags().iter().map(|one| (one.key(), one.value()))),
            is_adopted: stack.description() == Some(ADOPTED) && stack.outputs().is_empty(),
        }
    }
}

/// Why a change of a stack failed.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A resource failed, and CloudFormation rolled the change back.
    #[error("the stack {stack} ended as {status}{}", blamed(.resource.as_deref(), .reason.as_deref()))]
    Failed {
        /// The stack's full name.
        stack: String,
        /// The stack's status after the change.
        status: String,
        /// CloudFormation's reason for the stack's status.
        reason: Option<String>,
        /// The first resource that failed.
        resource: Option<Box<ResourceEvent>>,
    },
    /// The operation takes longer than any change of this stack should.
    #[error(
        "the stack {0} is still busy after an hour: look at its events in the AWS console, then run this again"
    )]
    Slow(String),
    /// There is a stack of this name that mycli did not create.
    #[error(
        "there is a CloudFormation stack {0} that mycli did not make: choose another name with --stack"
    )]
    Foreign(String),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

fn blamed(resource: Option<&ResourceEvent>, stack_reason: Option<&str>) -> String {
    match resource {
        Some(event) => {
            let reason = event.reason.as_deref().unwrap_or("AWS gave no reason");
            let way_out = way_out(reason)
                .map(|words| format!(".\n{words}"))
                .unwrap_or_default();
            format!(
                ": {} ({}) {}: {reason}{way_out}",
                event.name, event.kind, event.status
            )
        }
        None => stack_reason
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default(),
    }
}

/// Remedies for a quota of the account that stops a stack, each with the words by which AWS's
/// message is recognised. The codes are those of Service Quotas.
const WAYS_OUT: [(&[&str], &str); 6] = [
    (
        &["maximum number of vpcs", "vpclimitexceeded"],
        "A region has five VPCs unless the quota was raised: use a network that is there, with --parameter VpcId=… and --parameter \
         SubnetIds=…, or have the quota L-F678F1CE (vpc) raised",
    ),
    (
        &[
            "maximum number of internet gateways",
            "internetgatewaylimitexceeded",
        ],
        "A region has as many internet gateways as VPCs: use a network that is there, with --parameter VpcId=… and --parameter \
         SubnetIds=…, or have the quota L-A4707A72 (vpc) raised",
    ),
    (
        &["maximum number of addresses", "addresslimitexceeded"],
        "A region has five Elastic IP addresses unless the quota was raised, and a NAT gateway takes one: use subnets that are there, with \
         --parameter VpcId=… and --parameter SubnetIds=…, or have the quota L-0263D0A3 (ec2) raised",
    ),
    (
        &["maximum number of regional apis", "maximum number of apis"],
        "The account has no room for one more API in this region: remove one, or have the quota L-AA0FF27B (apigateway) raised",
    ),
    (
        &["rolesperaccount"],
        "The account has no room for the stack's roles: remove some, or have the quota L-FE177D64 (iam) raised",
    ),
    (
        &["unreservedconcurrentexecution"],
        "The account's Lambda concurrency has no room for the concurrency to reserve: leave ReservedConcurrency at 0, or have the quota \
         L-B99A9384 (lambda) raised",
    ),
];

fn way_out(reason: &str) -> Option<&'static str> {
    let lower = reason.to_lowercase();
    let fits = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));
    WAYS_OUT
        .iter()
        .find(|(needles, _)| fits(needles))
        .map(|(_, words)| *words)
}

/// A parameter's value in an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// A new value.
    Value(String),
    /// The value that the deployed stack has.
    Previous,
}

/// The parameters of a deployment.
pub(crate) type StackSettings = BTreeMap<String, Setting>;

/// The CloudFormation calls for one stack.
#[derive(Clone, Debug)]
pub struct Stacks {
    client: Client,
    name: StackName,
}

/// The answer to an update request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeSetAnswer {
    /// The update has begun.
    Begun,
    /// There is nothing to change.
    Nothing,
}

impl Stacks {
    /// The calls for the stack of this name.
    #[must_use]
    pub fn new(account: &Account, name: &StackName) -> Self {
        Self {
            client: Client::new(&account.config),
            name: name.clone(),
        }
    }

    fn doing(&self, verb: &str) -> String {
        format!("{verb} the stack {}", self.name.full())
    }

    /// Returns the stack, if it exists.
    ///
    /// # Errors
    /// [`StackError::Foreign`] for a stack that mycli did not create.
    pub async fn find(&self) -> Result<Option<StackView>, StackError> {
        let found = self.describe(&self.name.full()).await?;
        match found {
            Some(stack)
                if !stack.is_adopted
                    && stack
                        .tags
                        .get(TAG)
                        .is_none_or(|name| name != self.name.as_str()) =>
            {
                Err(StackError::Foreign(self.name.full()))
            }
            other => Ok(other),
        }
    }

    async fn describe(&self, name_or_id: &str) -> Result<Option<StackView>, CallError> {
        match self
            .client
            .describe_stacks()
            .stack_name(name_or_id)
            .send()
            .await
        {
            Ok(found) => Ok(found.stacks().first().map(StackView::from)),
            Err(error) if says(&error, "does not exist") => Ok(None),
            Err(error) => Err(CallError::of(self.doing("look at"))(error)),
        }
    }

    /// Creates the stack and waits until it is complete.
    pub(crate) async fn create(
        &self,
        template_url: &str,
        settings: &StackSettings,
        tell: &impl Fn(StackProgress),
    ) -> Result<StackView, StackError> {
        let call = self
            .client
            .create_stack()
            .stack_name(self.name.full())
            .template_url(template_url);
        let call = call
            .capabilities(Capability::CapabilityNamedIam)
            .tags(self.tag());
        let asked = call.set_parameters(Some(parameters(settings))).send().await;
        let made = asked.map_err(CallError::of(self.doing("make")))?;
        let id = made
            .stack_id()
            .map_or_else(|| self.name.full(), str::to_owned);
        self.follow(&id, None, "CREATE_COMPLETE", tell).await
    }

    /// Creates the stack by importing an existing table, and waits until it is complete.
    pub(crate) async fn import(
        &self,
        template_url: &str,
        logical_name: &str,
        table: &str,
        tell: &impl Fn(StackProgress),
    ) -> Result<StackView, StackError> {
        let resource = ResourceToImport::builder()
            .resource_type(TABLE)
            .logical_resource_id(logical_name)
            .resource_identifier("TableName", table)
            .build();
        let call = self
            .client
            .create_change_set()
            .stack_name(self.name.full())
            .change_set_name(IMPORT);
        let call = call
            .change_set_type(ChangeSetType::Import)
            .template_url(template_url)
            .resources_to_import(resource);
        let made = call
            .send()
            .await
            .map_err(CallError::of(self.doing("import the table into")))?;
        let change_set = made.id().unwrap_or(IMPORT).to_owned();
        self.reviewed(&change_set).await?;
        let call = self
            .client
            .execute_change_set()
            .stack_name(self.name.full())
            .change_set_name(&change_set);
        call.send()
            .await
            .map_err(CallError::of(self.doing("import the table into")))?;
        let id = made
            .stack_id()
            .map_or_else(|| self.name.full(), str::to_owned);
        self.begun(&id).await?;
        self.follow(&id, None, "IMPORT_COMPLETE", tell).await
    }

    /// Waits until a change set can be executed.
    async fn reviewed(&self, change_set: &str) -> Result<(), StackError> {
        let end = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        while Instant::now() < end {
            let call = self
                .client
                .describe_change_set()
                .stack_name(self.name.full())
                .change_set_name(change_set);
            let seen = call
                .send()
                .await
                .map_err(CallError::of(self.doing("look at a change of")))?;
            match seen.status() {
                Some(ChangeSetStatus::CreateComplete) => return Ok(()),
                Some(status @ ChangeSetStatus::Failed) => {
                    return Err(StackError::Failed {
                        stack: self.name.full(),
                        status: status.as_str().to_owned(),
                        reason: seen.status_reason().map(str::to_owned),
                        resource: None,
                    });
                }
                _ => sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(StackError::Slow(self.name.full()))
    }

    /// Waits until the stack's status shows that a change set is being executed.
    async fn begun(&self, id: &str) -> Result<(), StackError> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.describe(id).await? {
                Some(stack) if stack.status == "REVIEW_IN_PROGRESS" => sleep(FIRST_PAUSE).await,
                _ => return Ok(()),
            }
        }
        Err(StackError::Slow(self.name.full()))
    }

    /// Updates the stack and waits until that is done. Returns `None` if there is nothing to
    /// change.
    pub(crate) async fn update(
        &self,
        stack: &StackView,
        template_url: &str,
        settings: &StackSettings,
        tell: &impl Fn(StackProgress),
    ) -> Result<Option<StackView>, StackError> {
        let seen = self.latest_event(&stack.id).await?;
        match self.ask_update(template_url, settings).await? {
            ChangeSetAnswer::Nothing => Ok(None),
            ChangeSetAnswer::Begun => self
                .follow(&stack.id, seen, "UPDATE_COMPLETE", tell)
                .await
                .map(Some),
        }
    }

    async fn ask_update(
        &self,
        template_url: &str,
        settings: &StackSettings,
    ) -> Result<ChangeSetAnswer, CallError> {
        let call = self
            .client
            .update_stack()
            .stack_name(self.name.full())
            .template_url(template_url);
        let call = call
            .capabilities(Capability::CapabilityNamedIam)
            .tags(self.tag());
        match call.set_parameters(Some(parameters(settings))).send().await {
            Ok(_) => Ok(ChangeSetAnswer::Begun),
            Err(error) if says(&error, "No updates are to be performed") => {
                Ok(ChangeSetAnswer::Nothing)
            }
            Err(error) => Err(CallError::of(self.doing("change"))(error)),
        }
    }

    /// Removes the stack and waits until it is gone.
    pub(crate) async fn delete(
        &self,
        stack: &StackView,
        tell: &impl Fn(StackProgress),
    ) -> Result<(), StackError> {
        let seen = self.latest_event(&stack.id).await?;
        let asked = self
            .client
            .delete_stack()
            .stack_name(&stack.id)
            .send()
            .await;
        asked.map_err(CallError::of(self.doing("remove")))?;
        self.follow(&stack.id, seen, "DELETE_COMPLETE", tell)
            .await
            .map(drop)
    }

    /// Continues a rollback that got stuck.
    pub(crate) async fn unstick(
        &self,
        stack: &StackView,
        tell: &impl Fn(StackProgress),
    ) -> Result<StackView, StackError> {
        let seen = self.latest_event(&stack.id).await?;
        let asked = self
            .client
            .continue_update_rollback()
            .stack_name(self.name.full())
            .send()
            .await;
        asked.map_err(CallError::of(
            self.doing("go on undoing the last change of"),
        ))?;
        self.follow(&stack.id, seen, "UPDATE_ROLLBACK_COMPLETE", tell)
            .await
    }

    /// Waits until no operation on the stack is in progress.
    pub(crate) async fn settle(
        &self,
        stack: &StackView,
        tell: &impl Fn(StackProgress),
    ) -> Result<StackView, StackError> {
        let seen = self.latest_event(&stack.id).await?;
        Ok(self.watch(&stack.id, seen, tell).await?.0)
    }

    /// Returns the resources' physical ids by their names in the template. One answer lists a
    /// hundred (CloudFormation API reference, `DescribeStackResources`), which is more than the
    /// template has.
    pub(crate) async fn resources(&self) -> Result<BTreeMap<String, String>, CallError> {
        let asked = self
            .client
            .describe_stack_resources()
            .stack_name(self.name.full())
            .send()
            .await;
        let answer = asked.map_err(CallError::of(self.doing("list the resources of")))?;
        let pairs = answer.stack_resources().iter().filter_map(|resource| {
            Some((
                resource.logical_resource_id()?.to_owned(),
                resource.physical_resource_id()?.to_owned(),
            ))
        });
        Ok(pairs.collect())
    }

    /// Returns the template of the last deployment.
    pub(crate) async fn template(&self) -> Result<String, CallError> {
        let call = self
            .client
            .get_template()
            .stack_name(self.name.full())
            .template_stage(TemplateStage::Original);
        let got = call
            .send()
            .await
            .map_err(CallError::of(self.doing("read the template of")))?;
        Ok(got.template_body().unwrap_or_default().to_owned())
    }

    fn tag(&self) -> Tag {
        Tag::builder().key(TAG).value(self.name.as_str()).build()
    }

    async fn follow(
        &self,
        id: &str,
        seen: Option<String>,
        wanted: &str,
        tell: &impl Fn(StackProgress),
    ) -> Result<StackView, StackError> {
        let (stack, failure) = self.watch(id, seen, tell).await?;
        if stack.status == wanted {
            return Ok(stack);
        }
        Err(StackError::Failed {
            stack: self.name.full(),
            status: stack.status,
            reason: stack.reason,
            resource: failure.map(Box::new),
        })
    }

    /// Reports every event after `seen` until no operation is in progress. Returns the stack and
    /// the first failure.
    async fn watch(
        &self,
        id: &str,
        mut seen: Option<String>,
        tell: &impl Fn(StackProgress),
    ) -> Result<(StackView, Option<ResourceEvent>), StackError> {
        let (end, mut pause, mut failure) = (
            Instant::now() + PATIENCE,
            FIRST_PAUSE,
            None::<ResourceEvent>,
        );
        loop {
            // The status is read before the events, so that the events include all that came before
            // the change of status.
            let stack = self.describe(id).await?;
            let events = self.events_after(id, seen.as_deref()).await?;
            seen = events.last().map(|(id, _)| id.clone()).or(seen);
            for (_, event) in events {
                let blamed = event.is_failure() && !event.is_of_the_stack();
                failure = failure.or_else(|| blamed.then(|| event.clone()));
                tell(StackProgress::Resource(event));
            }
            match stack {
                Some(stack) if stack.condition() != StackCondition::Busy => {
                    return Ok((stack, failure));
                }
                Some(_) if Instant::now() < end => {}
                Some(_) => return Err(StackError::Slow(self.name.full())),
                None => return Err(CallError::new(self.doing("follow"), "it is gone").into()),
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    async fn latest_event(&self, id: &str) -> Result<Option<String>, CallError> {
        let page = self
            .client
            .describe_stack_events()
            .stack_name(id)
            .send()
            .await;
        let page = page.map_err(CallError::of(self.doing("read the events of")))?;
        Ok(page
            .stack_events()
            .first()
            .and_then(StackEvent::event_id)
            .map(str::to_owned))
    }

    /// Returns the events after `seen` with their ids, oldest first. CloudFormation lists the
    /// newest first.
    async fn events_after(
        &self,
        id: &str,
        seen: Option<&str>,
    ) -> Result<Vec<(String, ResourceEvent)>, CallError> {
        let mut pages = self
            .client
            .describe_stack_events()
            .stack_name(id)
            .into_paginator()
            .send();
        let mut events = Vec::new();
        'pages: while let Some(page) = pages.next().await {
            let page = page.map_err(CallError::of(self.doing("read the events of")))?;
            for event in page.stack_events() {
                if seen.is_some() && event.event_id() == seen {
                    break 'pages;
                }
                events.push((
                    event.event_id().unwrap_or_default().to_owned(),
                    resource_event(event),
                ));
            }
        }
        events.reverse();
        Ok(events)
    }
}

fn resource_event(event: &StackEvent) -> ResourceEvent {
    let at = event
        .timestamp()
        .and_then(|at| DateTime::from_timestamp(at.secs(), at.subsec_nanos()));
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    ResourceEvent {
        at: at.unwrap_or_default(),
        name: text(event.logical_resource_id()),
        kind: text(event.resource_type()),
        status: event
            .resource_status()
            .map(|status| status.as_str().to_owned())
            .unwrap_or_default(),
        reason: event
            .resource_status_reason()
            .filter(|reason| !reason.is_empty())
            .map(str::to_owned),
    }
}

/// Whether CloudFormation's message contains these words. Its one code, `ValidationError`, stands
/// for several causes that only the message tells apart.
fn says<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>, words: &str) -> bool {
    error
        .as_service_error()
        .and_then(ProvideErrorMetadata::message)
        .is_some_and(|message| message.contains(words))
}

fn parameters(settings: &StackSettings) -> Vec<Parameter> {
    let one = |(name, setting): (&String, &Setting)| {
        let parameter = Parameter::builder().parameter_key(name);
        match setting {
            Setting::Value(value) => parameter.parameter_value(value).build(),
            Setting::Previous => parameter.use_previous_value(true).build(),
        }
    };
    settings.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_can_be_done() {
        for (status, condition) in [
            ("CREATE_COMPLETE", StackCondition::Stands),
            ("UPDATE_COMPLETE", StackCondition::Stands),
            ("UPDATE_ROLLBACK_COMPLETE", StackCondition::Stands),
            ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", StackCondition::Busy),
            ("ROLLBACK_IN_PROGRESS", StackCondition::Busy),
            ("ROLLBACK_COMPLETE", StackCondition::NeverStood),
            ("REVIEW_IN_PROGRESS", StackCondition::NeverStood),
            ("UPDATE_ROLLBACK_FAILED", StackCondition::Stuck),
            ("DELETE_FAILED", StackCondition::HalfRemoved),
        ] {
            assert_eq!(StackCondition::of(status), condition, "{status}");
        }
    }

    /// The messages are AWS's, as public reports quote them.
    #[test]
    fn a_quota_that_stops_a_stack_is_named_with_the_way_out() {
        let told = |kind: &str, reason: &str| {
            let event = ResourceEvent {
                at: DateTime::default(),
                name: "Vpc".into(),
                kind: kind.into(),
                status: "CREATE_FAILED".into(),
                reason: Some(reason.into()),
            };
            blamed(Some(&event), None)
        };
        for (kind, reason, way_out) in [
            (
                "AWS::EC2::VPC",
                "Resource handler returned message: \"The maximum number of VPCs has been reached. (Service: Ec2, Status Code: 400)\"",
                "VpcId",
            ),
            (
                "AWS::EC2::InternetGateway",
                "The maximum number of internet gateways has been reached.",
                "L-A4707A72",
            ),
            (
                "AWS::EC2::EIP",
                "The maximum number of addresses has been reached.",
                "SubnetIds",
            ),
            (
                "AWS::ApiGateway::RestApi",
                "Maximum number of Regional APIs for the account was reached",
                "L-AA0FF27B",
            ),
            (
                "AWS::IAM::Role",
                "Cannot exceed quota for RolesPerAccount: 1000",
                "L-FE177D64",
            ),
            (
                "AWS::Lambda::Function",
                "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [10].",
                "ReservedConcurrency",
            ),
        ] {
            let told = told(kind, reason);
            assert!(told.contains(reason) && told.contains(way_out), "{told}");
        }
        assert!(told("AWS::EC2::VPC", "Internal failure").ends_with("Internal failure"));
    }

    #[test]
    fn what_is_cancelled_by_a_failure_is_not_the_failure() {
        let event = |status: &str, reason: &str| ResourceEvent {
            at: DateTime::default(),
            name: "Table".into(),
            kind: "AWS::DynamoDB::Table".into(),
            status: status.into(),
            reason: Some(reason.into()),
        };
        assert!(event("CREATE_FAILED", "Table already exists").is_failure());
        assert!(!event("CREATE_FAILED", "Resource creation cancelled").is_failure());
        assert!(!event("CREATE_COMPLETE", "").is_failure());
    }
}
