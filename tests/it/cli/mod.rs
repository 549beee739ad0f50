//! The built `mycli` against a stand-in of the API: what the command line promises by itself, whatever serves the API.

mod config;
mod exec;
mod follow;
mod help;
mod project;
mod read;
mod stand_in;
