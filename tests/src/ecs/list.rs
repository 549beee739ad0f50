//! ListTasks: its filters and its pages.

use crate::ecs::RUNNING;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{refusal::Refusal, task::Shown};

/// The most tasks that a page holds, and also the default (API Reference, ListTasks, `maxResults`).
const PAGE: usize = 100;

/// The input of ListTasks.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(
    missing_docs,
    reason = "the fields are ECS's, documented in its API reference under ListTasks"
)]
pub struct ListTasks {
    pub cluster: String,
    pub started_by: Option<String>,
    pub desired_status: Option<String>,
    pub family: Option<String>,
    pub launch_type: Option<String>,
    pub service_name: Option<String>,
    pub container_instance: Option<String>,
    pub max_results: Option<usize>,
    pub next_token: Option<String>,
}

impl Default for ListTasks {
    fn default() -> Self {
        Self {
            cluster: "default".into(),
            started_by: None,
            desired_status: None,
            family: None,
            launch_type: None,
            service_name: None,
            container_instance: None,
            max_results: None,
            next_token: None,
        }
    }
}

impl ListTasks {
    /// Returns where the page begins, and how many tasks it holds at most.
    pub(super) fn page(&self) -> Result<(usize, usize), Refusal> {
        let others = [
            &self.family,
            &self.launch_type,
            &self.service_name,
            &self.container_instance,
        ];
        if self.started_by.is_some() && others.iter().any(|other| other.is_some()) {
            // `startedBy` must be the only filter (AWS-FACTS §1).
            return Err(Refusal::parameter("startedBy must be the only filter."));
        }
        let most = self.max_results.unwrap_or(PAGE);
        if !(1..=PAGE).contains(&most) {
            return Err(Refusal::parameter("maxResults must be between 1 and 100."));
        }
        let Some(token) = &self.next_token else {
            return Ok((0, most));
        };
        let from = token
            .strip_prefix("from-")
            .and_then(|number| number.parse().ok());
        from.map(|from| (from, most))
            .ok_or_else(|| Refusal::parameter("Invalid token."))
    }

    /// Whether the filters admit this task. The desired status is RUNNING unless STOPPED is asked
    /// for, so a stopping task is not found by default (AWS-FACTS §1).
    pub(super) fn wants(&self, shown: &Shown) -> bool {
        let family = || {
            shown
                .task
                .task_definition_arn
                .rsplit('/')
                .next()?
                .split(':')
                .next()
        };
        let of_family = self
            .family
            .as_deref()
            .is_none_or(|wanted| family() == Some(wanted));
        shown.task.desired_status == self.desired_status.as_deref().unwrap_or(RUNNING) && of_family
    }
}

/// A page of ListTasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The tasks.
    pub task_arns: Vec<String>,
    pub(super) next: Option<usize>,
}

impl Listed {
    /// The token for the next page; `None` at the end.
    #[must_use]
    pub fn next_token(&self) -> Option<String> {
        self.next.map(|number| format!("from-{number}"))
    }

    /// The page as JSON, as it goes over the wire.
    #[must_use]
    pub fn json(&self) -> Value {
        match self.next_token() {
            Some(token) => json!({ "taskArns": self.task_arns, "nextToken": token }),
            None => json!({ "taskArns": self.task_arns }),
        }
    }
}
