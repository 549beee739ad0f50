//! Named methods for the API's calls.

use domain::{
    api::{
        Accepted, ArtifactsPage, BulkAnswer, ExecutionView, GroupRerunRequest, GroupView,
        HistoryPage, KeyView, LogsPage, StatsView, Whoami,
    },
    execution::ExecutionStatus,
    id::ExecutionId,
    request::SubmitRequest,
};
use serde::Deserialize;
use url::Url;

use crate::{
    client::{ApiAnswer, ApiError, Call, Client},
    failure::Failure,
};

/// An answer as it came, and parsed.
pub(crate) struct Got<T> {
    /// The raw answer, for `-o json`, so that fields of a newer API are not lost.
    pub(crate) answer: ApiAnswer,
    /// The parsed answer, for everything else.
    pub(crate) value: T,
}

/// The answer to `GET /keys`.
#[derive(Deserialize)]
pub(crate) struct KeyList {
    /// The keys, without the keys themselves.
    pub(crate) keys: Vec<KeyView>,
}

/// Builds a path of the escaped `segments`, and a query of those `pairs` that have a value.
pub(crate) fn path(segments: &[&str], pairs: &[(&str, Option<&str>)]) -> String {
    // Only the path and the query are used. This constant always parses.
    let Ok(mut url) = Url::parse("http://any/") else {
        return String::new();
    };
    if let Ok(mut path) = url.path_segments_mut() {
        path.clear().extend(segments);
    }
    for (name, value) in pairs {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// The part of `id` that names an execution in a path. A task ARN is shortened to the task id at
/// its end: on the way, the ARN's slashes could be taken for parts of the path, even if escaped.
fn name_in_path(id: &str) -> &str {
    if id.starts_with("arn:") {
        id.rsplit('/').next().unwrap_or(id)
    } else {
        id
    }
}

impl Client {
    /// Submits a request. It must have an idempotency key, so that a lost answer never leads to two
    /// runs.
    pub(crate) async fn submit(&self, request: &SubmitRequest) -> Result<Got<Accepted>, Failure> {
        debug_assert!(request.idempotency_key.is_some());
        let request = SubmitRequest {
            action: Some("exec".into()),
            ..request.clone()
        };
        let body = serde_json::to_vec(&request).map_err(Failure::other)?;
        Ok(self
            .got(Call::post(path(&["execute"], &[]), Some(body)))
            .await?)
    }

    /// Submits some lines of a submission. If they are sent again, they are the same executions.
    pub(crate) async fn submit_lines(&self, body: Vec<u8>) -> Result<BulkAnswer, ApiError> {
        let call = Call::post(path(&["executions", "bulk"], &[]), Some(body)).handing_in();
        Ok(self.got(call).await?.value)
    }

    /// Runs an execution again. `changes` must hold an idempotency key, so that a lost answer never
    /// leads to two runs.
    pub(crate) async fn rerun(
        &self,
        id: &ExecutionId,
        changes: Vec<u8>,
    ) -> Result<Got<Accepted>, ApiError> {
        self.got(Call::post(
            path(&["executions", id.as_str(), "rerun"], &[]),
            Some(changes),
        ))
        .await
    }

    /// The caller, as the installation sees it.
    pub(crate) async fn whoami(&self) -> Result<Got<Whoami>, ApiError> {
        self.got(Call::get(path(&["whoami"], &[]))).await
    }

    /// The counts, times and cost of the runs that ended.
    pub(crate) async fn stats(
        &self,
        pairs: &[(&str, Option<&str>)],
    ) -> Result<Got<StatsView>, ApiError> {
        self.got(Call::get(path(&["stats"], pairs))).await
    }

    /// The names and roles of all keys.
    pub(crate) async fn keys(&self) -> Result<Got<KeyList>, ApiError> {
        self.got(Call::get(path(&["keys"], &[]))).await
    }

    /// An execution, by anything that names it.
    pub(crate) async fn execution(&self, id: &str) -> Result<Got<ExecutionView>, ApiError> {
        self.got(Call::get(path(&["executions", name_in_path(id)], &[])))
            .await
    }

    /// The same for following: the server may hold its answer.
    pub(crate) async fn execution_followed(
        &self,
        id: &ExecutionId,
    ) -> Result<Got<ExecutionView>, ApiError> {
        self.got(Call::get(path(&["executions", id.as_str()], &[])).following())
            .await
    }

    /// A page of the files of an execution: of this attempt, or of the last one.
    pub(crate) async fn artifacts(
        &self,
        id: &ExecutionId,
        attempt: Option<u32>,
        cursor: Option<&str>,
    ) -> Result<Got<ArtifactsPage>, ApiError> {
        let attempt = attempt.map(|attempt| attempt.to_string());
        let pairs = [("attempt", attempt.as_deref()), ("cursor", cursor)];
        self.got(Call::get(path(
            &["executions", id.as_str(), "artifacts"],
            &pairs,
        )))
        .await
    }

    /// The id of the caller's latest execution.
    pub(crate) async fn latest(&self) -> Result<ExecutionId, Failure> {
        let page = self
            .history(&[("limit", Some("1")), ("by", Some("me"))])
            .await?;
        let latest = page.value.executions.into_iter().next();
        latest
            .map(|latest| latest.id().clone())
            .ok_or_else(|| Failure::Nothing("you have no runs yet".into()))
    }

    /// The execution that `id` names; without an id, the caller's latest.
    pub(crate) async fn find(&self, id: Option<&str>) -> Result<Got<ExecutionView>, Failure> {
        let id = match id {
            // With such an id the path would be that of the list.
            Some(id) if id.trim().trim_matches('.').is_empty() => {
                return Err(Failure::Usage(format!(
                    "`{id}` is not an id: give a run's id, a part of it, or its task's ARN"
                )));
            }
            Some(id) => id.to_owned(),
            None => self.latest().await?.to_string(),
        };
        Ok(self.execution(&id).await?)
    }

    /// The full id of the execution that `id` names. A full id is returned unchanged, which saves a
    /// call.
    pub(crate) async fn resolve(&self, id: Option<&str>) -> Result<ExecutionId, Failure> {
        match id.map(str::parse) {
            Some(Ok(id)) => Ok(id),
            Some(Err(_)) => Ok(self.find(id).await?.value.execution_id),
            None => self.latest().await,
        }
    }

    /// A page of history.
    pub(crate) async fn history(
        &self,
        filter: &[(&str, Option<&str>)],
    ) -> Result<Got<HistoryPage>, ApiError> {
        self.got(Call::get(path(&["executions"], filter))).await
    }

    /// A page of the log, from `cursor` on.
    pub(crate) async fn logs(
        &self,
        id: &ExecutionId,
        cursor: Option<&str>,
    ) -> Result<Got<LogsPage>, ApiError> {
        self.got(Call::get(logs_path(id, cursor))).await
    }

    /// The same for following: the server may hold its answer.
    pub(crate) async fn logs_followed(
        &self,
        id: &ExecutionId,
        cursor: Option<&str>,
    ) -> Result<Got<LogsPage>, ApiError> {
        self.got(Call::get(logs_path(id, cursor)).following()).await
    }

    /// Asks a run to stop. Repeating the call does no harm.
    pub(crate) async fn cancel(&self, id: &ExecutionId) -> Result<ExecutionStatus, ApiError> {
        let answer = self
            .call(Call::post(
                path(&["executions", id.as_str(), "cancel"], &[]),
                None,
            ))
            .await?;
        Ok(self.read::<CancelAnswer>(&answer)?.status)
    }

    /// Marks a group as cancelled. Repeating the call does no harm.
    pub(crate) async fn cancel_group(&self, group: &str) -> Result<GroupView, ApiError> {
        let answer = self
            .call(Call::post(path(&["groups", group, "cancel"], &[]), None))
            .await?;
        self.read(&answer)
    }

    /// Asks the server to run the failed runs of a group again. The request must name a submission,
    /// so that a lost answer never leads to two new runs of one.
    pub(crate) async fn rerun_group(
        &self,
        group: &str,
        request: &GroupRerunRequest,
    ) -> Result<GroupView, Failure> {
        let body = serde_json::to_vec(request).map_err(Failure::other)?;
        let answer = self
            .call(Call::post(
                path(&["groups", group, "rerun-failed"], &[]),
                Some(body),
            ))
            .await?;
        Ok(self.read(&answer)?)
    }

    /// How far the group's cancel and its rerun are. The server may hold its answer.
    pub(crate) async fn group(&self, group: &str) -> Result<Got<GroupView>, ApiError> {
        self.got(Call::get(path(&["groups", group], &[])).following())
            .await
    }

    async fn got<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<Got<T>, ApiError> {
        let answer = self.call(call).await?;
        Ok(Got {
            value: self.read(&answer)?,
            answer,
        })
    }
}

#[derive(serde::Deserialize)]
struct CancelAnswer {
    status: ExecutionStatus,
}

fn logs_path(id: &ExecutionId, cursor: Option<&str>) -> String {
    path(&["executions", id.as_str(), "logs"], &[("cursor", cursor)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_types_stays_in_its_place() {
        assert_eq!(
            path(&["executions", "../keys?x=1#y"], &[]),
            "/executions/..%2Fkeys%3Fx=1%23y"
        );
        assert_eq!(
            path(&["executions"], &[("by", Some("a&b")), ("group", None)]),
            "/executions?by=a%26b"
        );
        assert_eq!(
            name_in_path("arn:aws:ecs:eu-central-1:123456789012:task/mycli-default/0f9d"),
            "0f9d"
        );
        assert_eq!(name_in_path("exec_0/1"), "exec_0/1");
    }
}
