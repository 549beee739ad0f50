//! The whole system on an emulator of AWS. `mycli init` deploys the real template and the real
//! functions, tasks are containers, and a user drives it through the REST API.
//!
//! The emulator sends no events of ECS. Instead of EventBridge, `world` watches the tasks and
//! invokes the state tracker.

mod container_announcement;
mod container_artifacts;
mod container_bulk;
mod container_dead_letters;
mod container_definitions;
mod container_images;
mod container_life;
mod container_logs;
mod container_requests;
mod container_roles;
mod container_runs;
mod container_secrecy;
mod container_soak;
mod container_spot;

use tests::world;
