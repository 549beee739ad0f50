//! Calls that take several items at once, and may fail for some of them only.

use std::time::Duration;

use domain::ports::{Entropy, Unavailable};
use futures_util::stream::{self, StreamExt};

use crate::ambient::System;

/// Most entries of one call (Amazon SQS, `SendMessageBatch`; Amazon EventBridge, `PutEvents`).
pub(crate) const ENTRIES: usize = 10;
/// Calls under way at once. Ours.
const PARALLEL: usize = 4;
/// How often what failed is sent again. Ours.
const AGAIN: u32 = 3;
/// The first pause before that, doubled each time. Ours.
const PAUSE: Duration = Duration::from_millis(50);

/// An item that was not taken.
pub(crate) struct Left<T> {
    pub(crate) item: T,
    /// The service's code and words.
    pub(crate) why: String,
    /// Sending it again may do.
    pub(crate) may_pass: bool,
}

/// Sends every item at least once, in calls of at most ten. What is left over is sent again a few times, and then it is said.
pub(crate) async fn send<T, F>(
    service: &'static str,
    items: Vec<T>,
    call: impl Fn(Vec<T>) -> F,
) -> Result<(), Unavailable>
where
    F: Future<Output = Result<Vec<Left<T>>, Unavailable>>,
{
    let mut items = items;
    for round in 0.. {
        let left = once(items, &call).await?;
        if left.is_empty() {
            break;
        }
        if let Some(hopeless) = left.iter().find(|left| !left.may_pass || round == AGAIN) {
            return Err(Unavailable::new(service, format!("{} were not taken: {}", left.len(), hopeless.why)));
        }
        tokio::time::sleep(pause(round)).await;
        items = left.into_iter().map(|left| left.item).collect();
    }
    Ok(())
}

/// One call for every ten. Each is made, even if one before it failed: what is sent is sent.
async fn once<T, F>(items: Vec<T>, call: &impl Fn(Vec<T>) -> F) -> Result<Vec<Left<T>>, Unavailable>
where
    F: Future<Output = Result<Vec<Left<T>>, Unavailable>>,
{
    let mut items = items.into_iter().peekable();
    let batches =
        std::iter::from_fn(|| items.peek().is_some().then(|| items.by_ref().take(ENTRIES).collect::<Vec<_>>()));
    let calls: Vec<_> = batches.map(call).collect();
    let answers: Vec<_> = stream::iter(calls).buffer_unordered(PARALLEL).collect().await;
    answers.into_iter().try_fold(Vec::new(), |mut all, left| {
        all.extend(left?);
        Ok(all)
    })
}

/// Between half and the whole of a time that doubles, so that many that were throttled at once do not come back at once.
fn pause(round: u32) -> Duration {
    let whole = PAUSE * (1 << round.min(6));
    let per_mille = u32::try_from(System.bits() % 500).unwrap_or_default();
    whole / 2 + whole * per_mille / 1000
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn left(item: u32, may_pass: bool) -> Left<u32> {
        Left { item, why: "InternalError: try again".into(), may_pass }
    }

    #[tokio::test]
    async fn what_failed_is_sent_again_and_nothing_else() {
        let calls = Mutex::new(Vec::new());
        let call = |items: Vec<u32>| {
            let again = items.len() < ENTRIES;
            let failed = items.iter().filter(|item| !again && *item % 7 == 0).map(|item| left(*item, true)).collect();
            calls.lock().unwrap().push(items);
            async { Ok(failed) }
        };
        send("the queue", (1..=20).collect(), call).await.unwrap();
        assert_eq!(*calls.lock().unwrap(), [(1..=10).collect::<Vec<_>>(), (11..=20).collect(), vec![7, 14]]);
    }

    #[tokio::test]
    async fn what_is_never_taken_is_said() {
        let calls = Mutex::new(0);
        let call = |items: Vec<u32>| {
            *calls.lock().unwrap() += 1;
            async move { Ok(items.into_iter().map(|item| left(item, true)).collect()) }
        };
        let error = send("the queue", vec![1], call).await.unwrap_err();
        assert_eq!(error.to_string(), "the queue is unavailable: 1 were not taken: InternalError: try again");
        assert_eq!(*calls.lock().unwrap(), AGAIN + 1);
    }

    #[tokio::test]
    async fn the_senders_own_fault_is_not_repeated() {
        let call = |items: Vec<u32>| async move { Ok(items.into_iter().map(|item| left(item, false)).collect()) };
        assert!(send("the queue", vec![1], call).await.is_err());
    }

    #[tokio::test]
    async fn a_failed_call_does_not_keep_the_others_from_being_made() {
        let taken = Mutex::new(Vec::new());
        let call = |items: Vec<u32>| {
            let fails = items.contains(&1);
            taken.lock().unwrap().extend(items);
            async move { if fails { Err(Unavailable::new("the queue", "cut")) } else { Ok(Vec::new()) } }
        };
        assert!(send("the queue", (1..=20).collect(), call).await.is_err());
        assert_eq!(taken.lock().unwrap().len(), 20);
    }
}
