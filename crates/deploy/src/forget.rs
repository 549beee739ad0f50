//! Removing a record of a stack that cannot be read.

use aws::dynamo::DynamoStore;
use domain::{forget::Forgotten, id::ExecutionId};
use pipeline::forget;
pub use pipeline::forget::{ForgetError, Unreadable};

use crate::{Account, activity, stack::StackView};

/// The records of one stack.
#[derive(Clone, Debug)]
pub struct Records(DynamoStore);

impl Records {
    /// Of this stack.
    #[must_use]
    pub fn of(account: &Account, stack: &StackView) -> Self {
        Self(activity::store(account, stack))
    }

    /// The record that a text names, which must be one that cannot be read.
    ///
    /// # Errors
    /// As [`forget::look`].
    pub async fn unreadable(&self, text: &str) -> Result<Unreadable, ForgetError> {
        forget::look(&self.0, text).await
    }

    /// Removes it.
    ///
    /// # Errors
    /// As [`DynamoStore::forget`] and [`forget::removed`].
    pub async fn forget(&self, id: &ExecutionId) -> Result<Forgotten, ForgetError> {
        forget::removed(id, self.0.forget(id).await?)
    }
}

/// The command that stops a task, if the text is a task's ARN: `arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID`.
#[must_use]
pub fn how_to_stop(task_arn: &str) -> Option<String> {
    let mut parts = task_arn.splitn(6, ':').skip(3);
    let (region, path) = (parts.next()?, parts.nth(1)?);
    let (cluster, _) = path.strip_prefix("task/")?.split_once('/')?;
    Some(format!("aws ecs stop-task --region {region} --cluster {cluster} --task {task_arn}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_stopped_where_its_arn_says_it_is() {
        let arn = "arn:aws:ecs:eu-west-1:123456789012:task/mycli-ci/0f9d";
        let command = "aws ecs stop-task --region eu-west-1 --cluster mycli-ci --task ";
        assert_eq!(how_to_stop(arn), Some(format!("{command}{arn}")));
        assert_eq!(how_to_stop("arn:aws:ecs:eu-west-1:123456789012:task"), None);
        assert_eq!(how_to_stop("not an ARN"), None);
    }
}
