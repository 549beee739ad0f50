//! The AWS adapters: what they send over the wire, and what they make of each AWS answer.
//!
//! No emulator throttles, refuses or fails as AWS does, so a stand-in answers with AWS's own JSON
//! (`fixtures/answers`). What the emulator has is tested against the emulator.

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

/// The configuration for an endpoint that ignores credentials.
pub(crate) fn config(endpoint: &str) -> SdkConfig {
    table::configuration(endpoint.to_owned())
}
