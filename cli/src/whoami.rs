//! `mycli whoami`: whom an installation takes the caller for.

use clap::Args;
use domain::api::{Version, Whoami as Answer};

use crate::{
    api::path,
    client::{Call, Client},
    context::Context,
    exit,
    failure::Failure,
    output,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli whoami                        the key's name, its principal, its role, and which release answers
  mycli whoami -o json | jq -r .principal
  mycli --local whoami                on this machine it is `local`

A principal stays the same when its key is rotated. A key that is revoked and made again
under the same name is another one.

Exit code: 0, or 1 if nobody answers or the key is refused.";

/// The command line of `whoami`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Whoami {}

impl Whoami {
    /// Runs it.
    ///
    /// # Errors
    /// The API's.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(false).await?;
        let shown = show(context, &client).await;
        client.close(&context.screen).await;
        shown.map(|()| exit::SUCCESS)
    }
}

async fn show(context: &Context, client: &Client) -> Result<(), Failure> {
    let answer = client.call(Call::get(path(&["whoami"], &[]))).await?;
    if context.is_json() {
        return output::json(context, &answer);
    }
    let caller: Answer = client.read(&answer)?;
    let answer = client.call(Call::get(path(&["version"], &[]))).await?;
    let version: Version = client.read(&answer)?;
    let Answer { name, principal, role } = caller;
    let text =
        format!("name       {name}\nprincipal  {principal}\nrole       {role}\nrelease    {}\n", version.version);
    output::text(context, &text)
}
