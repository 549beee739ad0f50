//! Publishing the ends of executions, so that others can act on them.

use domain::{
    announcement::Announcement,
    id::ExecutionId,
    ports::{Announcer, PortError, ReadStore},
};

use crate::unreadable::passed_over;

/// Publishes how these executions ended, if somebody may listen: an event that nobody takes costs
/// as much as one that is taken. Executions that have not ended or no longer exist are skipped.
///
/// An execution with an unreadable record is skipped too, because it would block all that ended
/// after it.
///
/// This is called for each change in the store's stream, and again until it succeeds, so each end
/// is published at least once.
///
/// # Errors
/// When a service does not answer. The same call may be repeated.
pub async fn announce(
    store: &impl ReadStore,
    announcer: &impl Announcer,
    ids: impl IntoIterator<Item = ExecutionId> + Send,
) -> Result<(), PortError> {
    if !announcer.is_heard().await? {
        return Ok(());
    }
    let mut announcements = Vec::new();
    for id in ids.into_iter().collect::<Vec<_>>() {
        announcements.extend(
            passed_over(store.load(&id).await)?
                .as_ref()
                .and_then(Announcement::of),
        );
    }
    if announcements.is_empty() {
        Ok(())
    } else {
        announcer.announce(&announcements).await
    }
}
