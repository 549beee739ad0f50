//! Making the ends of executions known, so that others can act on them.

use domain::{
    announcement::Announcement,
    id::ExecutionId,
    ports::{Announcer, PortError, Store},
};

use crate::unreadable::passed_over;

/// Publishes how these executions ended; those that have not ended, or are not there any more, are
/// passed over.
///
/// One whose record cannot be read is passed over: it would hold up all that ended after it.
///
/// Called for each change that a stream of the store shows, and again until it succeeds: so each
/// end is published at least once.
///
/// # Errors
/// When something does not answer; the same call again is right.
pub async fn announce(
    store: &impl Store,
    announcer: &impl Announcer,
    ids: impl IntoIterator<Item = ExecutionId> + Send,
) -> Result<(), PortError> {
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
