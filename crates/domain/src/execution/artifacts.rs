//! The account that a record gives of the files of its run.

use super::{Attempt, Execution};
use crate::artifact::UploadSummary;

/// The state of a run's artifacts: of those of its last attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArtifactsState {
    /// Nothing is known yet: its command, or the upload, is not over.
    Pending,
    /// The files of this attempt were looked for, and this is what is kept.
    Kept(UploadSummary),
}

impl Execution {
    /// The state of its artifacts; `None` if it has none to keep.
    #[must_use]
    pub fn artifacts(&self) -> Option<ArtifactsState> {
        let asked = self.request.artifacts.as_ref()?;
        let last = self.attempts.last();
        let uploaded = last.and_then(|attempt| attempt.markers.uploaded.as_ref());
        if let Some(uploaded) = uploaded {
            return Some(ArtifactsState::Kept(uploaded.summary.clone()));
        }
        let is_over = self.end().is_some() || last.is_some_and(|attempt| !attempt.is_open());
        if !is_over {
            return Some(ArtifactsState::Pending);
        }
        let has_run = |attempt: &Attempt| attempt.markers.of_its_command();
        let reason = match last.filter(|attempt| has_run(attempt)) {
            None => Some("the command never ran".to_owned()),
            Some(attempt) if !asked.on.includes(attempt.markers.exit == Some(0)) => None,
            Some(_) => Some("the task ended before all files were uploaded".to_owned()),
        };
        Some(ArtifactsState::Kept(UploadSummary {
            reason,
            ..UploadSummary::default()
        }))
    }
}
