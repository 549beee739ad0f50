//! Reading the end of a task's log: the marker lines that say how the command ended.

use chrono::TimeDelta;
use domain::{
    backoff,
    execution::{Attempt, Execution},
    id::ExecutionId,
    message::{Message, Outgoing},
    ports::{Clock, Logs, PortError, Queue, ReadError, WriteStore},
    settings::Settings,
    transition::Observation,
};

use crate::{
    advance::{advance, delayed},
    markers,
};

/// Reads a stopped task's last marker lines from its log, once no more lines can arrive.
pub(crate) async fn read_log(
    store: &impl WriteStore,
    queue: &impl Queue,
    logs: &impl Logs,
    clock: &impl Clock,
    settings: &Settings,
    execution: &Execution,
    attempt: &Attempt,
) -> Result<(), PortError> {
    let left = attempt
        .log_settles_at(settings)
        .map_or(TimeDelta::zero(), |at| at - clock.now());
    if left > TimeDelta::zero() {
        let again = delayed(
            Message::Check {
                id: execution.id.clone(),
            },
            left.num_milliseconds(),
        );
        return queue.send(vec![again]).await;
    }
    let said = match attempt.task_arn.as_ref() {
        None => Vec::new(),
        Some(arn) => match markers::read_ends(logs, &arn.log_stream(), &attempt.nonce).await {
            // Being throttled is not a failure. SQS delivers a failed message only a few more
            // times, so a delayed check is sent instead.
            Err(ReadError::Throttled) => return queue.send(vec![read_later(&execution.id)]).await,
            said => said?,
        },
    };
    let (now, number) = (clock.now(), attempt.number);
    let heard =
        |execution: &Execution| execution.observe(number, &Observation::WholeLog(&said), now);
    advance(store, queue, now, &execution.id, heard)
        .await
        .map(|_| ())
}

/// Returns a delayed check for a time when logs are read too often. The pause depends on the id, so
/// that the checks of many executions are spread out.
fn read_later(id: &ExecutionId) -> Outgoing {
    let chance = id.as_str().bytes().fold(0_u128, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u128::from(byte))
    });
    let pause = i64::from(backoff::throttled_seconds(chance)) * 1000;
    delayed(Message::Check { id: id.clone() }, pause)
}
