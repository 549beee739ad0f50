//! Calls that take several items at once and can fail for some of them only.

use std::time::Duration;

use domain::{
    backoff::Backoff,
    ports::{Entropy, PortError},
};
use futures_util::stream::{self, StreamExt};

use crate::{
    error::{Fault, Remedy},
    system::System,
};

/// Most entries of one call (Amazon SQS, `SendMessageBatch`; Amazon EventBridge, `PutEvents`).
pub(crate) const ENTRIES: usize = 10;
/// Calls under way at the same time: enough to send 40 entries in the time of one call.
const PARALLEL: usize = 4;
/// How often failed items are sent again: enough for a short fault. A longer one is left to the
/// caller.
const AGAIN: u32 = 3;
/// The pauses before those retries: at most 350 ms in all, so that a caller hardly notices them.
const PAUSE: Backoff = Backoff {
    first: Duration::from_millis(50),
    longest: Duration::from_secs(3),
};

/// An item that the service did not accept.
pub(crate) struct LeftItem<T> {
    pub(crate) item: T,
    /// The service's message about it.
    pub(crate) fault: Fault,
}

impl<T> LeftItem<T> {
    /// Whether sending it again may succeed.
    pub(crate) fn may_pass(&self) -> bool {
        self.fault.remedy != Remedy::Change
    }
}

/// Sends every item at least once, in calls of at most ten. Items that were not accepted are sent
/// again a few times; if some are then left, that is the error.
pub(crate) async fn send<T, F>(
    service: &'static str,
    items: Vec<T>,
    call: impl Fn(Vec<T>) -> F,
) -> Result<(), PortError>
where
    F: Future<Output = Result<Vec<LeftItem<T>>, PortError>>,
{
    let mut items = items;
    for round in 0.. {
        let left = once(items, &call).await?;
        if left.is_empty() {
            break;
        }
        if let Some(hopeless) = left.iter().find(|left| !left.may_pass() || round == AGAIN) {
            let fault = hopeless.fault.clone();
            let words = format!("{} were not accepted: {}", left.len(), fault.words);
            return Err(Fault { words, ..fault }.of_service(service));
        }
        tokio::time::sleep(PAUSE.pause(round, System.bits())).await;
        items = left.into_iter().map(|left| left.item).collect();
    }
    Ok(())
}

/// Makes one call for every ten items. Every call is made, even if one before it failed.
async fn once<T, F>(
    items: Vec<T>,
    call: &impl Fn(Vec<T>) -> F,
) -> Result<Vec<LeftItem<T>>, PortError>
where
    F: Future<Output = Result<Vec<LeftItem<T>>, PortError>>,
{
    let mut items = items.into_iter().peekable();
    let batches = std::iter::from_fn(|| {
        items
            .peek()
            .is_some()
            .then(|| items.by_ref().take(ENTRIES).collect::<Vec<_>>())
    });
    let calls: Vec<_> = batches.map(call).collect();
    let answers: Vec<_> = stream::iter(calls)
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    answers.into_iter().try_fold(Vec::new(), |mut all, left| {
        all.extend(left?);
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn left(item: u32, may_pass: bool) -> LeftItem<u32> {
        let code = if may_pass {
            "InternalError"
        } else {
            "InvalidMessageContents"
        };
        LeftItem {
            item,
            fault: Fault::answered(400, Some(code), "try again"),
        }
    }

    #[tokio::test]
    async fn what_failed_is_sent_again_and_nothing_else() {
        let calls = Mutex::new(Vec::new());
        let call = |items: Vec<u32>| {
            let again = items.len() < ENTRIES;
            let failed = items
                .iter()
                .filter(|item| !again && *item % 7 == 0)
                .map(|item| left(*item, true))
                .collect();
            calls.lock().unwrap().push(items);
            async { Ok(failed) }
        };
        send("the queue", (1..=20).collect(), call).await.unwrap();
        assert_eq!(
            *calls.lock().unwrap(),
            [
                (1..=10).collect::<Vec<_>>(),
                (11..=20).collect(),
                vec![7, 14]
            ]
        );
    }

    #[tokio::test]
    async fn what_is_never_taken_is_said() {
        let calls = Mutex::new(0);
        let call = |items: Vec<u32>| {
            *calls.lock().unwrap() += 1;
            async move { Ok(items.into_iter().map(|item| left(item, true)).collect()) }
        };
        let error = send("the queue", vec![1], call).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the queue is unavailable: InternalError: 1 were not accepted: try again"
        );
        assert_eq!(*calls.lock().unwrap(), AGAIN + 1);
    }

    #[tokio::test]
    async fn the_senders_own_fault_is_not_repeated() {
        let call = |items: Vec<u32>| async move {
            Ok(items.into_iter().map(|item| left(item, false)).collect())
        };
        assert!(send("the queue", vec![1], call).await.is_err());
    }

    #[tokio::test]
    async fn a_failed_call_does_not_keep_the_others_from_being_made() {
        let taken = Mutex::new(Vec::new());
        let call = |items: Vec<u32>| {
            let fails = items.contains(&1);
            taken.lock().unwrap().extend(items);
            async move {
                if fails {
                    Err(PortError::unavailable("the queue", "cut"))
                } else {
                    Ok(Vec::new())
                }
            }
        };
        assert!(send("the queue", (1..=20).collect(), call).await.is_err());
        assert_eq!(taken.lock().unwrap().len(), 20);
    }
}
