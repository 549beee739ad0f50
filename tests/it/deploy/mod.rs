//! `init`, `upgrade`, `destroy`, `doctor`, `secrets`, `dead-letters` and `forget` against the
//! emulator, with the template as it stands and functions that do nothing: what these commands
//! promise of a stack, whatever runs in it.

mod doctor;
mod first_day;
mod forget;
mod indexes;
mod life;
mod permissions;
mod queues;
mod world;
