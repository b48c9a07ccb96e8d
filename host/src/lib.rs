//! Aviary: a server for WeChat Official Accounts whose reply handlers are sandboxed WebAssembly plugins.
//!
//! The modules stand in the order of a message's life; `ARCHITECTURE.md` walks through it.

pub mod cli;
pub mod config;
pub mod secret;

pub mod app;
pub mod server;

pub mod admin;
pub mod control;
pub mod metrics;

// In the order of the flow; the blank lines keep rustfmt from sorting them.

pub mod webhook;

pub mod web;

mod query;

mod refusal;

mod verify;

pub mod message;

pub mod dedupe;

mod exchange;

mod user_queue;

mod outlive;

pub mod dispatch;

pub mod forward;

pub mod reply;

mod late;

mod deliver;

pub mod plugin;

pub mod api;
pub mod egress;
pub mod https;
pub mod store;

pub mod bundled;
pub mod conversation;
mod deadline;
mod foreign;
mod machine;
mod private_dir;
pub mod project;
pub mod rehearsal;
mod shell;
mod stamp;
mod user;
