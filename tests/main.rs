//! The host from outside: a real server on a port of its own, real plugins, and WeChat's side played over real HTTP.

#[path = "../host/build/nested_cargo.rs"]
mod nested_cargo;

mod bot;
mod compiler;
mod fake_wechat;
mod http;
mod log;
mod plugins;
mod process;
mod upstream;

mod canary;
mod check;
mod cli;
mod containment;
mod contract;
mod control;
mod conversations;
mod dispatch;
mod egress;
mod fuzz_corpus;
mod hostile;
mod keywords;
mod kv;
mod limits;
mod modes;
mod reload;
mod versions;
mod webhook;
mod wire;
