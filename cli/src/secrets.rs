//! `mycli secrets`: values that runs get by name. They go from standard input to where they are kept, and nowhere else.

use std::{fs, io, path::PathBuf};

use chrono::Utc;
use clap::{Args, Subcommand, ValueEnum};
use deploy::{secrets, stack::StackView};
use domain::{
    key::Role,
    request::{EnvError, SecretName},
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    context::Context,
    exit,
    failure::Failure,
    moment, output, settings,
    site::{AwsFlags, Site},
    typed,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli secrets set GIT_TOKEN                    asks for the value without showing it
  mycli secrets set GIT_SSH_KEY < ~/.ssh/deploy  for private repositories over SSH
  pass show npm | mycli secrets set NPM_TOKEN
  mycli secrets set PROD_TOKEN --role admin      only administrators' runs may name it
  mycli exec --secret NPM_TOKEN 'npm publish'    the command finds it in $NPM_TOKEN
  mycli secrets list
  mycli --local secrets set NPM_TOKEN            for this machine

A stack's values are SecureString parameters (AWS Systems Manager) that its tasks are
started with. GIT_TOKEN, GIT_SSH_KEY and GIT_KNOWN_HOSTS are used for cloning; commands
do not see them unless they ask.";

/// The command line of `secrets`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Secrets {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Set a secret to what is typed or on standard input
    #[command(after_help = EXAMPLES)]
    Set {
        /// Its name, which is also the variable that commands find it in
        name: String,
        /// A value is never given here, where other users could see it
        #[arg(hide = true)]
        value: Option<String>,
        /// The least role of a key whose runs may name it [default: submit]
        #[arg(long, value_enum)]
        role: Option<Least>,
        #[command(flatten)]
        aws: AwsFlags,
    },
    /// List the secrets, without their values
    #[command(after_help = EXAMPLES)]
    List {
        #[command(flatten)]
        aws: AwsFlags,
    },
    /// Forget a secret
    #[command(after_help = EXAMPLES)]
    Remove {
        /// Which
        name: String,
        #[command(flatten)]
        aws: AwsFlags,
    },
}

/// A role that may name a secret: one that only reads runs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Least {
    /// Everybody who may submit
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

/// One line of the list.
struct Listed {
    name: String,
    role: Option<Role>,
    set_at: Option<domain::Timestamp>,
}

impl Secrets {
    /// Runs it.
    ///
    /// # Errors
    /// Where the values are kept.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        if context.global.local {
            here(context, self.action)?;
        } else {
            there(context, self.action).await?;
        }
        Ok(exit::SUCCESS)
    }
}

/// A name. Not read by clap: its message would repeat `NAME=value`, and with it the value.
fn named(name: &str) -> Result<SecretName, Failure> {
    name.parse().map_err(|error: EnvError| Failure::Usage(error.to_string()))
}

/// See [`Action::Set`].
fn refuse_value(value: Option<&String>) -> Result<(), Failure> {
    let message = "a value on the command line can be seen by every user of this machine: leave it out and type it, or send it to \
                   standard input";
    if value.is_some() { Err(Failure::Usage(message.into())) } else { Ok(()) }
}

async fn opened(context: &Context, aws: &AwsFlags) -> Result<(Site, StackView, String), Failure> {
    let site = aws.open(context).await?;
    let (stack, path) = (site.stack().await?, site.name.secrets_path());
    Ok((site, stack, path))
}

async fn there(context: &Context, action: Action) -> Result<(), Failure> {
    match action {
        Action::Set { name, value: given, role, aws } => {
            let name = named(&name)?;
            refuse_value(given.as_ref())?;
            let (site, stack, path) = opened(context, &aws).await?;
            let value = value(context, &name)?;
            let role = role.map_or(Role::Submit, Role::from);
            secrets::set(&site.account, &stack, path, &name, role, &value).await?;
            context.screen.say(&format!("set {name} in {}", site.name.full()));
        }
        Action::List { aws } => {
            let (site, stack, path) = opened(context, &aws).await?;
            let kept = secrets::list(&site.account, &stack, path).await?;
            let lacking: Vec<_> = kept.without_value();
            if !lacking.is_empty() {
                context.screen.say(&format!("these have no value any more: {}", lacking.join(", ")));
            }
            for unreadable in &kept.unreadable {
                context.screen.say(&format!("{unreadable}. `mycli secrets set` sets it anew"));
            }
            let listed =
                kept.records.into_iter().map(|one| Listed { name: one.name, role: Some(one.role), set_at: one.set_at });
            show(context, &listed.collect::<Vec<_>>())?;
        }
        Action::Remove { name, aws } => {
            let name = named(&name)?;
            let (site, stack, path) = opened(context, &aws).await?;
            if !secrets::remove(&site.account, &stack, path, &name).await? {
                return Err(Failure::Nothing(format!("there is no secret {name}")));
            }
            context.screen.say(&format!("removed {name} from {}", site.name.full()));
        }
    }
    Ok(())
}

fn value(context: &Context, name: &SecretName) -> Result<SecretString, Failure> {
    let value =
        typed::secret_value(context, &format!("type or paste the value of {name} (it is not shown), then Enter:"))?;
    if value.expose_secret().is_empty() {
        return Err(Failure::Nothing("the value is empty: nothing was set".into()));
    }
    Ok(value)
}

/// This machine's secrets are files that only their owner can read.
fn here(context: &Context, action: Action) -> Result<(), Failure> {
    let folder = context.home.local()?.join("secrets");
    match action {
        Action::Set { role: Some(_), .. } => {
            Err(Failure::Usage("--role is for a stack: on this machine every run is yours".into()))
        }
        Action::Set { name, value: given, role: None, .. } => {
            let name = named(&name)?;
            refuse_value(given.as_ref())?;
            let (value, path) = (value(context, &name)?, folder.join(name.as_str()));
            // Whoever reads it takes one line end off, so that a file that was made by hand may have one.
            let text = format!("{}\n", value.expose_secret());
            settings::write_private(&path, text.as_bytes()).map_err(|error| Failure::File { path, error })?;
            context.screen.say(&format!("set {name} on this machine"));
            Ok(())
        }
        Action::List { .. } => show(context, &files(&folder).map_err(|error| Failure::File { path: folder, error })?),
        Action::Remove { name, .. } => {
            let path = folder.join(named(&name)?.as_str());
            match fs::remove_file(&path) {
                Ok(()) => context.screen.say(&format!("removed {name} from this machine")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Failure::Nothing(format!("there is no secret {name}")));
                }
                Err(error) => return Err(Failure::File { path, error }),
            }
            Ok(())
        }
    }
}

fn files(folder: &PathBuf) -> io::Result<Vec<Listed>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut listed = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<SecretName>().is_ok() {
            let set_at = entry.metadata()?.modified()?.into();
            listed.push(Listed { name, role: None, set_at: Some(set_at) });
        }
    }
    listed.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(listed)
}

fn show(context: &Context, listed: &[Listed]) -> Result<(), Failure> {
    if context.is_json() {
        let one = |one: &Listed| serde_json::json!({"name": one.name, "role": one.role, "set_at": one.set_at.map(moment::exact)});
        let secrets: Vec<_> = listed.iter().map(one).collect();
        return output::text(context, &format!("{}\n", serde_json::json!({ "secrets": secrets })));
    }
    if listed.is_empty() {
        context.screen.say("no secrets");
        return Ok(());
    }
    let row = |one: &Listed| {
        let role = one.role.map(|role| format!("{role:?}").to_lowercase()).unwrap_or_default();
        let age = one.set_at.map(|at| moment::short(Utc::now() - at)).unwrap_or_default();
        format!("{:<32}  {role:<6}  {age:>4}\n", one.name)
    };
    let head = format!("{:<32}  {:<6}  {:>4}\n", "NAME", "ROLE", "AGE");
    output::text(context, &std::iter::once(head).chain(listed.iter().map(row)).collect::<String>())
}
