//! Follows a container to its end: passes on all of its output, then tells how it ended.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use bollard::errors::Error as Fault;
use bollard::query_parameters::WaitContainerOptions;
use domain::Timestamp;
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::error::{EngineError, failed, is_missing, plain};
use super::log::{self, Piece, Until};
use super::{ContainerRunner, Stage, StopPatience, ended, stage};
use crate::failpoint;
use crate::task::TaskEnd;

/// The shortest time between two checks whether the container runs, so that a talkative command
/// does not keep the engine busy.
const CONFIRM_PAUSE: Duration = Duration::from_millis(50);

/// How often an engine with a lossy stream is asked for new lines. Its own stream checks as often.
const POLL_PAUSE: Duration = Duration::from_millis(250);

/// How long the last piece of a growing log must stay the same before it counts as a whole line.
/// The log's writer takes microseconds between the two halves of a line, but up to 1 s on a machine
/// under load.
const SETTLED: Duration = Duration::from_secs(1);

/// The pause after a reading of the whole log, as a multiple of the time that the reading took.
/// With 4, reading takes at most a fifth of the engine's time, however long the log is.
const POLL_SHARE: u32 = 4;

/// The most bytes of output that wait to be confirmed. More stays in the connection.
const HELD_MAX: usize = 4 << 20;

/// Takes a container's output from a given byte on.
pub(super) struct Follower<'a, F> {
    runner: &'a ContainerRunner,
    id: &'a str,
    /// The bytes passed on by this and earlier followers. The next reading begins there.
    taken: u64,
    /// The last piece of a growing log, and since when it has been the same. Its line may be
    /// incomplete.
    unsettled: Option<(Piece, Instant)>,
    on: F,
}

impl<'a, F: FnMut(Timestamp, &[u8])> Follower<'a, F> {
    pub(super) fn new(runner: &'a ContainerRunner, id: &'a str, taken: u64, on: F) -> Self {
        Self {
            runner,
            id,
            taken,
            unsettled: None,
            on,
        }
    }

    pub(super) async fn follow(mut self) -> Result<TaskEnd, EngineError> {
        let (runner, id) = (self.runner, self.id);
        let ended = tokio::select! {
            ended = wait(runner, id) => ended?,
            never = self.as_it_grows() => match never {},
        };
        // Only now is the log surely complete. An engine may close its stream, or this may drop it,
        // before the last lines.
        self.drain().await?;
        Ok(ended)
    }

    fn hand_on(&mut self, piece: &Piece) {
        (self.on)(piece.at, &piece.bytes);
        self.taken += piece.bytes.len() as u64;
    }

    /// Passes on the container's output while it grows. Ends only when it is dropped.
    async fn as_it_grows(&mut self) -> Infallible {
        if self.runner.loses_lines {
            self.poll().await
        } else {
            self.stream().await
        }
    }

    /// Polls the log instead of using Podman's stream (4.3 at least). At the end of a growing log,
    /// that stream takes half a line for a whole one, and continues after the text that was written
    /// meanwhile. Podman's log at rest is right, except for that last line.
    async fn poll(&mut self) -> Infallible {
        let mut known = None;
        loop {
            let began = Instant::now();
            failpoint!("container.poll.before");
            let newest = self.newest().await;
            if (newest != known || self.unsettled.is_some()) && self.take_settled().await.is_ok() {
                known = newest;
            }
            failpoint!("container.poll.after");
            tokio::time::sleep(POLL_PAUSE.max(began.elapsed() * POLL_SHARE)).await;
        }
    }

    async fn newest(&self) -> Option<Piece> {
        let pieces = log::read(&self.runner.docker, self.id, Until::NewestOnly, 0);
        pieces
            .filter_map(async |piece| piece.ok())
            .collect::<Vec<_>>()
            .await
            .pop()
    }

    /// Passes on all pieces; the last one only once it has stayed the same for [`SETTLED`].
    async fn take_settled(&mut self) -> Result<(), Fault> {
        let mut pieces = pin!(log::read(
            &self.runner.docker,
            self.id,
            Until::Now,
            self.taken
        ));
        let mut last = None;
        while let Some(piece) = pieces.try_next().await? {
            if let Some(whole) = last.replace(piece) {
                self.hand_on(&whole);
            }
        }
        let before = self.unsettled.take();
        let since = |last: &Piece| {
            before
                .filter(|(piece, _)| piece == last)
                .map_or_else(Instant::now, |(_, since)| since)
        };
        match last.map(|last| (since(&last), last)) {
            Some((since, last)) if since.elapsed() >= SETTLED => self.hand_on(&last),
            unsettled => self.unsettled = unsettled.map(|(since, last)| (last, since)),
        }
        Ok(())
    }

    /// Reads the log as it grows. After a break it continues at the same byte. Ends only when it is
    /// dropped.
    async fn stream(&mut self) -> Infallible {
        let mut patience = StopPatience::new();
        loop {
            failpoint!("container.logs.before");
            let pieces = log::read(
                &self.runner.docker,
                self.id,
                Until::ContainerEnds,
                self.taken,
            );
            if let Err(fault) = self.take_while_running(pieces).await {
                tracing::debug!(
                    container_id = self.id,
                    error = plain(&fault),
                    "the log's stream broke off"
                );
            }
            patience.pause().await;
        }
    }

    /// Passes on a piece once the container was seen to run *after* the piece arrived. From a
    /// container's end on, an engine may leave out lines of its stream (Podman does).
    /// [`Self::drain`] reads the output after that again.
    async fn take_while_running(
        &mut self,
        pieces: impl Stream<Item = Result<Piece, Fault>>,
    ) -> Result<(), Fault> {
        let pieces = pin!(pieces);
        let mut incoming = Incoming::new(pieces);
        let mut ask_at = Instant::now();
        while incoming.has_come().await {
            incoming.during(tokio::time::sleep_until(ask_at)).await;
            ask_at = Instant::now() + CONFIRM_PAUSE;
            let before_asking = incoming.held.len();
            if !incoming.during(self.runs()).await {
                return Ok(());
            }
            incoming
                .release(before_asking)
                .for_each(|piece| self.hand_on(&piece));
        }
        incoming.over.unwrap_or(Ok(()))
    }

    async fn runs(&self) -> bool {
        self.runner
            .inspect(self.id)
            .await
            .is_ok_and(|found| stage(&found) == Stage::Running)
    }

    /// Reads the rest of an ended container's log.
    async fn drain(&mut self) -> Result<(), EngineError> {
        let mut patience = StopPatience::new();
        loop {
            failpoint!("container.drain.before");
            let read = self.take_rest().await;
            failpoint!("container.drain.after");
            match read {
                Ok(()) => return Ok(()),
                Err(fault) if is_missing(&fault) => {
                    return Err(EngineError::Gone(self.id.to_owned()));
                }
                Err(fault) => patience.spend(|| failed("give a container's log")(fault))?,
            }
            patience.pause().await;
        }
    }

    async fn take_rest(&mut self) -> Result<(), Fault> {
        let mut pieces = pin!(log::read(
            &self.runner.docker,
            self.id,
            Until::End,
            self.taken
        ));
        while let Some(piece) = pieces.try_next().await? {
            self.hand_on(&piece);
        }
        Ok(())
    }
}

/// Pieces that have arrived and are held back.
struct Incoming<S> {
    pieces: S,
    held: VecDeque<Piece>,
    held_bytes: usize,
    /// How the stream ended, once it has.
    over: Option<Result<(), Fault>>,
}

impl<S: Stream<Item = Result<Piece, Fault>> + Unpin> Incoming<S> {
    fn new(pieces: S) -> Self {
        Self {
            pieces,
            held: VecDeque::new(),
            held_bytes: 0,
            over: None,
        }
    }

    /// Waits until a piece is held. Returns `false` if none is held and none will arrive.
    async fn has_come(&mut self) -> bool {
        while self.held.is_empty() && self.over.is_none() {
            let next = self.pieces.next().await;
            self.hold(next);
        }
        !self.held.is_empty()
    }

    /// Collects pieces while `work` runs.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                next = self.pieces.next(), if self.over.is_none() && self.held_bytes < HELD_MAX => self.hold(next),
            }
        }
    }

    fn hold(&mut self, next: Option<Result<Piece, Fault>>) {
        match next {
            Some(Ok(piece)) => {
                self.held_bytes += piece.bytes.len();
                self.held.push_back(piece);
            }
            Some(Err(fault)) => self.over = Some(Err(fault)),
            None => self.over = Some(Ok(())),
        }
    }

    /// Removes the first `count` held pieces.
    fn release(&mut self, count: usize) -> impl Iterator<Item = Piece> + use<'_, S> {
        self.held_bytes -= self
            .held
            .iter()
            .take(count)
            .map(|piece| piece.bytes.len())
            .sum::<usize>();
        self.held.drain(..count)
    }
}

/// Waits until the container has ended. Engines answer "wait" in different ways, and the answer may
/// be cut off, so the inspection decides.
async fn wait(runner: &ContainerRunner, id: &str) -> Result<TaskEnd, EngineError> {
    let mut patience = StopPatience::new();
    loop {
        failpoint!("container.wait.before");
        // Its answer and its failure mean the same: inspect the container.
        let _ = pin!(
            runner
                .docker
                .wait_container(id, None::<WaitContainerOptions>)
        )
        .next()
        .await;
        failpoint!("container.wait.after");
        match runner.inspect(id).await {
            Ok(found) => match ended(&found) {
                Some(ended) => return Ok(ended),
                None => patience.reset(),
            },
            Err(fault) if is_missing(&fault) => return Err(EngineError::Gone(id.to_owned())),
            Err(fault) => patience.spend(|| failed("tell of a container")(fault))?,
        }
        patience.pause().await;
    }
}
