//! `mycli config`: the endpoint and key that are used when nothing else is said.

use std::io::{self, BufRead, IsTerminal};

use clap::{Args, Subcommand, ValueEnum};
use domain::key::ApiKey;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::{
    client::Remote,
    context::{API_KEY, Context, Origin, variable},
    exit,
    failure::Failure,
    output,
    settings::Settings,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli config set endpoint https://abc.execute-api.eu-west-1.amazonaws.com/prod
  mycli config set key                     asks for it without showing it
  mycli config set key < key.txt
  mycli config show

The file is ~/.mycli/config.yaml (MYCLI_HOME moves the folder), readable by you alone.
MYCLI_ENDPOINT and MYCLI_API_KEY go before it, --endpoint before both.";

/// The command line of `config`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Show what is used and where it is from; never the key itself
    #[command(after_help = EXAMPLES)]
    Show,
    /// Set the endpoint, or the key (read from standard input)
    #[command(after_help = EXAMPLES)]
    Set {
        /// What to set
        name: Name,
        /// The endpoint's address; a key is never given here, where other users could see it
        value: Option<String>,
    },
    /// Forget the endpoint or the key
    #[command(after_help = EXAMPLES)]
    Unset {
        /// What to forget
        name: Name,
    },
    /// Print where the file is
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

impl Config {
    /// Runs it.
    ///
    /// # Errors
    /// A file that cannot be used, or a value that is none.
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.action {
            Action::Show => show(context)?,
            Action::Set { name: Name::Endpoint, value } => set_endpoint(context, value)?,
            Action::Set { name: Name::Key, value: None } => set_key(context)?,
            Action::Set { name: Name::Key, value: Some(_) } => {
                let message = "a key on the command line can be seen by every user of this machine: run `mycli config set key` and type it";
                return Err(Failure::Usage(message.into()));
            }
            Action::Unset { name } => unset(context, name)?,
            Action::Path => output::text(context, &format!("{}\n", context.home.config().display()))?,
        }
        Ok(exit::SUCCESS)
    }
}

fn show(context: &Context) -> Result<(), Failure> {
    let endpoint = context.endpoint()?;
    let key = key_origin(context)?;
    if context.is_json() {
        let url = endpoint.as_ref().map(|endpoint| &endpoint.url);
        let shown = serde_json::json!({"file": context.home.config(), "endpoint": url, "key": key.is_some()});
        return output::text(context, &format!("{shown}\n"));
    }
    let endpoint = endpoint.map(|endpoint| format!("{} ({})", endpoint.url, origin(endpoint.origin)));
    let key = key.map(|from| format!("set ({})", origin(from)));
    let unset = || "not set".to_owned();
    let text = format!(
        "file      {}\nendpoint  {}\nkey       {}\n",
        context.home.config().display(),
        endpoint.unwrap_or_else(unset),
        key.unwrap_or_else(unset)
    );
    output::text(context, &text)
}

fn key_origin(context: &Context) -> Result<Option<Origin>, Failure> {
    if variable(API_KEY).is_some() {
        return Ok(Some(Origin::Environment));
    }
    Ok(Settings::read(&context.home.config())?.key.map(|_| Origin::File))
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Flag => "from --endpoint",
        Origin::Environment => "from the environment",
        Origin::File => "from the file",
    }
}

fn set_endpoint(context: &Context, value: Option<String>) -> Result<(), Failure> {
    let value = value.ok_or_else(|| Failure::Usage("give the address: mycli config set endpoint https://…".into()))?;
    // Checks the address; nothing is sent.
    Remote::new(&value, &String::new().into())?;
    change(context, |settings| settings.endpoint = Some(value))
}

fn set_key(context: &Context) -> Result<(), Failure> {
    let line = read_key(context).map_err(Failure::io("read the key"))?;
    let key = ApiKey::parse(line.trim());
    let key = key.ok_or_else(|| {
        Failure::Key("that is no key: it begins with sk_live_ and has 64 hexadecimal digits after that".into())
    })?;
    change(context, |settings| settings.key = Some(key.expose().to_owned().into()))
}

fn unset(context: &Context, name: Name) -> Result<(), Failure> {
    change(context, |settings| match name {
        Name::Endpoint => settings.endpoint = None,
        Name::Key => settings.key = None,
    })
}

fn change(context: &Context, change: impl FnOnce(&mut Settings)) -> Result<(), Failure> {
    let path = context.home.config();
    let mut settings = Settings::read(&path)?;
    change(&mut settings);
    settings.write(&path)?;
    context.screen.say(&format!("wrote {}", path.display()));
    Ok(())
}

/// A line of standard input; typed on a terminal it is not shown.
fn read_key(context: &Context) -> io::Result<String> {
    let _silence = if io::stdin().is_terminal() {
        context.screen.say("type or paste the key (it is not shown), then Enter:");
        Some(Silence::begin()?)
    } else {
        None
    };
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line)
}

/// While it lives the terminal does not show what is typed.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // The terminal is gone if this fails.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
