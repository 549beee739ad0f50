//! The things that every command starts from: the global flags, the user's folder, the screen, and
//! the client that they choose.

use std::{path::PathBuf, rc::Rc};

use clap::{Args, ValueEnum};
use deploy::StackName;
use secrecy::SecretString;

use crate::{
    client::{Client, Remote, is_address},
    config::{
        home::Home,
        known_stacks,
        machine::MachineFlags,
        settings::{ConfigFile, ProfileEntry, SettingsError},
    },
    failure::Failure,
    local,
    terminal::{log::LogForm, screen::Screen},
    variables::{API_KEY, ENDPOINT, STACK, variable},
};

/// The form of what goes to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputForm {
    /// For people.
    Text,
    /// For programs: the API's objects.
    Json,
}

/// Flags that every command has.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Use this machine: no account, no network
    #[arg(long, global = true, conflicts_with = "endpoint")]
    pub(crate) local: bool,
    /// The stack's address [default: MYCLI_ENDPOINT, then ~/.mycli/config.yaml]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// The stack, of several [default: MYCLI_STACK, then `mycli config use`'s, then `default`]
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["local", "endpoint"], add = known_stacks::candidates())]
    pub(crate) stack: Option<StackName>,
    /// Form of the output
    #[arg(short, long, global = true, value_enum, default_value_t = OutputForm::Text, hide_possible_values = true, value_name = "text|json")]
    pub(crate) output: OutputForm,
    /// Say what is being done, on standard error
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// No colours (as NO_COLOR does)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

/// Where an endpoint's address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointOrigin {
    /// From `--endpoint`.
    Flag,
    /// From `MYCLI_ENDPOINT`.
    Environment,
    /// From the configuration file.
    File,
}

/// An endpoint, and where its address comes from.
#[derive(Clone, Debug)]
pub(crate) struct ApiEndpoint {
    /// The address.
    pub(crate) url: String,
    /// Where the address comes from.
    pub(crate) origin: EndpointOrigin,
}

/// The state that every command starts from; see the module's documentation.
pub(crate) struct Context {
    /// The global flags.
    pub(crate) global: Global,
    /// The user's folder.
    pub(crate) home: Home,
    /// The screen.
    pub(crate) screen: Rc<Screen>,
    /// An example of this command, for a first-time user to type after `mycli --local`.
    pub(crate) example: &'static str,
}

impl Context {
    /// Makes the context for these flags.
    pub(crate) fn new(global: Global, example: &'static str, log: LogForm) -> Self {
        Self {
            home: Home::find(),
            screen: Rc::new(Screen::new(global.no_color, log)),
            global,
            example,
        }
    }

    /// Whether the output is JSON, for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.global.output == OutputForm::Json
    }

    /// The endpoint that the flags, the environment or the file name, in this order.
    ///
    /// # Errors
    /// The address is not a URL of a stack, the configuration file cannot be used, or it lacks the
    /// named stack.
    pub(crate) fn endpoint(&self) -> Result<Option<ApiEndpoint>, Failure> {
        if let Some(url) = &self.global.endpoint {
            return Ok(Some(ApiEndpoint {
                url: address("--endpoint", url)?,
                origin: EndpointOrigin::Flag,
            }));
        }
        let in_environment = if self.global.stack.is_none() {
            variable(ENDPOINT)?
        } else {
            None
        };
        if let Some(url) = in_environment {
            return Ok(Some(ApiEndpoint {
                url: address(ENDPOINT, url.trim())?,
                origin: EndpointOrigin::Environment,
            }));
        }
        let settings = self.settings()?;
        let named = self.named_stack()?;
        if let Some(name) = named
            .as_ref()
            .filter(|name| !settings.stacks.contains_key(name))
        {
            let known = settings.stacks.keys().cloned().collect();
            return Err(SettingsError::NoStack {
                name: name.clone(),
                path: self.home.config()?,
                known,
            }
            .into());
        }
        let url = settings.entry(named.as_ref()).endpoint.map(str::to_owned);
        Ok(url.map(|url| ApiEndpoint {
            url,
            origin: EndpointOrigin::File,
        }))
    }

    /// The settings in the configuration file.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(crate) fn settings(&self) -> Result<ConfigFile, SettingsError> {
        // A user without a home directory has no settings, and may need none.
        self.home.config().map_or_else(
            |_| Ok(ConfigFile::default()),
            |path| ConfigFile::read(&path),
        )
    }

    /// The stack that the flag or the environment names.
    ///
    /// # Errors
    /// The environment variable does not hold a stack's name.
    pub(crate) fn named_stack(&self) -> Result<Option<StackName>, Failure> {
        if let Some(name) = &self.global.stack {
            return Ok(Some(name.clone()));
        }
        let name = variable(STACK)?
            .map(|name| name.trim().parse::<StackName>())
            .transpose();
        name.map_err(|error| Failure::Usage(format!("{STACK}: {error}")))
    }

    /// The name of the stack to use, whether or not it exists.
    ///
    /// # Errors
    /// The environment variable does not hold a stack's name, or the file cannot be used.
    pub(crate) fn stack(&self) -> Result<StackName, Failure> {
        if let Some(name) = self.named_stack()? {
            return Ok(name);
        }
        let settings = self.settings()?;
        Ok(settings
            .stack
            .clone()
            .or_else(|| settings.entry(None).stack.cloned())
            .unwrap_or_default())
    }

    /// Makes the client. On this machine it does not start to work yet; see
    /// [`local::Machine::start`].
    ///
    /// # Errors
    /// Nothing is configured, or the configuration cannot be used.
    pub(crate) async fn client(&self, machine: MachineFlags) -> Result<Client, Failure> {
        if self.global.local {
            let options = local_options(self.home.local()?, machine);
            let machine = Box::pin(local::Machine::open(options)).await?;
            return Ok(Client::Local(machine));
        }
        let endpoint = self.endpoint()?.ok_or_else(|| unconfigured(self.example))?;
        let key = self.key(&endpoint)?;
        Ok(Client::Remote(Remote::new(
            &endpoint.url,
            &key,
            &self.screen,
        )?))
    }

    /// The key for `endpoint`. A key in the file is sent only to the endpoint it stands beside in
    /// the file.
    fn key(&self, endpoint: &ApiEndpoint) -> Result<SecretString, Failure> {
        if let Some(key) = variable(API_KEY)? {
            return Ok(key.trim().to_owned().into());
        }
        let settings = self.settings()?;
        let mut entries = settings
            .entries()
            .filter(|entry| entry.key.is_some())
            .peekable();
        let any = entries.peek().is_some();
        let named = settings.entry(self.named_stack()?.as_ref());
        // The entry in use comes first, because two entries may have the same address.
        match std::iter::once(named)
            .chain(entries)
            .find(|entry| belongs(entry, &endpoint.url))
        {
            Some(ProfileEntry { key: Some(key), .. }) => Ok(key.clone()),
            _ if any && endpoint.origin != EndpointOrigin::File => Err(Failure::Other(format!(
                "the key in {} belongs to another endpoint: give the key for {} in {API_KEY}",
                self.home.config()?.display(),
                endpoint.url
            ))),
            _ => Err(Failure::Other(format!(
                "there is no API key for {}: give it in {API_KEY}, or with `mycli config set key`",
                endpoint.url
            ))),
        }
    }
}

/// The options for opening this machine's store and runner.
pub(crate) fn local_options(dir: PathBuf, machine: MachineFlags) -> local::Options {
    local::Options {
        dir,
        host_only: machine.host,
        git: machine.git.into(),
        bounds: local::Bounds::None,
        submitter: user(),
    }
}

/// Whether an entry has a key and the key is for this address. The entry without a stack is for any
/// address if it names none.
fn belongs(entry: &ProfileEntry<'_>, url: &str) -> bool {
    let same = entry
        .endpoint
        .map(|own| own.trim_end_matches('/') == url.trim_end_matches('/'));
    same.unwrap_or(entry.stack.is_none()) && entry.key.is_some()
}

/// Checks the address of a stack; `said_by` says where it was given. The check comes before the key
/// is looked for. The message does not repeat the address, because a password may be in it.
fn address(said_by: &str, url: &str) -> Result<String, Failure> {
    if is_address(url) {
        return Ok(url.to_owned());
    }
    Err(Failure::Usage(format!(
        "{said_by} is not the URL of a stack: write https://host/stage, as `mycli init` printed it, without user name and query"
    )))
}

/// Neither a stack nor this machine was chosen. `example` is the command that was tried, or one
/// like it.
fn unconfigured(example: &str) -> Failure {
    Failure::Other(format!(
        "nothing is configured yet, and there are two ways to go:
  on this machine, with no account:   mycli --local {example}
  on a stack in your AWS account:     give its address with --endpoint URL, {ENDPOINT} or `mycli config set endpoint URL`,
                                      and its key in {API_KEY} or with `mycli config set key`"
    ))
}

/// The name of the submitter of this machine's runs.
pub(crate) fn user() -> String {
    // A name that is not UTF-8 cannot be shown, so it is skipped.
    let name = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| variable(name).ok().flatten());
    name.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()))
}
