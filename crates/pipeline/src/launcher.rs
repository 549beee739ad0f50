//! The launcher function: starts the executions at the heads of backlogs, stops tasks that are not
//! wanted any more, and finds out what came of launches whose outcome is unknown.

use std::collections::BTreeMap;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use domain::{
    execution::Execution,
    id::ExecutionId,
    limit::LimitKey,
    message::Message,
    ports::{Clock, Definitions, Entropy, LaunchStore, Logs, Queue, Secrets, Tasks, WriteStore},
    settings::Settings,
    stored::FormError,
};

use crate::{definitions::Registered, unreadable::passed_over};

mod checks;
mod groups;
mod heads;
mod launches;
mod limit_state;
mod reruns;
mod rounds;

pub use heads::Heads;
pub use limit_state::Pace;

/// The launcher function.
#[derive(Debug)]
pub struct Launcher<'a, S, Q, T, L, X, A> {
    /// Where executions are recorded.
    pub store: &'a S,
    /// Where wakeups are sent.
    pub queue: &'a Q,
    /// ECS.
    pub tasks: &'a T,
    /// The tasks' output.
    pub logs: &'a L,
    /// Which secrets are set.
    pub secrets: &'a X,
    /// Which task definitions are registered.
    pub registered: &'a Registered,
    /// How fast held backlogs move, as counted by this process.
    pub pace: &'a Pace,
    /// The first records of backlogs, as this process last read them.
    pub heads: &'a Heads,
    /// Clock and randomness.
    pub system: &'a A,
    /// The installation's settings.
    pub settings: &'a Settings,
}

/// A launch that is on record.
struct Launched {
    execution: Execution,
    /// The backlog that it was launched from.
    from: LimitKey,
}

impl<S, Q, T, L, X, A> Launcher<'_, S, Q, T, L, X, A>
where
    S: WriteStore + LaunchStore + Definitions,
    Q: Queue,
    T: Tasks,
    L: Logs,
    X: Secrets,
    A: Clock + Entropy,
{
    /// Handles a batch of messages. Messages that could not be handled are returned as failures, so
    /// that SQS delivers them again.
    pub async fn handle(&self, event: SqsEvent) -> SqsBatchResponse {
        let mut backlogs: BTreeMap<LimitKey, (Vec<String>, Vec<ExecutionId>)> = BTreeMap::new();
        let mut failed = Vec::new();
        let until = self.system.now() + groups::WORK;
        for record in event.records {
            let message_id = record.message_id.clone().unwrap_or_default();
            match parse(&record) {
                Ok(Message::Wakeup { backlog, id }) => {
                    let (messages, ids) = backlogs.entry(backlog).or_default();
                    messages.push(message_id);
                    ids.extend(id);
                }
                Ok(Message::Check { id }) => {
                    if let Err(error) = passed_over(self.attend(&id).await) {
                        tracing::warn!(execution_id = %id, %error, "an execution could not be attended to");
                        failed.push(message_id);
                    }
                }
                Ok(Message::CancelGroup { group }) => {
                    if let Err(error) = self.close_group(&group, until).await {
                        tracing::warn!(%group, %error, "the members of a cancelled group could not be closed");
                        failed.push(message_id);
                    }
                }
                Ok(Message::RerunGroup { group }) => {
                    if let Err(error) = self.rerun_group(&group, until).await {
                        tracing::warn!(%group, %error, "the failed members of a group could not be run again");
                        failed.push(message_id);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a message cannot be read");
                    failed.push(message_id);
                }
            }
        }
        // All backlogs are drained at the same time, so that one that has to wait does not delay
        // the others.
        let drained = backlogs
            .into_iter()
            .map(async |(backlog, (messages, ids))| {
                let result = self.drain_all(backlog.clone(), &ids).await;
                result.err().map_or_else(Vec::new, |error| {
                    tracing::warn!(%backlog, %error, "a backlog could not be drained");
                    messages
                })
            });
        failed.extend(
            futures_util::future::join_all(drained)
                .await
                .into_iter()
                .flatten(),
        );
        let mut response = SqsBatchResponse::default();
        failed.into_iter().for_each(|id| response.add_failure(id));
        response
    }
}

fn parse(record: &SqsMessage) -> Result<Message, FormError> {
    Message::read(record.body.as_deref().unwrap_or_default())
}
