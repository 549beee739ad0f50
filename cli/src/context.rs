//! What every command starts from: the global flags, the user's folder, the screen, and the client
//! they lead to.

use std::{env::VarError, path::PathBuf, rc::Rc};

use clap::{Args, ValueEnum};
use deploy::StackName;
use secrecy::SecretString;

use crate::{
    client::{Client, Remote, is_address},
    failure::Failure,
    home::Home,
    local,
    screen::Screen,
    settings::{Entry, Settings, SettingsError},
};

/// The variable with the endpoint's address.
pub(crate) const ENDPOINT: &str = "MYCLI_ENDPOINT";
/// The variable with the key.
pub(crate) const API_KEY: &str = "MYCLI_API_KEY";

/// The variable with the name of the stack.
pub(crate) const STACK: &str = "MYCLI_STACK";

/// The form of what goes to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
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
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["local", "endpoint"])]
    pub(crate) stack: Option<StackName>,
    /// Form of the output
    #[arg(short, long, global = true, value_enum, default_value_t = Form::Text, hide_possible_values = true, value_name = "text|json")]
    pub(crate) output: Form,
    /// Say what is being done, on standard error
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// No colours (as NO_COLOR does)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

/// Where an endpoint is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `--endpoint`.
    Flag,
    /// `MYCLI_ENDPOINT`.
    Environment,
    /// The configuration file.
    File,
}

/// An endpoint and where it is known from.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Its address.
    pub(crate) url: String,
    /// Who said so.
    pub(crate) origin: Origin,
}

/// See the module.
pub(crate) struct Context {
    /// The flags.
    pub(crate) global: Global,
    /// The user's folder.
    pub(crate) home: Home,
    /// The screen.
    pub(crate) screen: Rc<Screen>,
    /// What to type for a first look at this command, without `mycli --local`.
    pub(crate) example: &'static str,
}

impl Context {
    /// Of these flags.
    pub(crate) fn new(global: Global, example: &'static str) -> Self {
        Self {
            home: Home::find(),
            screen: Rc::new(Screen::new(global.no_color)),
            global,
            example,
        }
    }

    /// Whether programs read the output.
    pub(crate) fn is_json(&self) -> bool {
        self.global.output == Form::Json
    }

    /// The endpoint that the flags, the environment or the file name, in this order.
    ///
    /// # Errors
    /// The error, for later, if the address is none, the configuration file cannot be used, or it
    /// lacks the stack that is named.
    pub(crate) fn endpoint(&self) -> Result<Option<Endpoint>, Failure> {
        if let Some(url) = &self.global.endpoint {
            return Ok(Some(Endpoint {
                url: address("--endpoint", url)?,
                origin: Origin::Flag,
            }));
        }
        let in_environment = if self.global.stack.is_none() {
            variable(ENDPOINT)?
        } else {
            None
        };
        if let Some(url) = in_environment {
            return Ok(Some(Endpoint {
                url: address(ENDPOINT, url.trim())?,
                origin: Origin::Environment,
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
        Ok(url.map(|url| Endpoint {
            url,
            origin: Origin::File,
        }))
    }

    /// What the file says.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub(crate) fn settings(&self) -> Result<Settings, SettingsError> {
        // Who has no home has no settings, and may need none.
        self.home
            .config()
            .map_or_else(|_| Ok(Settings::default()), |path| Settings::read(&path))
    }

    /// The stack that the flag or the environment names.
    ///
    /// # Errors
    /// A variable that names none.
    pub(crate) fn named_stack(&self) -> Result<Option<StackName>, Failure> {
        if let Some(name) = &self.global.stack {
            return Ok(Some(name.clone()));
        }
        let name = variable(STACK)?
            .map(|name| name.trim().parse::<StackName>())
            .transpose();
        name.map_err(|error| Failure::Usage(format!("{STACK}: {error}")))
    }

    /// The name of the stack that is meant, be there one or not.
    ///
    /// # Errors
    /// A variable that names none, or a file that cannot be used.
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

    /// The client. On this machine work is not begun yet: see [`local::Machine::start`].
    ///
    /// # Errors
    /// Nothing configured, or what is configured cannot be used.
    pub(crate) async fn client(&self, host_only: bool) -> Result<Client, Failure> {
        if self.global.local {
            let options = local_options(self.home.local()?, host_only);
            return Ok(Client::Local(local::Machine::open(options).await?));
        }
        let endpoint = self
            .endpoint()?
            .ok_or_else(|| Failure::Unconfigured(self.example.to_owned()))?;
        let key = self.key(&endpoint)?;
        Ok(Client::Remote(Remote::new(
            &endpoint.url,
            &key,
            &self.screen,
        )?))
    }

    /// The key for `endpoint`. The file's is for the file's endpoint: to another address it is not
    /// sent.
    fn key(&self, endpoint: &Endpoint) -> Result<SecretString, Failure> {
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
        // The entry that is in use first: two may have the same address.
        match std::iter::once(named)
            .chain(entries)
            .find(|entry| belongs(entry, &endpoint.url))
        {
            Some(Entry { key: Some(key), .. }) => Ok(key.clone()),
            _ if any && endpoint.origin != Origin::File => Err(Failure::Key(format!(
                "the key in {} belongs to the endpoint there: give the one for {} in {API_KEY}",
                self.home.config()?.display(),
                endpoint.url
            ))),
            _ => Err(Failure::Key(format!(
                "there is no API key for {}: give it in {API_KEY}, or with `mycli config set key`",
                endpoint.url
            ))),
        }
    }
}

/// How this machine's store and runner are opened.
pub(crate) fn local_options(dir: PathBuf, host_only: bool) -> local::Options {
    local::Options {
        dir,
        host_only,
        bounds: local::Bounds::None,
        submitter: user(),
    }
}

/// Whether an entry has a key, and that is for this address. The one of no stack is for any address
/// if it names none.
fn belongs(entry: &Entry<'_>, url: &str) -> bool {
    let same = entry
        .endpoint
        .map(|own| own.trim_end_matches('/') == url.trim_end_matches('/'));
    same.unwrap_or(entry.stack.is_none()) && entry.key.is_some()
}

/// What `said_by` gives as the address of a stack. Looked at before a key is asked for, and not
/// repeated: a password may be in it.
fn address(said_by: &str, url: &str) -> Result<String, Failure> {
    if is_address(url) {
        return Ok(url.to_owned());
    }
    Err(Failure::Usage(format!(
        "{said_by} is no URL of a stack: write https://host/stage, as `mycli init` printed it, without user name and query"
    )))
}

/// A variable's value, if it is set to something.
///
/// # Errors
/// A value that is no text, which is not taken for none.
pub(crate) fn variable(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Failure::Usage(format!(
            "{name} is not UTF-8: set it again, or unset it"
        ))),
    }
}

/// The name that this machine's runs are submitted by.
pub(crate) fn user() -> String {
    // A name that is no text is none to show.
    let name = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| variable(name).ok().flatten());
    name.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()))
}
