//! Removes a record of a stack that cannot be read.

use aws::{dynamo::DynamoStore, ecs::EcsTasks, system::System};
use domain::{ecs::TaskArn, forget::Forgotten, id::ExecutionId};
use pipeline::forget;
pub use pipeline::forget::{ForgetError, Unreadable};

use crate::{Account, activity, stack::StackView};

/// The records of one stack, and the tasks of their runs.
#[derive(Debug)]
pub struct Records {
    store: DynamoStore,
    tasks: EcsTasks,
}

impl Records {
    /// The records of this stack.
    #[must_use]
    pub fn of(account: &Account, stack: &StackView) -> Self {
        // Without a cluster there are no tasks. ECS's answer then says so.
        let cluster = stack.outputs.get("Cluster").cloned().unwrap_or_default();
        Self {
            store: activity::store(account, stack),
            tasks: EcsTasks::new(&account.config, cluster, None),
        }
    }

    /// Returns the unreadable record that a text names.
    ///
    /// # Errors
    /// As [`forget::look`].
    pub async fn unreadable(&self, text: &str) -> Result<Unreadable, ForgetError> {
        forget::look(&self.store, text).await
    }

    /// Removes the record. If a task runs for it, the task is stopped first.
    ///
    /// # Errors
    /// As [`forget::remove`].
    pub async fn forget(&self, id: &ExecutionId) -> Result<Forgotten, ForgetError> {
        let stop = async |task_arn: &TaskArn| forget::stop(&self.tasks, &System, task_arn).await;
        forget::remove(
            id,
            async |stopped: Option<&TaskArn>| self.store.forget(id, stopped).await,
            stop,
        )
        .await
    }
}
