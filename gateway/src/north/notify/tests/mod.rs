//! The line by itself, the messages of each kind, and a server that does everything a server can do wrong.

mod messages;
mod queue;
mod server;
mod whole;
