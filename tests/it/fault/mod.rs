//! `kill -9` at any moment on one machine: nothing is lost, started twice or left behind.

mod docker;
mod http;
mod limits;
mod pairs;
mod points;
mod random;
mod stories;
mod surroundings;
mod world;
