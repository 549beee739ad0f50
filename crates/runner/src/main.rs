//! `mycli-runner`: the program inside a task.

use std::{
    io::{self, Read as _},
    path::PathBuf,
    process::ExitCode,
};

use domain::request::{Place, RepoUrl};
use runner::{
    artifacts, attempt_api,
    fetch::{self, check_out},
    hand_over, install,
    order::{
        AttemptAccess, CheckOutOrder, FetchFault, FetchOrder, FetchOutcome, FetchedCommit,
        GitProgram, KeepOrder, RunOrder, TaskVariables, place,
    },
    parent, platform, run,
};
use serde::de::DeserializeOwned;

/// The subcommands.
const USAGE: &str = "usage: mycli-runner init FOLDER [WORKSPACE] | fetch-for-main WORKSPACE [--git=system] | \
                     fetch | upload | run [-] | --version";
/// The argument by which real git fetches, instead of our library.
const BY_GIT: &str = "--git=system";
/// The argument by which an order comes on stdin.
const BY_STDIN: &str = "-";
/// Room for the usual order, so that it is read at once.
const ORDER_BYTES: usize = 8192;
/// The exit status of a keeper that got no order, or could not begin.
const EXIT_NO_ORDER: u8 = 125;

fn main() -> ExitCode {
    // Orders hold credentials. From the first moment on, no other process of this user reads them.
    if let Err(error) = platform::hide() {
        tell(&format!("mycli: {error}"));
        return ExitCode::from(EXIT_NO_ORDER);
    }
    let argument = |at: usize| std::env::args_os().nth(at);
    let subcommand = argument(1).unwrap_or_default();
    let done = match subcommand.to_str().unwrap_or_default() {
        "init" => init(
            argument(2).map(PathBuf::from),
            argument(3).map(PathBuf::from),
        ),
        "fetch-for-main" => match fetch_for_main(
            argument(2).map(PathBuf::from),
            argument(3).is_some_and(|git| git == BY_GIT),
        ) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        "await-fetch" => answer(|order| hand_over::await_fetch(&order)),
        "fetch" => answer(|order| fetch::fetch_in_child(&order, &mut io::stderr())),
        "check-out" => answer(|order: CheckOutOrder| {
            check_out(order.from.as_deref(), &order.into).map(|id| FetchedCommit {
                commit: id.to_string(),
            })
        }),
        "get-request" => read_order().and_then(|access: AttemptAccess| {
            parent::end_with_it();
            let answer = attempt_api::get_request(&access);
            Ok(serde_json::to_writer(io::stdout(), &answer)?)
        }),
        "upload" => {
            parent::end_with_it();
            read_order().and_then(|order: KeepOrder| artifacts::upload(&order, &mut io::stdout()))
        }
        fetch::CHILD => platform::die_with_parent()
            .and_then(|()| read_order())
            .and_then(|order: FetchOrder| fetch::fetch_once(&order)),
        "run" => match run_here(argument(2).is_some_and(|by| by == BY_STDIN)) {
            Ok(status) => return status,
            Err(error) => {
                tell(&format!("mycli: {error}"));
                return ExitCode::from(EXIT_NO_ORDER);
            }
        },
        fetch::CREDENTIAL => fetch::credential_helper(&std::env::args().nth(2).unwrap_or_default()),
        "--version" => {
            tell(concat!("mycli-runner ", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        _ => Err(io::Error::other(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("mycli: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program's messages")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// Puts this program where other containers of the task find it, and makes a folder that all of
/// their users may write to.
fn init(folder: Option<PathBuf>, workspace: Option<PathBuf>) -> io::Result<()> {
    let folder = folder.ok_or_else(|| io::Error::other(USAGE))?;
    install::program(&folder)?;
    workspace.map_or(Ok(()), |workspace| install::workspace(&workspace))
}

/// Fetches the repository that this process's variables name, for another container. Returns
/// whether it is there.
fn fetch_for_main(workspace: Option<PathBuf>, by_git: bool) -> io::Result<bool> {
    let workspace = workspace.ok_or_else(|| io::Error::other(USAGE))?;
    let mut task = TaskVariables::of_this_process(Vec::new());
    let repo = task.repo.take().unwrap_or_default();
    let repo = RepoUrl::parse(&repo, Place::Aws).map_err(io::Error::other)?;
    let into = workspace.join(place::HANDED_OVER).join(place::FETCHED);
    let order = FetchOrder {
        git: match by_git {
            true => GitProgram::System,
            false => GitProgram::Library,
        },
        ..task.fetch_order(repo, into)
    };
    hand_over::fetch_for_main(&order, &workspace)
}

/// Runs the command of an order: the one on stdin, or the one that this process's variables are.
/// Without an order nothing is run: the process that would have sent it has died before it knew of
/// this one.
fn run_here(is_by_stdin: bool) -> io::Result<ExitCode> {
    let order = match is_by_stdin {
        true => read_order().ok(),
        false => Some(RunOrder::of_this_process(Vec::new())),
    };
    let Some(order) = order else {
        return Ok(ExitCode::from(EXIT_NO_ORDER));
    };
    let status = run::run(order)?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)))
}

/// Reads an order from stdin: it holds credentials, which arguments and variables would show.
fn read_order<T: DeserializeOwned>() -> io::Result<T> {
    let mut text = Vec::with_capacity(ORDER_BYTES);
    io::stdin().read_to_end(&mut text)?;
    // The error may quote the order.
    serde_json::from_slice(&text).map_err(|_| io::Error::other("stdin holds no order"))
}

/// Carries out the order on stdin. Notes go to stderr, and what became of it to stdout.
fn answer<T: DeserializeOwned>(
    work: impl FnOnce(T) -> Result<FetchedCommit, FetchFault>,
) -> io::Result<()> {
    parent::end_with_it();
    let outcome = match work(read_order()?) {
        Ok(fetched) => FetchOutcome::Done(fetched),
        Err(fault) => FetchOutcome::Failed(fault),
    };
    serde_json::to_writer(io::stdout(), &outcome)?;
    Ok(())
}
