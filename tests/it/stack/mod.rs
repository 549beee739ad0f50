//! The whole on an emulator of AWS: `mycli init` deploys the template as it stands with the
//! functions as they are built, tasks are containers, and a user drives it through the REST API.
//!
//! The emulator sends no events of ECS: `world` looks at the tasks and invokes the state tracker in
//! EventBridge's stead.

mod container_announcement;
mod container_bulk;
mod container_dead_letters;
mod container_definitions;
mod container_life;
mod container_logs;
mod container_roles;
mod container_runs;
mod container_secrecy;
mod container_soak;
mod container_spot;

use tests::world;
