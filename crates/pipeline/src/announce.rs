//! Making the ends of executions known, so that others can act on them.

use domain::{
    announcement::Announcement,
    id::ExecutionId,
    ports::{Announcer, Store, Unavailable},
};

/// Publishes how these executions ended; those that have not ended, or are not there any more, are passed over.
///
/// Called for each change that a stream of the store shows, and again until it succeeds: so each end is published at least once.
///
/// # Errors
/// When something does not answer; the same call again is right.
pub async fn announce(
    store: &impl Store,
    announcer: &impl Announcer,
    ids: impl IntoIterator<Item = ExecutionId> + Send,
) -> Result<(), Unavailable> {
    let mut announcements = Vec::new();
    for id in ids.into_iter().collect::<Vec<_>>() {
        announcements.extend(store.load(&id).await?.as_ref().and_then(Announcement::of));
    }
    if announcements.is_empty() { Ok(()) } else { announcer.announce(&announcements).await }
}
