//! `mycli local …`: this machine's API server, and the upkeep of its history.

use std::{
    fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use chrono::TimeDelta;
use clap::{Args, Subcommand};
use domain::key::ApiKey;
use tracing_subscriber::filter::LevelFilter;

use crate::{
    config::{
        context::{Context, local_options},
        machine::MachineFlags,
        settings,
    },
    exit,
    failure::Failure,
    local,
    terminal::{interrupt::Interrupts, moment, output},
    variables::{API_KEY, ENDPOINT, variable},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli local serve                                  the API on this machine, for many users of it
  mycli local serve --listen 127.0.0.1:0 -o json     on a free port, printed on standard output
  mycli local serve --vcpus 4 --launch-rate 20       try out how runs wait under quotas
  mycli local prune --older-than 7d

The administrator's key is MYCLI_API_KEY if that is set when the server starts. If not, the server
makes one and keeps it in serve.key.";

/// The command line of `local`.
#[derive(Args, Clone, Debug)]
pub(crate) struct OneMachine {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Serve the API on a loopback address until SIGINT or SIGTERM
    #[command(after_help = EXAMPLES)]
    Serve(Serve),
    /// Remove finished runs and their logs
    #[command(after_help = EXAMPLES)]
    Prune(Prune),
    /// Finish unfinished runs, then exit (started by mycli itself)
    #[command(hide = true)]
    Supervise(MachineAddress),
}

#[derive(Args, Clone, Debug)]
struct MachineAddress {
    /// Folder of the history [default: ~/.mycli/local]
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineFlags,
}

#[derive(Args, Clone, Debug)]
struct Serve {
    /// Address to listen on; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 7427)))]
    listen: SocketAddr,
    /// How many vCPUs runs may use at once [default: this machine's]
    #[arg(long, value_name = "N", value_parser = above_zero)]
    vcpus: Option<f64>,
    /// How many runs may start per second [default: no limit]
    #[arg(long, value_name = "N", value_parser = above_zero)]
    launch_rate: Option<f64>,
    #[command(flatten)]
    place: MachineAddress,
}

#[derive(Args, Clone, Debug)]
struct Prune {
    /// Only runs that ended at least this long ago
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = moment::span)]
    older_than: TimeDelta,
    /// Folder of the history [default: ~/.mycli/local]
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl OneMachine {
    /// Whether it executes runs, for which one thread is too few.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.action, Action::Serve(_) | Action::Supervise(_))
    }

    /// The level from which it logs without being asked to. Nobody watches a server's terminal, so
    /// its log says who asked for what, and what became of it. A supervisor's says what goes wrong.
    pub(crate) fn log_level(&self) -> LevelFilter {
        match self.action {
            Action::Serve(_) => LevelFilter::INFO,
            Action::Supervise(_) => LevelFilter::WARN,
            Action::Prune(_) => LevelFilter::OFF,
        }
    }

    /// Runs `mycli local` and returns the exit code.
    ///
    /// # Errors
    /// The store's errors and the server's.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.action {
            Action::Serve(serve) => serve.run(context).await,
            Action::Prune(prune) => prune.run(context).await,
            Action::Supervise(place) => {
                local::supervise(place.options(context)?)
                    .await
                    .map_err(failed)?;
                Ok(exit::SUCCESS)
            }
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::other(error)
}

impl MachineAddress {
    fn options(&self, context: &Context) -> Result<local::Options, Failure> {
        let dir = self.dir.clone().map_or_else(|| context.home.local(), Ok)?;
        Ok(local_options(dir, self.machine))
    }
}

impl Serve {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        // The server speaks plain HTTP. Anyone who reads the key on a network could run commands as
        // this user.
        if !self.listen.ip().is_loopback() {
            let message = format!(
                "{} is not a loopback address: the server is for this machine alone",
                self.listen.ip()
            );
            return Err(Failure::Usage(message));
        }
        let options = self.place.options(context)?;
        let limits = local::Limits {
            vcpus: self.vcpus,
            launch_rate: self.launch_rate,
        };
        let options = local::Options {
            bounds: local::Bounds::Own(limits),
            ..options
        };
        let (key, file) = key(&options.dir)?;
        let mut interrupts = Interrupts::catch().map_err(Failure::io("catch signals"))?;
        let bound = |address| announce(context, address, file.as_deref());
        let ended = async move { interrupts.any().await };
        if local::serve(options, self.listen, &key, bound, ended)
            .await
            .map_err(failed)?
        {
            let how = if self.place.dir.is_none() {
                "; `mycli --local history` shows them"
            } else {
                ""
            };
            context.screen.say(&format!(
                "some runs are not over: a supervisor process goes on with them{how}"
            ));
        }
        Ok(exit::SUCCESS)
    }
}

/// Says where the server is and how to get its key. The key itself is never printed.
fn announce(context: &Context, address: SocketAddr, key_file: Option<&Path>) {
    let endpoint = format!("http://{address}");
    if context.screen.logs_json() {
        let key_file = key_file.map(|path| tracing::field::display(path.display()));
        tracing::info!(endpoint, key_file, "serving");
    }
    if context.is_json() {
        let line = serde_json::json!({"endpoint": endpoint, "key_file": key_file});
        // A reader that has gone away does not end the server.
        drop(output::text(context, &format!("{line}\n")));
        return;
    }
    if context.screen.logs_json() {
        return;
    }
    context.screen.say(&format!(
        "serving on {endpoint} until Ctrl-C. To use it, in another shell:"
    ));
    let key = key_file.map(|path| format!("  export {API_KEY}=\"$(cat {})\"\n", quoted(path)));
    let key = key
        .unwrap_or_else(|| format!("  export {API_KEY}=…      the key that it was started with\n"));
    // A failure to write to standard error is ignored.
    drop(
        io::stderr()
            .lock()
            .write_all(format!("  export {ENDPOINT}={endpoint}\n{key}").as_bytes()),
    );
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    // The least rate is one start in nearly three hours. Slower rates would lead to start times
    // beyond what a clock can hold, and nobody needs them.
    (number >= 0.0001 && number.is_finite())
        .then_some(number)
        .ok_or_else(|| "must be 0.0001 or more".to_owned())
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    shlex::try_quote(&text).map_or_else(|_| text.clone(), std::borrow::Cow::into_owned)
}

/// The administrator's key: the environment's, else the one in `serve.key`, which is made the first
/// time.
fn key(folder: &Path) -> Result<(ApiKey, Option<PathBuf>), Failure> {
    if let Some(text) = variable(API_KEY)? {
        let wrong = || {
            Failure::Other(format!(
                "{API_KEY} does not hold a key: a key is sk_live_ and 64 hexadecimal digits"
            ))
        };
        return Ok((ApiKey::parse(text.trim()).ok_or_else(wrong)?, None));
    }
    let path = folder.join("serve.key");
    let failed = |error: io::Error| Failure::file(&path, &error);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let wrong = || {
                Failure::Other(format!(
                    "{} does not hold a key: remove the file, and the server makes a new one",
                    path.display()
                ))
            };
            Ok((
                ApiKey::parse(text.trim()).ok_or_else(wrong)?,
                Some(path.clone()),
            ))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = new_key()?;
            settings::write_private(&path, format!("{}\n", key.expose()).as_bytes())
                .map_err(failed)?;
            Ok((key, Some(path.clone())))
        }
        Err(error) => Err(failed(error)),
    }
}

fn new_key() -> Result<ApiKey, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Other(format!("failed to get random bytes: {error}")))?;
    Ok(ApiKey::from_entropy(bytes))
}

impl Prune {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let place = MachineAddress {
            dir: self.dir,
            machine: MachineFlags::default(),
        };
        let local::Upkeep {
            executions,
            remains,
        } = local::prune(place.options(context)?, self.older_than)
            .await
            .map_err(failed)?;
        if context.is_json() {
            let upkeep = serde_json::json!({"executions": executions, "remains": remains});
            output::text(context, &format!("{upkeep}\n"))?;
        } else {
            context
                .screen
                .say(&format!("removed {executions} runs with their logs"));
            remains.iter().for_each(|words| context.screen.say(words));
        }
        Ok(exit::SUCCESS)
    }
}
