//! The line by itself, the messages of each kind, what came out of memory, and a server that does everything a server can do wrong.

mod memory;
mod messages;
mod queue;
mod server;
mod whole;
