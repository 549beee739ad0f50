//! Waiting for a time or for news, whichever comes first, so that nobody has to poll.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use chrono::TimeDelta;
use domain::{Timestamp, ports::Clock};

use super::{script::locked, time::Virtual};

/// Something that others wait for. Clones share the same news.
#[derive(Clone, Default)]
pub(super) struct News(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    told: u64,
    waiting: Vec<Waker>,
}

impl News {
    /// Wakes everybody who waits.
    pub(super) fn tell(&self) {
        let mut state = locked(&self.0);
        state.told += 1;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// Returns at that time, or at the first news after the call.
    pub(super) fn wait(
        &self,
        time: &Virtual,
        until: Timestamp,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (news, seen) = (self.clone(), locked(&self.0).told);
        let left = (until - time.now()).max(TimeDelta::zero());
        let clock = time.clone();
        let sleep: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(async move { clock.sleep(left).await });
        Wait { news, seen, sleep }
    }
}

struct Wait {
    news: News,
    seen: u64,
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = locked(&self.news.0);
        if state.told != self.seen {
            return Poll::Ready(());
        }
        state.waiting.push(context.waker().clone());
        drop(state);
        self.sleep.as_mut().poll(context)
    }
}
