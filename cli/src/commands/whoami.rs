//! `mycli whoami`: shows the identity that the installation sees for the caller.

use clap::Args;
use domain::api::{Version, Whoami as ApiAnswer};
use serde_json::Value;

use crate::{
    client::{Call, Client, api::path},
    config::{context::Context, machine::MachineFlags},
    exit,
    failure::Failure,
    terminal::output,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli whoami                        your name, principal and role, and the release of the API
  mycli whoami -o json | jq -r .principal       also .name, .role and .release
  mycli --local whoami                on this machine the principal is `local`

A principal stays the same when its key is rotated. A key that is revoked and made again
under the same name has another principal.

Exit code: 0, or 1 if the API does not answer or refuses the key.";

/// The command line of `whoami`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WhoamiArgs {}

impl WhoamiArgs {
    /// Runs `mycli whoami` and returns the exit code.
    ///
    /// # Errors
    /// The API's errors.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(MachineFlags::default()).await?;
        let shown = show(context, &client).await;
        client.close(&context.screen).await;
        shown.map(|()| exit::SUCCESS)
    }
}

async fn show(context: &Context, client: &Client) -> Result<(), Failure> {
    let caller = client.whoami().await?;
    let answer = client.call(Call::get(path(&["version"], &[]))).await?;
    let Version { version, .. } = client.read(&answer)?;
    if context.is_json() {
        let mut json: Value = client.read(&caller.answer)?;
        json["release"] = version.into();
        return output::text(context, &format!("{json}\n"));
    }
    let ApiAnswer {
        name,
        principal,
        role,
    } = caller.value;
    let text = format!(
        "name       {name}\nprincipal  {principal}\nrole       {role}\nrelease    {version}\n"
    );
    output::text(context, &text)
}
