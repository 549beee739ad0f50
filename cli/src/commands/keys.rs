//! `mycli keys`: the API keys of an installation.

use chrono::Utc;
use clap::{Args, Subcommand, ValueEnum};
use domain::{Timestamp, api::KeyView, key::Role, principal::Principal, request::Name};
use serde::Deserialize;

use crate::{
    client::{ApiError, Call, Client, api::path},
    commands::completions::values,
    config::{context::Context, machine::MachineFlags},
    exit,
    failure::Failure,
    local,
    terminal::{moment, output},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli keys create ci --role submit > ci.key     it is shown once, and not stored
  mycli keys list
  mycli keys rotate ci > ci.key                   a new key; the old one works for one more day
  mycli keys revoke ci                            it is refused everywhere within a minute

Runs are shown with the name of the key that submitted them. Roles: read (read executions
and logs), submit (also submit and cancel), admin (also manage keys).";

/// The command line of `keys`.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Make a key and print it
    #[command(after_help = EXAMPLES)]
    Create {
        /// The key's name
        name: Name,
        /// The key's role
        #[arg(long, value_enum)]
        role: RoleName,
    },
    /// List the names and roles of the keys, but not the keys themselves
    #[command(after_help = EXAMPLES)]
    List,
    /// Replace a key by a new one with the same name, principal and role, and print it
    #[command(after_help = EXAMPLES)]
    Rotate {
        /// The key's name
        #[arg(add = values::keys())]
        name: Name,
        /// Revoke the old key at once, instead of after a day
        #[arg(long)]
        now: bool,
    },
    /// Revoke a key
    #[command(after_help = EXAMPLES)]
    Revoke {
        /// The key's name
        #[arg(add = values::keys())]
        name: Name,
        /// Revoke it even if it is the last administrator's key; nobody can make keys then
        #[arg(long)]
        last: bool,
    },
}

/// A role, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    /// Read executions and logs
    Read,
    /// Also submit and cancel
    Submit,
    /// Also manage keys
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Read => Self::Read,
            RoleName::Submit => Self::Submit,
            RoleName::Admin => Self::Admin,
        }
    }
}

#[derive(Deserialize)]
struct Rotated {
    key: String,
    old_key_until: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Made {
    key: String,
}

impl KeysArgs {
    /// Runs `mycli keys` and returns the exit code.
    ///
    /// # Errors
    /// The API's errors.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(MachineFlags::default()).await?;
        let done = match &self.action {
            Action::Create { name, role } => create(context, &client, name, (*role).into()).await,
            Action::List => list(context, &client).await,
            Action::Rotate { name, now } => rotate(context, &client, name, *now).await,
            Action::Revoke { name, last } => revoke(context, &client, name, *last).await,
        };
        client.close(&context.screen).await;
        done.map(|()| exit::SUCCESS)
    }
}

async fn create(
    context: &Context,
    client: &Client,
    name: &Name,
    role: Role,
) -> Result<(), Failure> {
    let body = serde_json::json!({"name": name, "role": role})
        .to_string()
        .into_bytes();
    // Sent only once. If the answer is lost, the key is lost with it, and a second key of this name
    // would be refused.
    let answer = client
        .call(Call::post(path(&["keys"], &[]), Some(body)).once())
        .await;
    if let Err(error @ ApiError::Unreachable { .. }) = answer {
        let advice = format!(
            "it is unknown whether the key `{name}` was made: run `mycli keys revoke {name}`, then make it again"
        );
        return Err(Failure::Other(format!("{error}; {advice}")));
    }
    let answer = answer?;
    if context.is_json() {
        return output::json(context, &answer);
    }
    let made: Made = client.read(&answer)?;
    context
        .screen
        .say(&format!("made the key `{name}`; it is not shown again:"));
    output::text(context, &format!("{}\n", made.key))
}

async fn rotate(context: &Context, client: &Client, name: &Name, now: bool) -> Result<(), Failure> {
    let body = serde_json::json!({"now": now}).to_string().into_bytes();
    let own = client.whoami().await.map(|own| own.value);
    let is_own =
        own.is_ok_and(|own| own.name == name.as_str() && own.principal != Principal::Local);
    // Sent only once. If the answer is lost, there may be a new key that nobody knows. The way out
    // is to rotate again.
    let answer = client
        .call(Call::post(path(&["keys", name.as_str(), "rotate"], &[]), Some(body)).once())
        .await;
    if let Err(error @ ApiError::Unreachable { .. }) = answer {
        let advice = format!(
            "it is unknown whether `{name}` has a new key: run the same command again, which makes another one"
        );
        return Err(Failure::Other(format!("{error}; {advice}")));
    }
    let answer = answer?;
    if context.is_json() {
        return output::json(context, &answer);
    }
    if name.as_str() == local::SERVE_KEY {
        context.screen.say(
            "`mycli local serve` reads this key from serve.key: put the new one into that file",
        );
    } else if is_own {
        context.screen.say(
            "mycli itself uses this key here: give it the new one with `mycli config set key`",
        );
    }
    let made: Rotated = client.read(&answer)?;
    let old = match made.old_key_until {
        Some(until) => format!("the old one works until {}", moment::shown(until)),
        None => "the old one is refused within a minute".to_owned(),
    };
    context.screen.say(&format!(
        "made a new key for `{name}`; {old}. It is not shown again:"
    ));
    output::text(context, &format!("{}\n", made.key))
}

async fn list(context: &Context, client: &Client) -> Result<(), Failure> {
    let got = client.keys().await?;
    if context.is_json() {
        return output::json(context, &got.answer);
    }
    let row = |key: &KeyView| {
        let role = format!("{:?}", key.role).to_lowercase();
        let old = key
            .old_key_until
            .map(|until| format!("  an old key works until {}", moment::shown(until)));
        let age = moment::short(Utc::now() - key.created_at);
        format!(
            "{:<24}  {role:<6}  {age:>4}{}\n",
            key.name,
            old.unwrap_or_default()
        )
    };
    let head = format!("{:<24}  {:<6}  {:>4}\n", "NAME", "ROLE", "AGE");
    output::text(
        context,
        &std::iter::once(head)
            .chain(got.value.keys.iter().map(row))
            .collect::<String>(),
    )
}

async fn revoke(
    context: &Context,
    client: &Client,
    name: &Name,
    last: bool,
) -> Result<(), Failure> {
    if !last {
        let keys = client.keys().await?.value.keys;
        let admins: Vec<_> = keys.iter().filter(|key| key.role == Role::Admin).collect();
        if matches!(admins[..], [only] if only.name == name.as_str()) {
            return Err(Failure::Usage(format!(
                "`{name}` is the last administrator's key: without it nobody can make keys. Make another first, or give --last"
            )));
        }
    }
    let answer = client
        .call(Call::delete(path(&["keys", name.as_str()], &[])))
        .await?;
    context.screen.say(&format!(
        "revoked `{name}`; it may still be accepted for another minute"
    ));
    if context.is_json() {
        output::json(context, &answer)
    } else {
        Ok(())
    }
}
