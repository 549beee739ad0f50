//! `mycli`: the command line. Each command has its own file. All code above [`client`] is the same
//! for a stack and for this machine.

use std::{
    io::{self, Write as _},
    panic,
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _};
use tracing_subscriber::filter::LevelFilter;

use crate::{
    args::{Cli, Verb},
    config::context::Context,
    failure::Failure,
    terminal::log::{self, LogForm},
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
    commands::completions::answer_the_shell(Cli::command);
    local::keep_inherited_files();
    let cli = Cli::parse();
    let code = cli.verb.failure_code();
    let level = cli.verb.log_level();
    let form = LogForm::of(level);
    if form == LogForm::Json {
        log::tell_panics();
    }
    fail_as_a_whole(code, form);
    let context = Context::new(cli.global, cli.verb.example(), form);
    let level = if context.global.verbose {
        LevelFilter::DEBUG
    } else {
        level
    };
    if level != LevelFilter::OFF {
        log::begin(form, level, context.screen.colors(&io::stderr()));
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
fn fail_as_a_whole(code: u8, form: LogForm) {
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |fault| {
        told(fault);
        if form == LogForm::Text {
            // If standard error cannot be written, nothing else can be done.
            _ = writeln!(
                io::stderr(),
                "mycli: this is a fault of mycli itself. No run is lost: `mycli status` shows yours."
            );
        }
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
