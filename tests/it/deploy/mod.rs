//! `init`, `upgrade`, `destroy`, `doctor`, `secrets`, `dead-letters` and `forget` against the
//! emulator. The template is the real one; the functions do nothing. These tests check what the
//! commands promise about a stack, whatever runs in it.

mod doctor;
mod first_day;
mod forget;
mod indexes;
mod life;
mod permissions;
mod queues;
mod world;
