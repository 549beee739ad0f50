//! The adapters over AWS: what goes over the wire, and what each of AWS's answers becomes.
//!
//! No emulator throttles, refuses or fails as AWS does, so a stand-in answers with AWS's own JSON (`fixtures/answers`). What an emulator does have
//! is asked of the emulator.

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_types::SdkConfig;
use tests::emulator::{ACCESS_KEY, REGION};

mod ecs;
mod emulated;
mod events;
mod logs;
mod partial;
mod quotas;
mod stand_in;

/// The configuration for an endpoint that does not look at credentials.
pub(crate) fn config(endpoint: &str) -> SdkConfig {
    let credentials =
        Credentials::builder().access_key_id(ACCESS_KEY).secret_access_key(ACCESS_KEY).provider_name("tests").build();
    aws::connect::configuration(REGION.into(), SharedCredentialsProvider::new(credentials), Some(endpoint.into()))
}
