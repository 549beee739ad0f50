//! `mycli config`: the endpoints and keys to use when no flag or variable names others.

use clap::{Args, Subcommand, ValueEnum};
use deploy::StackName;
use domain::key::ApiKey;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    client::Remote,
    config::{
        context::{Context, EndpointOrigin},
        settings::{ConfigFile, SettingsError},
    },
    exit,
    failure::Failure,
    terminal::{output, prompt},
    variables::{API_KEY, variable},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli config set endpoint https://abc.execute-api.eu-west-1.amazonaws.com/prod
  mycli config set key                     asks for it without showing it
  mycli config set key < key.txt
  mycli config show
  mycli config use ci                      use this stack from now on
  mycli --stack ci config unset key        the key of this stack

The file is ~/.mycli/config.yaml (MYCLI_HOME moves the folder), readable by you alone.
`mycli init` writes it. Precedence, highest first: --stack and --endpoint, MYCLI_ENDPOINT
and MYCLI_API_KEY, the file.";

/// The command line of `config`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Show the settings in use and where each comes from, but never the key itself
    #[command(after_help = EXAMPLES)]
    Show,
    /// Set the endpoint, or the key (read from standard input)
    #[command(after_help = EXAMPLES)]
    Set {
        /// The setting to change
        name: Name,
        /// The endpoint's address; never give a key here, because other users could see it
        value: Option<String>,
    },
    /// Remove the endpoint or the key
    #[command(after_help = EXAMPLES)]
    Unset {
        /// The setting to remove
        name: Name,
    },
    /// Use this stack of the file from now on
    #[command(after_help = EXAMPLES)]
    Use {
        /// The stack's name
        name: StackName,
    },
    /// Print the path of the file
    #[command(after_help = EXAMPLES)]
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The stack's address
    Endpoint,
    /// The API key
    Key,
}

impl ConfigArgs {
    /// Runs `mycli config` and returns the exit code.
    ///
    /// # Errors
    /// The file cannot be used, or a value is not valid.
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.action {
            Action::Show => show(context)?,
            Action::Set {
                name: Name::Endpoint,
                value,
            } => set_endpoint(context, value)?,
            Action::Set {
                name: Name::Key,
                value: None,
            } => set_key(context)?,
            Action::Set {
                name: Name::Key,
                value: Some(_),
            } => {
                let message = "a key on the command line can be seen by every user of this machine: run `mycli config set key` and type it";
                return Err(Failure::Usage(message.into()));
            }
            Action::Unset { name } => unset(context, name)?,
            Action::Use { name } => use_stack(context, name)?,
            Action::Path => {
                output::text(context, &format!("{}\n", context.home.config()?.display()))?;
            }
        }
        Ok(exit::SUCCESS)
    }
}

fn show(context: &Context) -> Result<(), Failure> {
    let endpoint = context.endpoint()?;
    let key = key_origin(context)?;
    let settings = context.settings()?;
    let used = endpoint
        .as_ref()
        .filter(|endpoint| endpoint.origin == EndpointOrigin::File);
    let used = used.and(settings.entry(context.named_stack()?.as_ref()).stack);
    if context.is_json() {
        let url = endpoint.as_ref().map(|endpoint| &endpoint.url);
        let stacks: Vec<_> = settings.stacks.iter().map(|(name, profile)| {
            serde_json::json!({
                "name": name, "endpoint": profile.endpoint, "key": profile.key.is_some(), "account": profile.account,
                "region": profile.region, "aws_profile": profile.aws_profile, "endpoint_url": profile.endpoint_url
            })
        }).collect();
        let file = context.home.config()?;
        let shown = serde_json::json!({"file": file, "endpoint": url, "key": key.is_some(), "stack": used, "stacks": stacks});
        return output::text(context, &format!("{shown}\n"));
    }
    let endpoint =
        endpoint.map(|endpoint| format!("{} ({})", endpoint.url, origin(endpoint.origin)));
    let key = key.map(|from| format!("set ({})", origin(from)));
    let unset = || "not set".to_owned();
    let text = format!(
        "file      {}\nendpoint  {}\nkey       {}\n",
        context.home.config()?.display(),
        endpoint.unwrap_or_else(unset),
        key.unwrap_or_else(unset)
    );
    output::text(context, &(text + &stacks(&settings, used)))
}

/// One line for each stack. The one in use has a star.
fn stacks(settings: &ConfigFile, used: Option<&StackName>) -> String {
    let line =
        |(index, (name, profile)): (usize, (&StackName, &crate::config::settings::Profile))| {
            let (head, star) = (
                if index == 0 { "stacks" } else { "" },
                if used == Some(name) { '*' } else { ' ' },
            );
            let place = [profile.account.as_deref(), profile.region.as_deref()];
            let place = place.into_iter().flatten().collect::<Vec<_>>().join(" ");
            let line = format!(
                "{head:<8}{star} {name:<20}  {place:<28}  {}",
                profile.endpoint.as_deref().unwrap_or("no endpoint")
            );
            format!("{}\n", line.trim_end())
        };
    settings.stacks.iter().enumerate().map(line).collect()
}

fn use_stack(context: &Context, name: StackName) -> Result<(), Failure> {
    let settings = context.settings()?;
    if !settings.stacks.contains_key(&name) {
        let known = settings.stacks.keys().cloned().collect();
        return Err(SettingsError::NoStack {
            name,
            path: context.home.config()?,
            known,
        }
        .into());
    }
    change(context, |settings| settings.stack = Some(name))
}

fn key_origin(context: &Context) -> Result<Option<EndpointOrigin>, Failure> {
    if variable(API_KEY)?.is_some() {
        return Ok(Some(EndpointOrigin::Environment));
    }
    let settings = context.settings()?;
    Ok(settings
        .entry(context.named_stack()?.as_ref())
        .key
        .map(|_| EndpointOrigin::File))
}

fn origin(origin: EndpointOrigin) -> &'static str {
    match origin {
        EndpointOrigin::Flag => "from --endpoint",
        EndpointOrigin::Environment => "from the environment",
        EndpointOrigin::File => "from the file",
    }
}

fn set_endpoint(context: &Context, value: Option<String>) -> Result<(), Failure> {
    let value = value.ok_or_else(|| {
        Failure::Usage("give the address: mycli config set endpoint https://…".into())
    })?;
    // This only checks the address; nothing is sent.
    Remote::new(&value, &String::new().into(), &context.screen)?;
    set(context, Name::Endpoint, Some(value.into()))
}

fn set_key(context: &Context) -> Result<(), Failure> {
    let line = prompt::secret_line(
        context,
        "type or paste the key (it is not shown), then Enter:",
    )?;
    let key = ApiKey::parse(line.expose_secret().trim());
    let key = key.ok_or_else(|| {
        Failure::Other("that is not a key: a key is sk_live_ and 64 hexadecimal digits".into())
    })?;
    set(context, Name::Key, Some(key.expose().to_owned().into()))
}

fn unset(context: &Context, name: Name) -> Result<(), Failure> {
    set(context, name, None)
}

/// Sets or removes a value of the stack that is named or in use. Without one, it changes the
/// endpoint that belongs to no stack. A named stack that is missing is added.
fn set(context: &Context, name: Name, value: Option<SecretString>) -> Result<(), Failure> {
    let named = context.named_stack()?;
    change(context, |settings| {
        let stack = named.or_else(|| settings.entry(None).stack.cloned());
        let (endpoint, key) = match stack {
            Some(stack) => {
                let profile = settings.stacks.entry(stack).or_default();
                (&mut profile.endpoint, &mut profile.key)
            }
            None => (&mut settings.endpoint, &mut settings.key),
        };
        match name {
            Name::Endpoint => {
                let value = value.map(|value| value.expose_secret().to_owned());
                // A key is only for the endpoint that it was given for.
                if endpoint.is_some() && *endpoint != value && key.take().is_some() {
                    context
                        .screen
                        .say("removed the key of the previous endpoint");
                }
                *endpoint = value;
            }
            Name::Key => *key = value,
        }
    })
}

/// Reads the file, applies `change` and writes it back.
///
/// # Errors
/// The file cannot be used.
pub(crate) fn change(
    context: &Context,
    change: impl FnOnce(&mut ConfigFile),
) -> Result<(), Failure> {
    let path = context.home.config()?;
    let mut settings = ConfigFile::read(&path)?;
    change(&mut settings);
    settings.write(&path)?;
    context.screen.say(&format!("wrote {}", path.display()));
    Ok(())
}
