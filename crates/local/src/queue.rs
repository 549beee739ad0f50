//! The two queues of one machine, over SQLite, with SQS's promises. A received message is hidden
//! for a while and comes back unless it is deleted. Each receive is counted. A message that is
//! received too often becomes a dead letter.
//!
//! Each worker has its own messages. A message goes to the worker that owns the execution it is
//! about, and that process is woken.

use std::{fmt, sync::Arc, time::Duration};

use domain::{
    Timestamp,
    message::{Message, Outgoing, QueueName},
    ports::{Clock, PortError, Queue},
};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use tokio::sync::Notify;

use crate::{
    database::{Database, WorkerId, count, integer, millis, moment},
    failpoint,
    store::backlog,
    system::System,
};

/// How many receives a message may have before it becomes a dead letter. SQS leaves the number to
/// its user (`maxReceiveCount`). Five leaves room for a crash or two, and still ends a message that
/// always fails.
pub const MAX_RECEIVES: u32 = 5;
/// The longest delay of a message, in seconds (Amazon SQS, `DelaySeconds`).
pub const DELAY_MAX_SECONDS: u32 = 900;

const SERVICE: &str = "the queue";

/// The queues. Clones share their waiters.
#[derive(Clone)]
pub struct LocalQueue {
    database: Database,
    wake: Arc<dyn Fn(&WorkerId) + Send + Sync>,
    arrivals: Arc<[Notify; QueueName::ALL.len()]>,
}

impl fmt::Debug for LocalQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalQueue")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReceived {
    /// The id for deleting or releasing it.
    pub message_id: String,
    /// The message as JSON.
    pub body: String,
    /// How often it was received, including this time.
    pub receives: u32,
}

/// A message that was received too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDeadLetter {
    /// The id it had as a message.
    pub message_id: String,
    /// The message as JSON.
    pub body: String,
    /// How often it was received.
    pub receives: u32,
    /// The reason, in plain words.
    pub reason: String,
}

impl LocalQueue {
    /// Makes the queues over this file. `wake` is called after a message for another worker is
    /// committed. It must not block.
    #[must_use]
    pub fn new(database: Database, wake: impl Fn(&WorkerId) + Send + Sync + 'static) -> Self {
        Self {
            database,
            wake: Arc::new(wake),
            arrivals: Arc::default(),
        }
    }

    /// Takes up to `max` due messages of this worker, and hides them for `visibility`. Conditional:
    /// no two receivers get the same message within that time. A message that was received
    /// [`MAX_RECEIVES`] times becomes a dead letter instead.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn receive(
        &self,
        queue: QueueName,
        max: u32,
        visibility: Duration,
    ) -> Result<Vec<LocalReceived>, PortError> {
        let wanted = WantedMessage {
            worker: self.database.worker().clone(),
            queue,
            now: System.now(),
            max,
        };
        // Most calls find nothing. A read can tell that without waiting for other processes.
        let probe = wanted.clone();
        if !self.database.read(SERVICE, move |db| probe.any(db)).await? {
            return Ok(Vec::new());
        }
        failpoint!("queue.receive.before");
        let (received, dead) = self
            .database
            .write(SERVICE, move |db| wanted.take(db, visibility))
            .await?;
        failpoint!("queue.receive.after");
        if dead > 0 {
            tracing::error!(
                queue = queue.as_str(),
                count = dead,
                "messages were received too often and are dead letters now"
            );
        }
        Ok(received)
    }

    /// Deletes handled messages. Idempotent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn delete(&self, done: Vec<LocalReceived>) -> Result<(), PortError> {
        if done.is_empty() {
            return Ok(());
        }
        failpoint!("queue.delete.before");
        self.database
            .write(SERVICE, move |db| {
                remove(db, done.iter().map(|message| message.message_id.as_str()))
            })
            .await?;
        failpoint!("queue.delete.after");
        Ok(())
    }

    /// Makes received messages due again after `delay`. Idempotent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn release(
        &self,
        failed: Vec<LocalReceived>,
        delay: Duration,
    ) -> Result<(), PortError> {
        if failed.is_empty() {
            return Ok(());
        }
        let due = after(System.now(), delay);
        let write = move |db: &Connection| {
            let mut show =
                db.prepare_cached("UPDATE messages SET visible_at = ?2 WHERE id = ?1")?;
            failed
                .iter()
                .try_for_each(|message| show.execute(params![message.message_id, due]).map(drop))
        };
        failpoint!("queue.release.before");
        self.database.write(SERVICE, write).await?;
        failpoint!("queue.release.after");
        self.look();
        Ok(())
    }

    /// Returns when this worker's next message is due, hidden messages included. That is the time
    /// to look again.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn next_due(&self, queue: QueueName) -> Result<Option<Timestamp>, PortError> {
        let worker = self.database.worker().clone();
        let read = move |db: &Connection| {
            db.prepare_cached(
                "SELECT min(visible_at) FROM messages WHERE pump = ?1 AND queue = ?2",
            )?
            .query_row([worker.as_str(), queue.as_str()], |row| {
                row.get::<_, Option<i64>>(0)
            })
        };
        Ok(self.database.read(SERVICE, read).await?.map(moment))
    }

    /// Waits until a receive may find something: a message was sent to this worker since the last
    /// wait, or is due now. Each queue may have one waiter.
    pub async fn arrived(&self, queue: QueueName) {
        let arrival = self.arrivals[place(queue)].notified();
        let due = async {
            match self.next_due(queue).await {
                Ok(Some(due)) => {
                    tokio::time::sleep((due - System.now()).to_std().unwrap_or_default()).await;
                }
                Ok(None) => std::future::pending().await,
                // The receive that follows meets the same fault, and reports it.
                Err(_) => {}
            }
        };
        tokio::select! {
            () = arrival => {}
            () = due => {}
        }
    }

    /// Wakes the waiters: another process has sent a message to this worker, or work was taken
    /// over.
    pub fn look(&self) {
        self.arrivals.iter().for_each(Notify::notify_one);
    }

    /// Returns the dead letters of every worker, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn dead_letters(&self) -> Result<Vec<LocalDeadLetter>, PortError> {
        self.database
            .read_long(SERVICE, |db| dead_letters(db, "", &[]))
            .await
    }

    /// Returns this worker's dead letters that are not settled, because their executions must not
    /// wait for ever. Each is returned again until [`LocalQueue::settle`] is called for it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn unsettled_dead_letters(&self) -> Result<Vec<LocalDeadLetter>, PortError> {
        let worker = self.database.worker().to_string();
        self.database
            .read(SERVICE, move |db| {
                dead_letters(db, "WHERE NOT settled AND pump = ?1", &[&worker])
            })
            .await
    }

    /// Marks these dead letters as settled. They stay on the list. Idempotent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn settle(&self, dealt_with: Vec<LocalDeadLetter>) -> Result<(), PortError> {
        let write = move |db: &Connection| {
            let mut settle =
                db.prepare_cached("UPDATE dead_letters SET settled = 1 WHERE id = ?1")?;
            dealt_with
                .iter()
                .try_for_each(|letter| settle.execute([&letter.message_id]).map(drop))
        };
        failpoint!("queue.settle.before");
        self.database.write(SERVICE, write).await?;
        failpoint!("queue.settle.after");
        Ok(())
    }
}

impl Queue for LocalQueue {
    /// Sends all messages or none.
    async fn send(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        if messages.is_empty() {
            return Ok(());
        }
        let queues: Vec<_> = messages
            .iter()
            .map(|outgoing| outgoing.message.queue())
            .collect();
        let letters = messages
            .into_iter()
            .map(Letter::of)
            .collect::<Result<Vec<_>, _>>()?;
        let (own, now) = (self.database.worker().clone(), System.now());
        failpoint!("queue.send.before");
        let workers = self
            .database
            .write(SERVICE, move |db| {
                letters.iter().map(|l| l.post(db, &own, now)).collect()
            })
            .await?;
        failpoint!("queue.send.after");
        self.tell(&queues, workers);
        Ok(())
    }
}

impl LocalQueue {
    /// Wakes each worker that got a message, once.
    fn tell(&self, queues: &[QueueName], mut workers: Vec<WorkerId>) {
        for (queue, worker) in queues.iter().zip(&workers) {
            if worker == self.database.worker() {
                self.arrivals[place(*queue)].notify_one();
            }
        }
        workers.sort_unstable();
        workers.dedup();
        workers
            .iter()
            .filter(|worker| *worker != self.database.worker())
            .for_each(|worker| (self.wake)(worker));
    }
}

fn place(queue: QueueName) -> usize {
    match queue {
        QueueName::Launch => 0,
        QueueName::Control => 1,
    }
}

/// A message on its way into the file.
struct Letter {
    message: Message,
    body: String,
    delay: Duration,
}

impl Letter {
    fn of(outgoing: Outgoing) -> Result<Self, PortError> {
        let body = outgoing
            .message
            .body()
            .map_err(|error| PortError::invalid(SERVICE, error))?;
        let delay = Duration::from_secs(u64::from(outgoing.delay_seconds.min(DELAY_MAX_SECONDS)));
        Ok(Self {
            message: outgoing.message,
            body,
            delay,
        })
    }

    /// Puts the message on its queue. Returns the worker that owns it.
    fn post(&self, db: &Connection, own: &WorkerId, now: Timestamp) -> rusqlite::Result<WorkerId> {
        let worker = self
            .addressee(db, now)?
            .map_or_else(|| own.clone(), WorkerId::from);
        db.prepare_cached(
            "INSERT INTO messages (queue, pump, visible_at, receives, sent_at, body) VALUES (?1, ?2, ?3, 0, ?4, ?5)",
        )?
        .execute(params![
            self.message.queue().as_str(),
            worker.as_str(),
            after(now, self.delay),
            millis(now),
            self.body
        ])?;
        Ok(worker)
    }

    /// Returns the worker that owns the execution of this message; `None` if no worker does.
    fn addressee(&self, db: &Connection, now: Timestamp) -> rusqlite::Result<Option<String>> {
        match &self.message {
            Message::Check { id } | Message::Wakeup { id: Some(id), .. } => db
                .prepare_cached("SELECT pump FROM executions WHERE id = ?1")?
                .query_row([id.as_str()], |row| row.get(0))
                .optional(),
            // The sender handles these itself. The group's members belong to several workers, and
            // the process of any of them may be stopped.
            Message::CancelGroup { .. } | Message::RerunGroup { .. } => Ok(None),
            // The worker of the oldest entry that can be started. An entry that is backed off would
            // use up the wakeup.
            Message::Wakeup { backlog, id: None } => {
                backlog::owner_of_head(db, &backlog.to_string(), millis(now))
            }
        }
    }
}

fn after(now: Timestamp, delay: Duration) -> i64 {
    millis(now).saturating_add(integer(
        u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
    ))
}

/// The messages that a receiver may take now.
#[derive(Clone)]
struct WantedMessage {
    worker: WorkerId,
    queue: QueueName,
    now: Timestamp,
    max: u32,
}

impl WantedMessage {
    fn any(&self, db: &Connection) -> rusqlite::Result<bool> {
        db.prepare_cached(
            "SELECT 1 FROM messages WHERE pump = ?1 AND queue = ?2 AND visible_at <= ?3",
        )?
        .exists(params![
            self.worker.as_str(),
            self.queue.as_str(),
            millis(self.now)
        ])
    }

    /// Takes the due messages. Returns them, and the number of new dead letters.
    fn take(
        &self,
        db: &Connection,
        visibility: Duration,
    ) -> rusqlite::Result<(Vec<LocalReceived>, usize)> {
        let due: Vec<_> = db
            .prepare_cached(
                "SELECT id, body, receives + 1 FROM messages
                 WHERE pump = ?1 AND queue = ?2 AND visible_at <= ?3 ORDER BY visible_at, id LIMIT ?4",
            )?
            .query_map(params![self.worker.as_str(), self.queue.as_str(), millis(self.now), self.max], received)?
            .collect::<rusqlite::Result<_>>()?;
        let (messages, dead): (Vec<_>, Vec<_>) = due
            .into_iter()
            .partition(|message| message.receives <= MAX_RECEIVES);
        let mut hide = db.prepare_cached(
            "UPDATE messages SET receives = receives + 1, visible_at = ?2 WHERE id = ?1",
        )?;
        for message in &messages {
            hide.execute(params![message.message_id, after(self.now, visibility)])?;
        }
        self.bury(db, &dead)?;
        Ok((messages, dead.len()))
    }

    fn bury(&self, db: &Connection, dead: &[LocalReceived]) -> rusqlite::Result<()> {
        let reason = format!("received {MAX_RECEIVES} times and never processed");
        let mut copy = db.prepare_cached(
            "INSERT INTO dead_letters (id, queue, pump, body, receives, sent_at, died_at, reason)
             SELECT id, queue, pump, body, receives, sent_at, ?2, ?3 FROM messages WHERE id = ?1",
        )?;
        for message in dead {
            copy.execute(params![message.message_id, millis(self.now), reason])?;
        }
        remove(db, dead.iter().map(|message| message.message_id.as_str()))
    }
}

fn dead_letters(
    db: &Connection,
    condition: &str,
    values: &[&dyn ToSql],
) -> rusqlite::Result<Vec<LocalDeadLetter>> {
    db.prepare_cached(&format!(
        "SELECT id, body, receives, reason FROM dead_letters {condition} ORDER BY id"
    ))?
    .query_map(values, dead_letter)?
    .collect()
}

fn received(row: &Row<'_>) -> rusqlite::Result<LocalReceived> {
    Ok(LocalReceived {
        message_id: id(row)?,
        body: row.get(1)?,
        receives: count(row.get(2)?),
    })
}

fn dead_letter(row: &Row<'_>) -> rusqlite::Result<LocalDeadLetter> {
    Ok(LocalDeadLetter {
        message_id: id(row)?,
        body: row.get(1)?,
        receives: count(row.get(2)?),
        reason: row.get(3)?,
    })
}

/// A message's id. Callers see text, as with SQS. SQLite turns it back into a number when it
/// compares it with the column.
fn id(row: &Row<'_>) -> rusqlite::Result<String> {
    row.get::<_, i64>(0).map(|id| id.to_string())
}

fn remove(db: &Connection, ids: impl IntoIterator<Item = impl ToSql>) -> rusqlite::Result<()> {
    let mut remove = db.prepare_cached("DELETE FROM messages WHERE id = ?1")?;
    ids.into_iter()
        .try_for_each(|id| remove.execute([id]).map(drop))
}
