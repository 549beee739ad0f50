//! Rules that hold for any input.

mod events;
mod request;
mod scheduler;
