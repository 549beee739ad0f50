//! Reading history: ids come from one index, merged over its shards, newest first; then only the
//! records of the page are read.

use std::collections::{HashMap, VecDeque};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use domain::{
    Timestamp,
    execution::ExecutionStatus,
    history::{Cursor, Filter, Loaded, Page},
    id::ExecutionId,
    ports::PortError,
    principal::Principal,
};

use super::{
    DynamoStore, SERVICE,
    directory::BacklogMember,
    drift::seen_records::is_open,
    item::{
        SHARDS, backlog_partition, day, day_name, ended_partition, partition_of_day, sharded, text,
        text_of,
    },
    state::has_entry,
};
use crate::error::failed;

/// Records read for a page beyond those shown, before the page is returned short. Chosen to bound
/// the cost of a filter that admits little at about 400 read units a call.
const SLACK: usize = 200;
/// Fewest records that are read together for the rest of a page. Not all of them are admitted, so
/// reading only as many as are missing would take many small calls.
const TOGETHER: usize = 25;
/// Most days whose partitions are queried at the same time. Each day has eight shards, so this is
/// 32 queries.
const DAYS_AT_ONCE: usize = 4;
/// Most waiting entries that are sorted to find the newest ones. If more wait, the newest
/// submissions are searched instead, because most of them wait then.
const WAITING_MAX: usize = 1_000;

/// Where ids are stored in order: an index over executions, or the requests of a day in the table
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HistoryIndex {
    Day,
    Submitter,
    Group,
    Status,
}

impl HistoryIndex {
    /// The index's name, its partition key, and its sort key, which is an id.
    fn names(self) -> (Option<&'static str>, &'static str, &'static str) {
        match self {
            Self::Day => (None, "pk", "sk"),
            Self::Submitter => (Some("by_submitter"), "submitter", "sk"),
            Self::Group => (Some("by_group"), "grp", "sk"),
            Self::Status => (Some("by_standing"), "standing", "place"),
        }
    }
}

/// Which ids are wanted: from the first text to the last, except one.
#[derive(Clone, Debug)]
pub(super) struct Range {
    from: String,
    to: String,
    /// The cursor: the last id of the page before.
    except: Option<ExecutionId>,
    /// The first and the last day of these ids.
    days: (String, String),
}

/// Sorts after every id.
const AFTER_ALL: char = '~';

impl Range {
    /// The ids submitted from a moment on, up to the cursor.
    fn between(from: Timestamp, cursor: Option<&Cursor>) -> Self {
        let first = ExecutionId::new(from, 0);
        let last_day =
            cursor.map_or_else(|| AFTER_ALL.to_string(), |cursor| day_name(day(&cursor.0)));
        Self {
            days: (day_name(day(&first)), last_day),
            from: first.to_string(),
            to: cursor.map_or_else(|| AFTER_ALL.to_string(), |cursor| cursor.0.to_string()),
            except: cursor.map(|cursor| cursor.0.clone()),
        }
    }

    /// The ids that begin with this prefix; `None` if no id can.
    pub(super) fn of_prefix(ulid_prefix: &str) -> Option<Self> {
        let filled = |with: &str| {
            format!("exec_{ulid_prefix:\0<26}")
                .replace('\0', with)
                .parse::<ExecutionId>()
                .ok()
        };
        let first = filled("0")?;
        let last_day =
            filled("Z").map_or_else(|| AFTER_ALL.to_string(), |last| day_name(day(&last)));
        Some(Self {
            days: (day_name(day(&first)), last_day),
            from: first.to_string(),
            to: format!("exec_{ulid_prefix}{AFTER_ALL}"),
            except: None,
        })
    }

    fn has_day(&self, day: &str) -> bool {
        (self.days.0.as_str()..=self.days.1.as_str()).contains(&day)
    }

    fn has(&self, id: &ExecutionId) -> bool {
        (self.from.as_str()..=self.to.as_str()).contains(&id.as_str())
            && self.except.as_ref() != Some(id)
    }
}

/// One partition of an index, read from its newest id on.
#[derive(Debug)]
struct IdSource {
    index: HistoryIndex,
    partition: String,
    /// The ids that were read and not yet taken, newest first.
    read: VecDeque<ExecutionId>,
    rest: Rest,
}

#[derive(Clone, Debug)]
enum Rest {
    Unread,
    From(HashMap<String, AttributeValue>),
    Nothing,
}

impl IdSource {
    fn new(index: HistoryIndex, partition: String) -> Self {
        Self {
            index,
            partition,
            read: VecDeque::new(),
            rest: Rest::Unread,
        }
    }

    /// All shards of a partition.
    fn shards(index: HistoryIndex, name: &str) -> Vec<Self> {
        (0..SHARDS)
            .map(|shard| Self::new(index, sharded(name, shard)))
            .collect()
    }

    fn is_dry(&self) -> bool {
        self.read.is_empty() && !matches!(self.rest, Rest::Nothing)
    }
}

/// Ids from several partitions, newest first, read on demand.
pub(super) struct Ids<'a> {
    store: &'a DynamoStore,
    range: Range,
    /// How many ids are read from a partition at a time.
    portion: usize,
    sources: Vec<IdSource>,
    /// Days whose partitions come after the current sources, newest first.
    days: VecDeque<String>,
    ends: Option<ExecutionStatus>,
    days_at_once: usize,
}

impl<'a> Ids<'a> {
    fn new(store: &'a DynamoStore, range: Range, limit: usize, sources: Vec<IdSource>) -> Self {
        let portion = (limit / 4 + 5).min(100);
        Self {
            store,
            range,
            portion,
            sources,
            days: VecDeque::new(),
            ends: None,
            days_at_once: 1,
        }
    }

    /// The ids of all days, or of the ends of one status.
    pub(super) async fn by_day(
        store: &'a DynamoStore,
        range: Range,
        limit: usize,
        ends: Option<ExecutionStatus>,
    ) -> Result<Self, PortError> {
        let days = store
            .days(ends.as_ref())
            .await?
            .into_iter()
            .filter(|day| range.has_day(day))
            .collect();
        Ok(Self {
            days,
            ends,
            ..Self::new(store, range, limit, Vec::new())
        })
    }

    /// Only these ids.
    fn known(store: &'a DynamoStore, range: Range, mut ids: Vec<ExecutionId>) -> Self {
        ids.retain(|id| range.has(id));
        ids.sort_by(|a, b| b.cmp(a));
        let known = IdSource {
            index: HistoryIndex::Status,
            partition: String::new(),
            read: ids.into(),
            rest: Rest::Nothing,
        };
        Self::new(store, range, 0, vec![known])
    }

    /// The next ids, at most `count`; fewer only at the end.
    pub(super) async fn take(&mut self, count: usize) -> Result<Vec<ExecutionId>, PortError> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let Some(newest) = self.newest().await? else {
                break;
            };
            taken.extend(self.sources[newest].read.pop_front());
        }
        Ok(taken)
    }

    async fn is_at_the_end(&mut self) -> Result<bool, PortError> {
        self.newest().await.map(|newest| newest.is_none())
    }

    /// The source with the newest id that is left.
    async fn newest(&mut self) -> Result<Option<usize>, PortError> {
        loop {
            self.fill().await?;
            let heads = self
                .sources
                .iter()
                .enumerate()
                .filter_map(|(at, source)| Some((source.read.front()?, at)));
            if let Some((_, at)) = heads.max() {
                return Ok(Some(at));
            }
            if self.days.is_empty() {
                return Ok(None);
            }
            self.open_days();
        }
    }

    /// Goes on to the next days: one at first, then more at a time, as the days so far held few
    /// ids.
    fn open_days(&mut self) {
        let next = self.days.len().min(self.days_at_once);
        self.days_at_once = (self.days_at_once * 2).min(DAYS_AT_ONCE);
        let ends = self.ends.clone();
        let of_day = |day: String| match &ends {
            None => (0..SHARDS)
                .map(|shard| IdSource::new(HistoryIndex::Day, partition_of_day(&day, shard)))
                .collect(),
            Some(status) => IdSource::shards(HistoryIndex::Status, &ended_partition(status, &day)),
        };
        self.sources = self.days.drain(..next).flat_map(of_day).collect();
    }

    /// Reads on in every source that has no id left to take. Without each source's next id, the
    /// newest of all is not known.
    async fn fill(&mut self) -> Result<(), PortError> {
        let (store, range, portion) = (self.store, &self.range, self.portion);
        let dry = self.sources.iter_mut().filter(|source| source.is_dry());
        futures_util::future::try_join_all(dry.map(|source| store.read_on(source, range, portion)))
            .await
            .map(drop)
    }
}

impl DynamoStore {
    async fn read_on(
        &self,
        source: &mut IdSource,
        range: &Range,
        portion: usize,
    ) -> Result<(), PortError> {
        let (index, partition_key, sort_key) = source.index.names();
        while source.is_dry() {
            let start = match std::mem::replace(&mut source.rest, Rest::Nothing) {
                Rest::From(start) => Some(start),
                Rest::Unread | Rest::Nothing => None,
            };
            let call = self
                .client
                .query()
                .table_name(&self.table)
                .set_index_name(index.map(str::to_owned));
            let call = call.scan_index_forward(false);
            let call = call
                .key_condition_expression("#partition = :partition AND #id BETWEEN :from AND :to")
                .expression_attribute_names("#partition", partition_key)
                .expression_attribute_names("#id", sort_key)
                .expression_attribute_values(":partition", text(&source.partition))
                .expression_attribute_values(":from", text(&range.from))
                .expression_attribute_values(":to", text(&range.to))
                .limit(i32::try_from(portion).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start);
            let output = call.send().await.map_err(failed(SERVICE))?;
            source.rest = output.last_evaluated_key.map_or(Rest::Nothing, Rest::From);
            let ids = output
                .items
                .iter()
                .flatten()
                .filter_map(|entry| text_of(entry, sort_key)?.parse().ok());
            source.read.extend(ids.filter(|id| range.has(id)));
        }
        Ok(())
    }

    pub(super) async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let oldest = (self.now)() - self.longest();
        let range = Range::between(
            filter
                .since
                .map_or(oldest, |since| first_milli(since).max(oldest)),
            after,
        );
        let ids = self.ids_for(filter, range, limit).await?;
        // A record that cannot be read has no known status, so a filter by status leaves it out.
        self.page(ids, limit, |loaded| {
            loaded
                .as_ref()
                .map_or(filter.status.is_none(), |e| filter.admits(e))
        })
        .await
    }

    /// The ids from the index that names the fewest besides the wanted ones.
    async fn ids_for(
        &self,
        filter: &Filter,
        range: Range,
        limit: usize,
    ) -> Result<Ids<'_>, PortError> {
        let by = filter.by.as_deref();
        match (filter.status.clone(), &filter.group, by) {
            (Some(ExecutionStatus::Launching | ExecutionStatus::Running), ..) => Ok(Ids::known(
                self,
                range,
                self.launched_ids().await?.into_iter().collect(),
            )),
            (Some(ExecutionStatus::Queued | ExecutionStatus::Waiting), group, by) => {
                match self.waiting(filter.by_id.as_ref()).await? {
                    Some(ids) => Ok(Ids::known(self, range, ids)),
                    None => {
                        self.ids_of(
                            group.as_ref().map(domain::request::Name::as_str),
                            by,
                            None,
                            range,
                            limit,
                        )
                        .await
                    }
                }
            }
            (status, group, by) => {
                self.ids_of(
                    group.as_ref().map(domain::request::Name::as_str),
                    by,
                    status,
                    range,
                    limit,
                )
                .await
            }
        }
    }

    async fn ids_of(
        &self,
        group: Option<&str>,
        by: Option<&str>,
        ends: Option<ExecutionStatus>,
        range: Range,
        limit: usize,
    ) -> Result<Ids<'_>, PortError> {
        let sources = match (group, by) {
            (Some(group), _) => IdSource::shards(HistoryIndex::Group, group),
            (None, Some(by)) => IdSource::shards(HistoryIndex::Submitter, by),
            (None, None) => return Ids::by_day(self, range, limit, ends.filter(has_entry)).await,
        };
        Ok(Ids::new(self, range, limit, sources))
    }

    /// The ids that wait, of one submitter or of all; `None` if there are too many.
    async fn waiting(&self, by: Option<&Principal>) -> Result<Option<Vec<ExecutionId>>, PortError> {
        let by = by.map(ToString::to_string);
        let mut ids = Vec::new();
        let entries = self.in_any_backlog().await?;
        for BacklogMember {
            backlog, submitter, ..
        } in entries
            .iter()
            .filter(|entry| by.as_ref().is_none_or(|by| *by == entry.submitter))
        {
            let entries = self
                .first_in(
                    &backlog_partition(backlog, submitter),
                    WAITING_MAX + 1 - ids.len(),
                )
                .await?;
            let id = |entry| text_of(entry, "place")?.rsplit('#').next()?.parse().ok();
            ids.extend(entries.iter().filter_map(id));
            if ids.len() > WAITING_MAX {
                return Ok(None);
            }
        }
        Ok(Some(ids))
    }

    pub(super) async fn launched(
        &self,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        // There is no oldest day here: a run that is still open is never left out.
        let range = Range::between(Timestamp::UNIX_EPOCH, after);
        let ids = Ids::known(
            self,
            range,
            self.launched_ids().await?.into_iter().collect(),
        );
        self.page(ids, limit, |loaded| loaded.as_ref().map_or(true, is_open))
            .await
    }

    /// The first `limit` of these ids that are admitted, or fewer if too many are not.
    async fn page(
        &self,
        mut ids: Ids<'_>,
        limit: usize,
        admits: impl Fn(&Loaded) -> bool,
    ) -> Result<Page<Loaded>, PortError> {
        let (mut items, mut left) = (Vec::new(), limit.saturating_add(SLACK));
        loop {
            let some = if left == limit.saturating_add(SLACK) {
                limit
            } else {
                (limit - items.len()).max(TOGETHER)
            };
            let looked_at = ids.take(some.min(left)).await?;
            let Some(last) = looked_at.last().cloned() else {
                return Ok(Page { items, next: None });
            };
            left -= looked_at.len();
            let wanted = self
                .load_all(&looked_at)
                .await?
                .into_iter()
                .filter(|loaded| admits(loaded));
            items.extend(wanted);
            if items.len() >= limit || left == 0 {
                let cut = items.len() > limit;
                items.truncate(limit);
                let more = cut || !ids.is_at_the_end().await?;
                let end = items.last().filter(|_| cut).and_then(id_of).unwrap_or(last);
                return Ok(Page {
                    items,
                    next: more.then_some(Cursor(end)),
                });
            }
        }
    }
}

/// The id of the execution that was loaded, or that could not be read.
pub(super) fn id_of(loaded: &Loaded) -> Option<ExecutionId> {
    match loaded {
        Ok(execution) => Some(execution.id.clone()),
        Err(corrupt) => corrupt.id().cloned(),
    }
}

/// The first whole millisecond at or after this moment, because ids carry no finer time.
fn first_milli(since: Timestamp) -> Timestamp {
    let floor = Timestamp::from_timestamp_millis(since.timestamp_millis()).unwrap_or(since);
    if floor < since {
        floor + TimeDelta::milliseconds(1)
    } else {
        floor
    }
}
