//! Rules that hold for any input.

mod request;
