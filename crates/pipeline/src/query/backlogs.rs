//! `GET /backlogs`: the limits, how much of them is in use, and the runs that wait for them.

use std::collections::BTreeMap;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use domain::{
    Timestamp,
    api::{BacklogEntryView, BacklogView, BacklogsPage, Problem, WaitingView},
    execution::BacklogEntry,
    history::BacklogCursor,
    limit::{BacklogSize, LimitKey},
    ports::{ArtifactReads, Clock, Entropy, KeyLookup, Logs, PortError, ReadStore},
    request::FieldError,
    scheduler::{reason, state::LimitState},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Query, SeenBacklogs};
use crate::{http, unreadable::passed_over};

/// How many backlogs a page has by default. Each costs some five reads.
const PAGE_DEFAULT: u32 = 20;
/// The most backlogs of a page, so that it is made within a second or two.
const PAGE_MAX: u32 = 100;
/// How many entries of each backlog are shown: those that are next.
const ENTRIES: u32 = 10;
/// How many entries of one submitter are counted. So many cost DynamoDB 13 read units.
const COUNTED: u32 = 1_000;
/// How many backlogs are read at the same time.
const PARALLEL: usize = 8;

impl<S: ReadStore, K: KeyLookup, L: Logs, F: ArtifactReads, A: Clock + Entropy>
    Query<'_, S, K, L, F, A>
{
    pub(super) async fn backlogs(
        &self,
        request: &ApiGatewayProxyRequest,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        http::only_parameters(request, &["limit", "cursor"])?;
        let (limit, after) = asked(request).map_err(Problem::invalid)?;
        let page = self.page(limit, after).await;
        Ok(http::json(
            200,
            &page.map_err(|error| http::failed(&error))?,
        ))
    }

    /// The pools of the installation, whether or not runs wait for them, and all other limits that
    /// runs wait for.
    async fn page(
        &self,
        limit: usize,
        after: Option<BacklogCursor>,
    ) -> Result<BacklogsPage, PortError> {
        let sizes = self.store.backlog_sizes(COUNTED).await?;
        let pools = self.settings.quotas.pools().map(LimitKey::Pool);
        let mut limits: BTreeMap<_, _> = pools.map(|key| (key, None)).collect();
        limits.extend(sizes.into_iter().map(|size| (size.key.clone(), Some(size))));
        if let Some(BacklogCursor(last)) = after {
            limits.retain(|key, _| *key > last);
        }
        let more = limits.len() > limit;
        let views = limits
            .into_iter()
            .take(limit)
            .map(|(key, size)| self.backlog(key, size));
        let backlogs: Vec<(LimitKey, BacklogView)> =
            stream::iter(views).buffered(PARALLEL).try_collect().await?;
        let last = backlogs.last().filter(|_| more).map(|(key, _)| key.clone());
        Ok(BacklogsPage {
            next_cursor: last.map(|key| BacklogCursor(key).encode()),
            backlogs: backlogs.into_iter().map(|(_, view)| view).collect(),
        })
    }

    async fn backlog(
        &self,
        key: LimitKey,
        size: Option<BacklogSize>,
    ) -> Result<(LimitKey, BacklogView), PortError> {
        let now = self.system.now();
        let limit = self
            .limit(key.clone(), &mut SeenBacklogs::default())
            .await?;
        let entries = match &size {
            Some(_) => self.store.backlog(&key, now, ENTRIES).await?,
            None => Vec::new(),
        };
        let first = self.first(&entries, &limit.state).await?;
        let set = match &key {
            LimitKey::Pool(pool) => self.settings.quotas.of(*pool).cpu,
            LimitKey::Lock(_) | LimitKey::Group(_) => None,
        };
        let in_units = |amount: u32| key.in_units(amount);
        let view = BacklogView {
            limit: key.to_string(),
            used: in_units(limit.used),
            max: match &key {
                LimitKey::Pool(_) => limit.state.pool.quota(set).map(in_units),
                LimitKey::Lock(_) => Some(1.0),
                // The most is what its runs say, and the first one counts.
                LimitKey::Group(_) => first.as_ref().and_then(|(_, max)| max.map(in_units)),
            },
            adaptive_limit: limit
                .state
                .pool
                .adaptive_limit
                .as_ref()
                .map(|adaptive| in_units(adaptive.cpu)),
            reason: first.map(|(waiting, _)| waiting.reason),
            held_since: limit.state.backlog.held.as_ref().map(|held| held.since),
            runs: size.as_ref().map_or(0, |size| size.entries),
            oldest_at: size.map(|size| size.oldest),
            entries: self.views(entries, &limit.state, &key, now),
        };
        Ok((key, view))
    }

    /// Why the first entry waits, and how many runs of its group may run at a time. `None` if there
    /// is no entry, or its record cannot be read.
    async fn first(
        &self,
        entries: &[BacklogEntry],
        state: &LimitState,
    ) -> Result<Option<(WaitingView, Option<u32>)>, PortError> {
        let Some(entry) = entries.first() else {
            return Ok(None);
        };
        let Some(execution) = passed_over(self.store.load(&entry.id).await)? else {
            return Ok(None);
        };
        let mut seen = SeenBacklogs::default();
        let waiting = self.waiting(&execution, entry, 1, &state.backlog, &mut seen);
        Ok(Some((waiting.await?, execution.request.max_parallel)))
    }

    fn views(
        &self,
        entries: Vec<BacklogEntry>,
        state: &LimitState,
        key: &LimitKey,
        now: Timestamp,
    ) -> Vec<BacklogEntryView> {
        let rate = match key {
            LimitKey::Pool(pool) => self.launch_rate(*pool).map(|(_, rate)| rate),
            LimitKey::Lock(_) | LimitKey::Group(_) => None,
        };
        let view = |(entry, position): (BacklogEntry, u32)| BacklogEntryView {
            position,
            estimate_seconds: reason::estimate_seconds(&state.backlog, position, rate, now),
            execution_id: entry.id,
            submitted_by_id: entry.submitter,
            submitted_at: entry.submitted_at,
            priority: entry.priority,
        };
        entries.into_iter().zip(1..).map(view).collect()
    }
}

fn asked(
    request: &ApiGatewayProxyRequest,
) -> Result<(usize, Option<BacklogCursor>), Vec<FieldError>> {
    let limit = http::limit(request, PAGE_DEFAULT, PAGE_MAX);
    let cursor = http::parameter(request, "cursor").map(BacklogCursor::decode);
    match (limit, cursor.transpose()) {
        (Ok(limit), Ok(cursor)) => Ok((usize::try_from(limit).unwrap_or(usize::MAX), cursor)),
        (limit, cursor) => Err(limit.err().into_iter().chain(cursor.err()).collect()),
    }
}
