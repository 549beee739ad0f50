//! Finds executions by a part of an id, as a user types it.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    ecs::{TaskArn, TaskId},
    id::ExecutionId,
};

/// The ids, ordered by their ends and by their tasks.
#[derive(Default)]
pub(super) struct Names {
    /// Each id reversed, in capitals as ULIDs are.
    reversed: BTreeMap<String, ExecutionId>,
    tasks: BTreeMap<TaskId, ExecutionId>,
}

fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

impl Names {
    pub(super) fn add(&mut self, id: &ExecutionId) {
        self.reversed.insert(backwards(id.as_str()), id.clone());
    }

    pub(super) fn add_task(&mut self, task_arn: &TaskArn, id: &ExecutionId) {
        self.tasks.insert(task_arn.id(), id.clone());
    }

    pub(super) fn of_task(&self, task: &TaskId) -> Option<ExecutionId> {
        self.tasks.get(task).cloned()
    }

    /// Returns the matching ids, newest first. `ids` returns those that begin with a text.
    pub(super) fn find<'a, I: Iterator<Item = &'a ExecutionId>>(
        &self,
        fragment: &str,
        limit: usize,
        ids: impl FnOnce(&str) -> I,
    ) -> Vec<ExecutionId> {
        let fragment = fragment.trim();
        let task = fragment.rsplit('/').next().unwrap_or_default();
        let is_task = task.len() == 32 && task.bytes().all(|byte| byte.is_ascii_hexdigit());
        if fragment.contains(':') || is_task {
            return self
                .tasks
                .get(&TaskId::from(task))
                .into_iter()
                .take(limit)
                .cloned()
                .collect();
        }
        let upper = fragment.to_uppercase();
        let of_ulid = upper.strip_prefix("EXEC_").unwrap_or(&upper);
        if !of_ulid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Vec::new();
        }
        let suffix = backwards(of_ulid);
        let by_end = self
            .reversed
            .range(suffix.clone()..)
            .take_while(|(text, _)| text.starts_with(&suffix));
        let mut found: BTreeSet<_> = by_end.map(|(_, id)| id.clone()).collect();
        found.extend(ids(&format!("exec_{of_ulid}")).cloned());
        found.into_iter().rev().take(limit).collect()
    }
}
