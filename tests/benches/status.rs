//! A request to the API: what the command line adds to the request itself.

use std::process::Command;

use tokio::runtime::Builder;

use crate::{
    programs::{self, Programs},
    sample,
    server::{KEY, Server},
};

/// How often each command is run.
const ROUNDS: usize = 80;

/// Compares `mycli status` with curl on the same endpoint and path.
pub(crate) fn compare() -> String {
    programs::require(&["curl"]);
    let programs = Programs::find();
    let server = Server::start(&programs, 1);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let id = runtime.block_on(server.submit("true"));
    let mycli = || {
        let mut command = Command::new(&programs.mycli);
        command.args(["status", &id, "--endpoint", &server.endpoint]);
        sample::time(
            command
                .env("MYCLI_HOME", server.home())
                .env("MYCLI_API_KEY", KEY),
        )
    };
    let curl = || {
        let (header, url) = (
            format!("Authorization: Bearer {KEY}"),
            format!("{}/executions/{id}", server.endpoint),
        );
        sample::time(Command::new("curl").args(["--silent", "--fail", "--header", &header, &url]))
    };
    let (ours, theirs) = sample::in_turns(ROUNDS, mycli, curl);
    format!(
        "## A question\n\n\
         {ROUNDS} of each, in turns, to one `mycli local serve`.\n\n\
         | command | median | range |\n|---|---|---|\n\
         | `mycli status ID` | {} |\n\
         | `curl` | {} |\n\n\
         **{:.2} ×** (aim: at most 1.3 ×).\n",
        ours.cells(),
        theirs.cells(),
        ours.median_millis() / theirs.median_millis(),
    )
}
