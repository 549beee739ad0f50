//! The built `mycli` against a stand-in of the API. These tests cover what the command line
//! promises by itself, whatever serves the API.

mod config;
mod exec;
mod follow;
mod help;
mod keys;
mod project;
mod read;
mod secrets;
mod stacks;
mod stand_in;
