//! The adapters over AWS: what goes over the wire, and what each of AWS's answers becomes.
//!
//! No emulator throttles, refuses or fails as AWS does, so a stand-in answers with AWS's own JSON
//! (`fixtures/answers`). What an emulator does have is asked of the emulator.

use aws_types::SdkConfig;
use tests::table;

mod ecs;
mod emulated;
mod events;
mod logs;
mod partial;
mod quotas;
mod refused_by;
mod stand_in;
mod stop_reasons;

/// The configuration for an endpoint that does not look at credentials.
pub(crate) fn config(endpoint: &str) -> SdkConfig {
    table::configuration(endpoint.to_owned())
}
