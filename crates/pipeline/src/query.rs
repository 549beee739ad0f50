//! The query function: every route that reads.

use std::collections::BTreeMap;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use domain::{
    api::{
        ArtifactView, ArtifactsPage, ExecutionView, GroupCancelView, GroupRerunView, GroupView,
        HistoryPage, Listed, LogLineView, LogsPage, Problem, UnreadableView, Version, WaitingView,
        Whoami, length_in_event,
    },
    backoff,
    error::{Corrupt, What},
    execution::{Attempt, BacklogEntry, Execution, ExecutionStatus},
    group::{GroupCancel, GroupRerun},
    history::{ArtifactCursor, Cursor, Filter, LogCursor, LogEnds, PAGE_DEFAULT, PAGE_MAX},
    id::AttemptId,
    key::Caller,
    limit::{CapacityPool, LimitKey, RateKey},
    marker::{self, Marker},
    ports::{
        ArtifactReads, Clock, Entropy, KeyLookup, LogLine, LogPage, Logs, PortError, ReadError,
        ReadStore,
    },
    quota::Rate,
    request::{FieldError, Name},
    scheduler::{
        LimitSnapshot,
        reason::{BacklogWait, Explanation},
        state::{BacklogState, LimitState},
    },
    settings::Settings,
    stored,
};
use serde::Serialize;

use crate::{
    auth::{self, Auth},
    http::{self, Route},
    log,
    lookup::{TEXT_MAX, no_such_group, not_found, resolve},
};

mod backlogs;
mod statistics;

/// The position up to which the number is exact (DESIGN §5).
const EXACT_POSITIONS: u32 = 100;
/// Seconds between two polls of a log that has nothing new. GetLogEvents allows 10 to 25 calls a
/// second for a whole region (AWS-FACTS §7).
const POLL_SECONDS: u32 = 1;
/// Seconds between two polls of a task that has not begun to write. Starting a task takes 20 to 60
/// s (AWS-FACTS §3).
const PENDING_SECONDS: u32 = 2;

/// The most bytes of a page of executions in the JSON of Lambda's answer, which has 6 MB (AWS-FACTS
/// §7). The rest is for what surrounds the page.
const PAGE_BYTES_MAX: usize = 5 * 1024 * 1024;

/// The query function.
#[derive(Debug)]
pub struct Query<'a, S, K, L, F, A> {
    /// Where executions are recorded.
    pub store: &'a S,
    /// The API keys.
    pub keys: &'a K,
    /// The tasks' output.
    pub logs: &'a L,
    /// The files of runs that are kept.
    pub artifacts: &'a F,
    /// Clock and randomness.
    pub system: &'a A,
    /// Verifies keys.
    pub auth: &'a Auth,
    /// The installation's settings.
    pub settings: &'a Settings,
}

/// The state of backlogs, read while a page is made. Each backlog is read once, however many
/// executions of the page wait in it.
#[derive(Default)]
struct SeenBacklogs {
    states: BTreeMap<LimitKey, LimitState>,
    used: BTreeMap<LimitKey, u32>,
    /// The last position that was returned, by backlog, submitter and priority.
    positions: BTreeMap<(LimitKey, String, i32), u32>,
}

/// A part of an execution's log, and the seconds until the next poll.
struct Part {
    page: LogsPage,
    again: u32,
}

impl<S: ReadStore, K: KeyLookup, L: Logs, F: ArtifactReads, A: Clock + Entropy>
    Query<'_, S, K, L, F, A>
{
    /// Answers an event of API Gateway.
    pub async fn handle(&self, request: &ApiGatewayProxyRequest) -> ApiGatewayProxyResponse {
        let work = async {
            let now = self.system.now();
            let caller = self.auth.admit(request, self.keys, now).await?;
            self.route(&caller, request).await
        };
        http::answered(request, work).await
    }

    /// Answers a request of a caller already known.
    pub async fn answer(
        &self,
        caller: &Caller,
        request: &ApiGatewayProxyRequest,
    ) -> ApiGatewayProxyResponse {
        http::answered(request, self.route(caller, request)).await
    }

    async fn route(
        &self,
        caller: &Caller,
        request: &ApiGatewayProxyRequest,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        log::note_caller(caller);
        let route = Route::of(request)?;
        auth::require(caller, route.role())?;
        match route {
            Route::List => self.list(caller, request).await,
            Route::Get(id) => self.get(caller, &id, request).await,
            Route::Logs(id) => self.log(&id, request).await,
            Route::Artifacts(id) => self.artifacts(&id, request).await,
            Route::Group(group) => self.group(&group, request).await,
            Route::Backlogs => self.backlogs(request).await,
            Route::Stats => self.stats(request).await,
            Route::Whoami => whoami(caller, request),
            Route::Version => version(request),
            _ => Err(Problem::new(
                404,
                "no_such_path",
                "this function serves only requests that read",
            )),
        }
    }

    async fn list(
        &self,
        caller: &Caller,
        request: &ApiGatewayProxyRequest,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        http::only_parameters(
            request,
            &["status", "group", "by", "since", "limit", "cursor"],
        )?;
        let (filter, limit, cursor) = asked(caller, request).map_err(Problem::invalid)?;
        let page = self
            .store
            .list(&filter, cursor.as_ref(), limit)
            .await
            .map_err(|e| http::failed(&e))?;
        let (mut executions, mut seen) = (
            Vec::with_capacity(page.items.len()),
            SeenBacklogs::default(),
        );
        // Oldest first, in the order of the backlog.
        for loaded in page.items.iter().rev() {
            match loaded {
                Ok(execution) => {
                    let view = self
                        .view(execution, &mut seen)
                        .await
                        .map_err(|e| http::failed(&e))?;
                    // The store finds the executions that are in a backlog. Whether one of them is
                    // `WAITING` depends on the backlog's state.
                    if filter
                        .status
                        .as_ref()
                        .is_none_or(|status| view.status == *status)
                    {
                        executions.push(Listed::Run(Box::new(view.shown_to(caller))));
                    }
                }
                Err(corrupt) => executions.extend(unreadable_entry(corrupt)),
            }
        }
        executions.reverse();
        let next = match short_enough(&executions) {
            count if count < executions.len() => {
                executions.truncate(count);
                executions.last().map(|last| Cursor(last.id().clone()))
            }
            _ => page.next,
        };
        Ok(http::json(
            200,
            &HistoryPage {
                executions,
                next_cursor: next.map(|cursor| cursor.encode()),
            },
        ))
    }

    async fn get(
        &self,
        caller: &Caller,
        id: &str,
        request: &ApiGatewayProxyRequest,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        http::only_parameters(request, &[])?;
        let execution = self.load(id).await?;
        let view = self
            .view(&execution, &mut SeenBacklogs::default())
            .await
            .map_err(|e| http::failed(&e))?;
        Ok(http::json(200, &view.shown_to(caller)))
    }

    async fn group(
        &self,
        group: &str,
        request: &ApiGatewayProxyRequest,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        http::only_parameters(request, &[])?;
        let failed = |error: PortError| http::failed(&error);
        let name: Name = group.parse().map_err(|_| no_such_group(group))?;
        let mark: Option<GroupCancel> = self.store.group_work(&name).await.map_err(failed)?;
        let rerun: Option<GroupRerun> = self.store.group_work(&name).await.map_err(failed)?;
        let members = Filter {
            group: Some(name.clone()),
            ..Filter::default()
        };
        let is_known = mark.is_some() || rerun.is_some();
        if !is_known
            && self
                .store
                .list(&members, None, 1)
                .await
                .map_err(failed)?
                .items
                .is_empty()
        {
            return Err(no_such_group(group));
        }
        let (cancel, rerun) = (
            mark.as_ref().map(GroupCancelView::from),
            rerun.map(GroupRerunView::from),
        );
        Ok(http::json(
            200,
            &GroupView {
                group: name.to_string(),
                cancel,
                rerun,
            },
        ))
    }

    async fn log(
        &self,
        id: &str,
        request: &ApiGatewayProxyRequest,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        http::only_parameters(request, &["cursor"])?;
        let cursor = http::parameter(request, "cursor")
            .map(LogCursor::decode)
            .transpose()
            .map_err(|e| Problem::invalid(vec![e]))?;
        // The record is loaded before the log is read: a run that is final by now has already
        // written its last line.
        let execution = self.load(id).await?;
        let cursor = cursor.unwrap_or_default();
        let part = match self.log_part(&execution, cursor.clone()).await {
            Ok(part) => part,
            // Being throttled is no failure: each follower polls again later, at a random moment of
            // its own.
            Err(ReadError::Throttled) => Part {
                page: LogsPage {
                    next_cursor: Some(cursor.encode()),
                    throttled: true,
                    ..LogsPage::default()
                },
                again: backoff::throttled_seconds(self.system.bits()),
            },
            Err(ReadError::Cursor) => return Err(Problem::invalid(vec![LogCursor::fault()])),
            Err(ReadError::Failed(error)) => return Err(http::failed(&error)),
        };
        let idle = part.page.lines.is_empty() && !part.page.complete;
        let response = http::json(200, &part.page);
        Ok(if idle {
            http::retry_after(response, part.again)
        } else {
            response
        })
    }

    /// Lists the files of one attempt, a batch a page.
    async fn artifacts(
        &self,
        id: &str,
        request: &ApiGatewayProxyRequest,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        http::only_parameters(request, &["attempt", "cursor"])?;
        let fault = |error: FieldError| Problem::invalid(vec![error]);
        let attempt = http::parameter(request, "attempt")
            .map(attempt_number)
            .transpose()
            .map_err(fault)?;
        let cursor = http::parameter(request, "cursor")
            .map(ArtifactCursor::decode)
            .transpose()
            .map_err(fault)?;
        let execution = self.load(id).await?;
        // A page belongs to the attempt of the page before, also if another attempt has begun.
        let last = execution.attempts.last().map(|attempt| attempt.number);
        let number = cursor.map(|cursor| cursor.attempt).or(attempt).or(last);
        let Some(number) = number else {
            return Ok(http::json(200, &ArtifactsPage::default()));
        };
        if attempt.is_some_and(|attempt| attempt != number) {
            return Err(fault(ArtifactCursor::fault()));
        }
        if !execution
            .attempts
            .iter()
            .any(|known| known.number == number)
        {
            let title = format!("{} has no attempt {number}", execution.id);
            return Err(Problem::new(404, "no_such_attempt", title));
        }
        let from = cursor.unwrap_or(ArtifactCursor {
            attempt: number,
            batch: 0,
            passed: 0,
        });
        let page = self
            .artifacts_from(&execution.id.attempt(number), from)
            .await;
        Ok(http::json(200, &page.map_err(|e| http::failed(&e))?))
    }

    /// Returns the files of one batch, as many as fit into an answer.
    async fn artifacts_from(
        &self,
        attempt: &AttemptId,
        from: ArtifactCursor,
    ) -> Result<ArtifactsPage, PortError> {
        let batch = from.batch;
        let Some(manifest) = self.artifacts.manifest(attempt, batch).await? else {
            return Ok(ArtifactsPage::default());
        };
        let passed = usize::try_from(from.passed).unwrap_or(usize::MAX);
        let mut artifacts = Vec::with_capacity(manifest.files.len());
        for file in manifest.files.into_iter().skip(passed) {
            let name = file.path.file_name();
            let url = self.artifacts.download(attempt, batch, file.number, name);
            artifacts.push(ArtifactView {
                url: url.await?,
                path: file.path,
                bytes: file.bytes,
                mode: format!("{:03o}", file.mode & 0o777),
                sha256: file.sha256,
                attempt: attempt.number(),
            });
        }
        let count = short_enough(&artifacts);
        let next = if count < artifacts.len() {
            artifacts.truncate(count);
            ArtifactCursor {
                passed: from.passed + u32::try_from(count).unwrap_or(u32::MAX),
                ..from
            }
        } else {
            ArtifactCursor {
                batch: batch + 1,
                passed: 0,
                ..from
            }
        };
        Ok(ArtifactsPage {
            artifacts,
            next_cursor: Some(next.encode()),
        })
    }

    async fn log_part(&self, execution: &Execution, from: LogCursor) -> Result<Part, ReadError> {
        let number = from.attempt.max(1);
        let attempts = u32::try_from(execution.attempts.len()).unwrap_or(u32::MAX);
        if number > attempts.max(1) {
            return Err(ReadError::Cursor);
        }
        let Some(attempt) = execution
            .attempts
            .iter()
            .find(|attempt| attempt.number == number)
        else {
            let complete = execution.end().is_some();
            let page = LogsPage {
                next_cursor: Some(from.encode()),
                complete,
                ..LogsPage::default()
            };
            return Ok(Part {
                page,
                again: PENDING_SECONDS,
            });
        };
        let writes = attempt.may_have_output();
        // A log may begin before the task is known to run.
        let page = match attempt.task_arn.as_ref() {
            Some(arn) => {
                self.logs
                    .read(&arn.log_stream(), from.stream.as_deref())
                    .await?
            }
            None => LogPage::default(),
        };
        let ends = from.ends.and(
            page.lines
                .iter()
                .filter(|line| is_end(attempt, line))
                .count(),
        );
        let over = attempt.closed.is_some()
            && !page.more
            && (ends == LogEnds::Both || self.has_settled(attempt));
        let last = execution
            .attempts
            .last()
            .is_some_and(|last| last.number == number);
        let next = if over && !last {
            LogCursor {
                attempt: number + 1,
                ..LogCursor::default()
            }
        } else {
            LogCursor {
                attempt: number,
                stream: page.next.clone().or(from.stream),
                ends,
            }
        };
        let complete = over && last && execution.end().is_some();
        let page = LogsPage {
            lines: own_lines(attempt, page),
            next_cursor: Some(next.encode()),
            complete,
            throttled: false,
        };
        Ok(Part {
            page,
            again: if writes {
                POLL_SECONDS
            } else {
                PENDING_SECONDS
            },
        })
    }

    /// Whether so much time has passed that no more lines can arrive.
    fn has_settled(&self, attempt: &Attempt) -> bool {
        attempt
            .log_settles_at(self.settings)
            .is_none_or(|at| at <= self.system.now())
    }

    async fn load(&self, id: &str) -> Result<Execution, Problem> {
        let id = resolve(self.store, id).await?;
        let found = self.store.load(&id).await.map_err(|e| http::failed(&e))?;
        found.ok_or_else(|| not_found(id.as_str()))
    }

    async fn view(
        &self,
        execution: &Execution,
        seen: &mut SeenBacklogs,
    ) -> Result<ExecutionView, PortError> {
        let Some(entry) = execution.backlog_entry() else {
            let kept = self.settings.artifacts.as_ref();
            let days = kept.and_then(|kept| kept.retention_days);
            return Ok(ExecutionView::new(execution, None).keeping_artifacts(days));
        };
        let state = self.limit_state(&entry.backlog, seen).await?.backlog;
        let position = self.position(&entry, seen).await?;
        let waiting = self
            .waiting(execution, &entry, position, &state, seen)
            .await?;
        let view = ExecutionView::new(execution, Some(waiting));
        // Every execution in a held backlog is `WAITING`, whether or not that was written into each
        // of ten thousand records.
        let status = if state.held.is_some() {
            ExecutionStatus::Waiting
        } else {
            view.status
        };
        Ok(ExecutionView { status, ..view })
    }

    /// Returns why an execution waits, in the scheduler's words.
    async fn waiting(
        &self,
        execution: &Execution,
        entry: &BacklogEntry,
        position: u32,
        backlog: &BacklogState,
        seen: &mut SeenBacklogs,
    ) -> Result<WaitingView, PortError> {
        let wait = BacklogWait {
            execution,
            entry,
            position,
            backlog,
            rate: self.launch_rate(execution.pool),
        };
        let limit = self.limit(wait.limit(), seen).await?;
        let set = self.settings.quotas.of(execution.pool).cpu;
        let Explanation {
            reason,
            limit,
            used,
            max,
            estimate_seconds,
        } = wait.explain(&limit, set, self.system.now());
        Ok(WaitingView {
            reason,
            limit: limit.to_string(),
            used,
            max,
            position: wait.position,
            estimate_seconds,
        })
    }

    async fn limit_state(
        &self,
        key: &LimitKey,
        seen: &mut SeenBacklogs,
    ) -> Result<LimitState, PortError> {
        if let Some(state) = seen.states.get(key) {
            return Ok(state.clone());
        }
        let state = self.store.limit_state(key).await?;
        seen.states.insert(key.clone(), state.clone());
        Ok(state)
    }

    /// Returns a limit as it is now.
    async fn limit(
        &self,
        key: LimitKey,
        seen: &mut SeenBacklogs,
    ) -> Result<LimitSnapshot, PortError> {
        let state = self.limit_state(&key, seen).await?;
        let used = match seen.used.get(&key) {
            Some(used) => *used,
            None => self.store.usage(&key).await?.used,
        };
        seen.used.insert(key.clone(), used);
        Ok(LimitSnapshot { key, state, used })
    }

    /// Returns the position, from 1. Beyond the exact ones, an entry is taken to stand right behind
    /// the last entry of the same submitter. Counting again for each entry of a page would cost as
    /// much as the backlog is long.
    async fn position(
        &self,
        entry: &BacklogEntry,
        seen: &mut SeenBacklogs,
    ) -> Result<u32, PortError> {
        let peers = (
            entry.backlog.clone(),
            entry.submitter.clone(),
            entry.priority,
        );
        if let Some(last) = seen
            .positions
            .get_mut(&peers)
            .filter(|last| **last > EXACT_POSITIONS)
        {
            *last += 1;
            return Ok(*last);
        }
        let position = self.store.ahead(entry, EXACT_POSITIONS).await? + 1;
        seen.positions.insert(peers, position);
        Ok(position)
    }

    /// Returns the slowest of the rates that apply to launches from a pool.
    fn launch_rate(&self, pool: CapacityPool) -> Option<(RateKey, Rate)> {
        self.settings
            .launch_rates(pool)
            .min_by(|(_, a), (_, b)| a.per_second.total_cmp(&b.per_second))
    }
}

fn asked(
    caller: &Caller,
    request: &ApiGatewayProxyRequest,
) -> Result<(Filter, u32, Option<Cursor>), Vec<FieldError>> {
    let parameter = |name| http::parameter(request, name);
    let mut faults = Vec::new();
    let mut fault = |field: &str, message: String| {
        faults.push(FieldError {
            field: field.into(),
            message,
        });
    };
    let status =
        parameter("status").and_then(|text| text.parse().map_err(|e| fault("status", e)).ok());
    let group = parameter("group").and_then(|text| {
        text.parse()
            .map_err(|e: domain::request::NameError| fault("group", e.to_string()))
            .ok()
    });
    let since = parameter("since").and_then(|text| {
        let wanted = "is not a time; use RFC 3339 such as 2026-11-24T09:00:00Z".to_owned();
        text.parse().map_err(|_| fault("since", wanted)).ok()
    });
    let limit = http::limit(request, PAGE_DEFAULT, PAGE_MAX)
        .map_err(|error| fault(&error.field, error.message))
        .ok();
    let cursor = parameter("cursor").and_then(|text| {
        Cursor::decode(text)
            .map_err(|e| fault("cursor", e.message))
            .ok()
    });
    let is_me = parameter("by") == Some("me");
    let by = parameter("by").map(|by| {
        if is_me {
            caller.name.clone()
        } else {
            by.to_owned()
        }
    });
    let by_id = is_me.then(|| caller.principal.clone());
    if by
        .as_ref()
        .is_some_and(|by| by.is_empty() || by.len() > TEXT_MAX)
    {
        fault(
            "by",
            format!("is not a key's name: give 1 to {TEXT_MAX} bytes"),
        );
    }
    match (limit, faults.is_empty()) {
        (Some(limit), true) => Ok((
            Filter {
                status,
                group,
                by,
                by_id,
                since,
            },
            limit,
            cursor,
        )),
        _ => Err(faults),
    }
}

/// How many of these fit into an answer. There is always one: the largest record fits.
fn short_enough(all: &[impl Serialize]) -> usize {
    let mut bytes = 0;
    let fits = |one: &&_| {
        let text = serde_json::to_string(one).unwrap_or_default();
        bytes += length_in_event(&text);
        bytes <= PAGE_BYTES_MAX
    };
    all.iter().take_while(fits).count().max(1)
}

fn attempt_number(text: &str) -> Result<u32, FieldError> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| FieldError {
        field: "attempt".into(),
        message: "is not the number of an attempt: they are counted from 1".into(),
    })
}

fn whoami(
    caller: &Caller,
    request: &ApiGatewayProxyRequest,
) -> Result<ApiGatewayProxyResponse, Problem> {
    http::only_parameters(request, &[])?;
    let Caller {
        name,
        principal,
        role,
    } = caller.clone();
    Ok(http::json(
        200,
        &Whoami {
            name,
            principal,
            role,
        },
    ))
}

fn version(request: &ApiGatewayProxyRequest) -> Result<ApiGatewayProxyResponse, Problem> {
    http::only_parameters(request, &[])?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(http::json(
        200,
        &Version {
            version,
            form: stored::FORM,
        },
    ))
}

fn unreadable_entry(corrupt: &Corrupt) -> Option<Listed> {
    corrupt.note();
    let What::Execution(id) = &corrupt.what else {
        return None;
    };
    Some(Listed::Unreadable(UnreadableView::new(
        id,
        format!("its record cannot be read: {}", corrupt.source),
    )))
}

/// Whether this is the last line that the runner writes to one of its two streams.
fn is_end(attempt: &Attempt, line: &LogLine) -> bool {
    marker::split(&attempt.nonce, &line.text).1 == Some(Marker::Ended)
}

/// Returns the command's own lines, without our markers.
fn own_lines(attempt: &Attempt, page: LogPage) -> Vec<LogLineView> {
    page.lines
        .into_iter()
        .filter_map(|line| {
            let text = marker::split(&attempt.nonce, &line.text).0?.to_owned();
            Some(LogLineView { at: line.at, text })
        })
        .collect()
}
