//! `mycli secrets`: values that runs get by name. A value goes from standard input to its store,
//! and nowhere else.

use std::{fmt::Display, fs, io, path::Path};

use chrono::Utc;
use clap::{Args, Subcommand, ValueEnum};
use deploy::{
    secrets::{self, Uses},
    stack::StackView,
};
use domain::{
    git::{self, GitHost, GitHostError},
    key::Role,
    request::{EnvError, SecretName},
    secret::{SecretRecord, readable_value},
};
use local::secrets::SecretFiles as Files;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    config::{
        context::Context,
        settings,
        target::{AwsFlags, Target},
    },
    exit,
    failure::Failure,
    terminal::{moment, output, prompt},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli secrets set GIT_TOKEN                    asks for the value without showing it
  mycli secrets set GIT_TOKEN --host git.example.com
                                                 for that host only
  mycli secrets set GIT_SSH_KEY < ~/.ssh/deploy  for private repositories over SSH
  pass show npm | mycli secrets set NPM_TOKEN
  mycli secrets set PROD_TOKEN --role admin      only administrators' runs may name it
  mycli exec --secret NPM_TOKEN 'npm publish'    the command finds it in $NPM_TOKEN
  mycli secrets list
  mycli --local secrets set NPM_TOKEN            for this machine

A stack keeps values as SecureString parameters (AWS Systems Manager), and gives them to
its tasks at their start. GIT_TOKEN, GIT_SSH_KEY and GIT_KNOWN_HOSTS are used for cloning;
a command sees them only if its run names them with --secret. GIT_TOKEN and GIT_SSH_KEY
are for github.com and gitlab.com unless --host names others: a repository on another host
is cloned without them, and the run's log says so. A new value keeps the hosts and the role
that the secret has.

A value is UTF-8 text, and may have several lines. One line end after it is removed. The
limit is 4096 bytes in a stack; on this machine NAME=value may have 131,071 bytes.";

/// The command line of `secrets`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SecretsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Set a secret to the value that you type or send to standard input
    #[command(after_help = EXAMPLES)]
    Set {
        /// The secret's name, which is also the name of the variable in the command
        name: String,
        /// Never give the value here, because other users could see it
        #[arg(hide = true)]
        value: Option<String>,
        /// The lowest role of a key whose runs may use it, by name or for cloning [default: submit]
        #[arg(long, value_enum)]
        role: Option<Least>,
        /// A host that GIT_TOKEN or GIT_SSH_KEY is for, with a port or for all of its ports; may be
        /// repeated [default: github.com and gitlab.com]
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        #[command(flatten)]
        aws: AwsFlags,
    },
    /// List the secrets, without their values
    #[command(after_help = EXAMPLES)]
    List {
        #[command(flatten)]
        aws: AwsFlags,
    },
    /// Remove a secret
    #[command(after_help = EXAMPLES)]
    Remove {
        /// The secret's name
        name: String,
        #[command(flatten)]
        aws: AwsFlags,
    },
}

/// A role that may name a secret: one that only reads runs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Least {
    /// Everybody who may submit runs
    Submit,
    /// Administrators
    Admin,
}

impl From<Least> for Role {
    fn from(least: Least) -> Self {
        match least {
            Least::Submit => Self::Submit,
            Least::Admin => Self::Admin,
        }
    }
}

impl SecretsArgs {
    /// Runs `mycli secrets` and returns the exit code.
    ///
    /// # Errors
    /// A value was refused, or the store of the values cannot be used.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        if context.global.local {
            here(context, self.action)?;
        } else {
            there(context, self.action).await?;
        }
        Ok(exit::SUCCESS)
    }
}

/// Parses a secret's name. Clap does not do it: its message would repeat `NAME=value`, and so the
/// value.
fn named(name: &str) -> Result<SecretName, Failure> {
    name.parse()
        .map_err(|error: EnvError| Failure::Usage(error.to_string()))
}

/// Parses the hosts given for a secret.
fn hosts(name: &SecretName, hosts: &[String]) -> Result<Vec<GitHost>, Failure> {
    if !hosts.is_empty() && !git::has_hosts(name.as_str()) {
        let message = format!(
            "--host is for {} and {}: {name} is not used for cloning",
            git::GIT_TOKEN,
            git::GIT_SSH_KEY
        );
        return Err(Failure::Usage(message));
    }
    let read = |host: &String| {
        host.parse()
            .map_err(|error: GitHostError| Failure::Usage(format!("--host: {error}")))
    };
    hosts.iter().map(read).collect()
}

/// The hosts that a git credential is for, in words.
fn for_hosts(record: &SecretRecord) -> String {
    match record.git_hosts() {
        hosts if hosts.is_empty() => String::new(),
        hosts => format!(", for {}", joined(&hosts)),
    }
}

fn joined(hosts: &[GitHost]) -> String {
    hosts
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Refuses a value on the command line; see [`Action::Set`].
fn refuse_value(value: Option<&String>) -> Result<(), Failure> {
    let message = "a value on the command line can be seen by every user of this machine: leave it out and type it, or send it to \
                   standard input";
    if value.is_some() {
        Err(Failure::Usage(message.into()))
    } else {
        Ok(())
    }
}

async fn opened(context: &Context, aws: &AwsFlags) -> Result<(Target, StackView, String), Failure> {
    let target = aws.open(context).await?;
    let (stack, path) = (target.stack().await?, target.name.secrets_path());
    Ok((target, stack, path))
}

async fn there(context: &Context, action: Action) -> Result<(), Failure> {
    match action {
        Action::Set {
            name,
            value: given,
            role,
            hosts: for_hosts_named,
            aws,
        } => {
            let name = named(&name)?;
            refuse_value(given.as_ref())?;
            let uses = Uses {
                role: role.map(Role::from),
                hosts: hosts(&name, &for_hosts_named)?,
            };
            let (target, stack, path) = opened(context, &aws).await?;
            let value = value(context, &name)?;
            secrets::check(&name, &value).map_err(|error| unset(&name, &error))?;
            let record = secrets::set(&target.account, &stack, path, &name, uses, &value).await?;
            context.screen.say(&format!(
                "set {name} in {}{}",
                target.name.full(),
                for_hosts(&record)
            ));
        }
        Action::List { aws } => {
            let (target, stack, path) = opened(context, &aws).await?;
            let kept = secrets::list(&target.account, &stack, path).await?;
            let lacking: Vec<_> = kept.without_value();
            if !lacking.is_empty() {
                context.screen.say(&format!(
                    "these have no value any more: {}",
                    lacking.join(", ")
                ));
            }
            for unreadable in &kept.unreadable {
                context
                    .screen
                    .say(&format!("{unreadable}. Set it with `mycli secrets set`"));
            }
            show(context, &kept.records, Roles::Shown)?;
        }
        Action::Remove { name, aws } => {
            let name = named(&name)?;
            let (target, stack, path) = opened(context, &aws).await?;
            if !secrets::remove(&target.account, &stack, path, &name).await? {
                return Err(Failure::Nothing(format!("there is no secret {name}")));
            }
            context
                .screen
                .say(&format!("removed {name} from {}", target.name.full()));
        }
    }
    Ok(())
}

/// Reads the value for a secret. A value that no task could be started with is refused here.
/// Otherwise each run that names the secret would fail.
fn value(context: &Context, name: &SecretName) -> Result<SecretString, Failure> {
    let bytes = prompt::secret_value(
        context,
        &format!("type or paste the value of {name} (it is not shown), then Enter:"),
    )?;
    if bytes.is_empty() {
        return Err(Failure::Nothing(
            "the value is empty: nothing was set".into(),
        ));
    }
    let value = readable_value(name.as_str(), bytes);
    value
        .map(SecretString::from)
        .map_err(|error| unset(name, &error))
}

/// The error for a value that was refused. It holds no part of the value.
fn unset(name: &SecretName, error: &impl Display) -> Failure {
    Failure::Usage(format!("{name}: {error}. Nothing was set"))
}

/// Manages this machine's secrets, which are files that only their owner can read.
fn here(context: &Context, action: Action) -> Result<(), Failure> {
    let files = Files::new(context.home.local()?.join("secrets"));
    match action {
        Action::Set { role: Some(_), .. } => Err(Failure::Usage(
            "--role is for a stack: on this machine every run is yours".into(),
        )),
        Action::Set {
            name,
            value: given,
            role: None,
            hosts: for_hosts_named,
            ..
        } => {
            let name = named(&name)?;
            refuse_value(given.as_ref())?;
            let named_hosts = hosts(&name, &for_hosts_named)?;
            let value = value(context, &name)?;
            // The hosts are written first, as in a stack. So the new value is never used for hosts
            // that only the old one was for.
            if !named_hosts.is_empty() {
                let lines: String = named_hosts.iter().map(|host| format!("{host}\n")).collect();
                write(&files.hosts_path(name.as_str()), &lines)?;
            }
            // Reading removes one line end, so that a file made by hand may end with one. So we
            // write one.
            write(
                &files.path(name.as_str()),
                &format!("{}\n", value.expose_secret()),
            )?;
            let hosts_path = files.hosts_path(name.as_str());
            let kept = files
                .hosts(name.as_str())
                .map_err(|error| Failure::file(&hosts_path, &error))?;
            let record = SecretRecord {
                name: name.to_string(),
                role: Role::Submit,
                set_at: None,
                hosts: kept,
            };
            context
                .screen
                .say(&format!("set {name} on this machine{}", for_hosts(&record)));
            Ok(())
        }
        Action::List { .. } => {
            let path = files.path("");
            show(
                context,
                &files.list().map_err(|error| Failure::file(&path, &error))?,
                Roles::Hidden,
            )
        }
        Action::Remove { name, .. } => {
            let name = named(&name)?;
            remove(&files.hosts_path(name.as_str()))?;
            if !remove(&files.path(name.as_str()))? {
                return Err(Failure::Nothing(format!("there is no secret {name}")));
            }
            context
                .screen
                .say(&format!("removed {name} from this machine"));
            Ok(())
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    settings::write_private(path, text.as_bytes()).map_err(|error| Failure::file(path, &error))
}

/// Removes a file, and returns whether it existed.
fn remove(path: &Path) -> Result<bool, Failure> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::file(path, &error)),
    }
}

/// Whether a list shows the roles that may use a secret. On one machine every run is its owner's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Roles {
    Shown,
    Hidden,
}

fn show(context: &Context, listed: &[SecretRecord], roles: Roles) -> Result<(), Failure> {
    let role_of = |one: &SecretRecord| (roles == Roles::Shown).then_some(one.role);
    if context.is_json() {
        let one = |one: &SecretRecord| {
            let set_at = one.set_at.map(moment::exact);
            serde_json::json!({"name": one.name, "role": role_of(one), "set_at": set_at, "hosts": one.git_hosts()})
        };
        let secrets: Vec<_> = listed.iter().map(one).collect();
        return output::text(
            context,
            &format!("{}\n", serde_json::json!({ "secrets": secrets })),
        );
    }
    if listed.is_empty() {
        context.screen.say("no secrets");
        return Ok(());
    }
    let row = |one: &SecretRecord| {
        let role = role_of(one)
            .map(|role| role.to_string())
            .unwrap_or_default();
        let age = one
            .set_at
            .map(|at| moment::short(Utc::now() - at))
            .unwrap_or_default();
        let line = format!(
            "{:<32}  {role:<6}  {age:>4}  {}",
            one.name,
            joined(&one.git_hosts())
        );
        format!("{}\n", line.trim_end())
    };
    let head = format!(
        "{:<32}  {:<6}  {:>4}  {}\n",
        "NAME", "ROLE", "AGE", "FOR HOSTS"
    );
    output::text(
        context,
        &std::iter::once(head)
            .chain(listed.iter().map(row))
            .collect::<String>(),
    )
}
