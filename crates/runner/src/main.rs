//! `mycli-runner`: the program inside a task.

use std::{
    io::{self, Read as _},
    process::ExitCode,
};

use runner::{
    fetch::{self, check_out},
    order::{FetchOrder, FetchOutcome},
    platform, run,
};

/// The subcommands for people.
const USAGE: &str = "usage: mycli-runner fetch | run | --version";
/// The exit status of a keeper that got no order, or could not begin.
const EXIT_NO_ORDER: u8 = 125;

fn main() -> ExitCode {
    // Orders hold credentials. From the first moment on, no other process of this user reads them.
    if let Err(error) = platform::hide() {
        tell(&format!("mycli: {error}"));
        return ExitCode::from(EXIT_NO_ORDER);
    }
    let subcommand = std::env::args().nth(1).unwrap_or_default();
    let done = match subcommand.as_str() {
        "fetch" => fetch_here(),
        fetch::CHILD => platform::die_with_parent()
            .and_then(|()| read_order())
            .and_then(|order| fetch::fetch_once(&order)),
        "run" => match run_here() {
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

/// Runs the command of the order on stdin. Without an order nothing is run: the process that would
/// have sent it has died before it knew of this one.
fn run_here() -> io::Result<ExitCode> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    let Ok(order) = serde_json::from_slice(&text) else {
        return Ok(ExitCode::from(EXIT_NO_ORDER));
    };
    let status = run::run(order)?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)))
}

#[expect(clippy::print_stderr, reason = "a program's messages")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// Reads an order from stdin: it holds credentials, which arguments and variables would show.
fn read_order() -> io::Result<FetchOrder> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    // The error may quote the order.
    serde_json::from_slice(&text).map_err(|_| io::Error::other("stdin holds no order to fetch"))
}

/// Fetches and checks out as the order on stdin says. Notes go to stderr, and what became of it to
/// stdout.
fn fetch_here() -> io::Result<()> {
    platform::die_with_parent()?;
    let order = read_order()?;
    let fetched = fetch::fetch_in_child(&order, &mut io::stderr());
    let done = fetched.and_then(|fetched| check_out(&order.into).map(|_| fetched));
    let outcome = match done {
        Ok(fetched) => FetchOutcome::Done(fetched),
        Err(fault) => FetchOutcome::Failed(fault),
    };
    serde_json::to_writer(io::stdout(), &outcome)?;
    Ok(())
}
