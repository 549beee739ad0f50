//! The tests, as one program.

mod contract;
