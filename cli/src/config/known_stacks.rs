//! The stacks that a shell completes.

use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use super::{home::Home, settings::ConfigFile};

/// The stacks of the user's settings. None if these cannot be read.
pub(crate) fn candidates() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let path = Home::find().config().ok();
        let settings = path.and_then(|path| ConfigFile::read(&path).ok());
        let stacks = settings.into_iter().flat_map(|settings| settings.stacks);
        stacks
            .map(|(name, _)| CompletionCandidate::new(name.to_string()))
            .collect()
    })
}
