//! `mycli`: the command line. Each command has its own file. All code above [`client`] is the same
//! for a stack and for this machine.

use std::{
    io::{self, Write as _},
    panic,
    process::ExitCode,
};

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{
    args::{Cli, Verb},
    config::context::Context,
    failure::Failure,
};

mod args;
mod client;
mod commands;
mod config;
mod exit;
mod failure;
mod local;
mod request;
mod runs;
mod terminal;
mod variables;

fn main() -> ExitCode {
    local::keep_inherited_files();
    let cli = Cli::parse();
    let code = cli.verb.failure_code();
    fail_as_a_whole(code);
    let context = Context::new(cli.global, cli.verb.example());
    let colored = context.screen.colors(&io::stderr());
    match context.global.verbose {
        true => trace("debug", colored),
        // Nobody watches a server's terminal. Its warnings are all that its operator sees.
        false if cli.verb.is_a_server() => trace("warn", colored),
        false => {}
    }
    match run(cli.verb, &context) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            context.screen.no_progress();
            context.screen.fail(&failure);
            ExitCode::from(failure.exit_code(code))
        }
    }
}

/// Makes a panic in any task end the whole process. Otherwise the other tasks would wait for that
/// task for ever. Ending is safe: another process takes over what was under way, as after any
/// sudden end.
fn fail_as_a_whole(code: u8) {
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |fault| {
        told(fault);
        // If standard error cannot be written, nothing else can be done.
        _ = writeln!(
            io::stderr(),
            "mycli: this is a fault of mycli itself. No run is lost: `mycli status` shows yours."
        );
        std::process::exit(code.into());
    }));
}

fn run(verb: Verb, context: &Context) -> Result<u8, Failure> {
    use tokio::runtime::Builder;
    let mut builder = if verb.is_busy() {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(Failure::io("start the runtime"))?;
    let ended = runtime.block_on(verb.run(context));
    // A thread may still be reading the terminal. We do not wait for it.
    runtime.shutdown_background();
    ended
}

/// Logs mycli's own crates and no libraries: libraries may log headers.
fn trace(level: &str, colored: bool) {
    let ours = ["mycli", "local", "pipeline", "domain"]
        .map(|name| format!("{name}={level}"))
        .join(",");
    let filter = EnvFilter::try_from_env(variables::LOG)
        .unwrap_or_else(|_| EnvFilter::new(format!("off,{ours}")));
    // These are off whatever `MYCLI_LOG` says. `bollard` and `hyper` would log a task's
    // environment, and so its secrets.
    let filter = ["bollard=off", "hyper=off"]
        .into_iter()
        .flat_map(str::parse)
        .fold(filter, EnvFilter::add_directive);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colored)
        .with_writer(io::stderr)
        .init();
}
