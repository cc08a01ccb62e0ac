//! Connections: listeners, frames, requests and responses, and the memory budget that bounds them.

mod connection;
pub mod connections;
mod dispatch;
pub mod listener;
pub mod memory;
mod read_buffer;
pub mod request;
mod response;
pub mod state;
pub mod work_slots;
