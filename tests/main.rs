//! The host from outside: a real server on a port of its own, real plugins, and WeChat's side played over real HTTP.

#[path = "../host/build/nested_cargo.rs"]
mod nested_cargo;

mod bot;
mod compiler;
mod fake_authorize;
mod fake_wechat;
mod http;
mod log;
mod plugins;
mod process;
mod python;
mod upstream;
mod visitor;

mod api_command;
mod browser;
mod canary;
mod check;
mod cli;
mod containment;
mod contract;
mod control;
mod conversations;
mod crash;
mod dispatch;
mod egress;
mod forward;
mod fuzz_corpus;
mod hostile;
mod keywords;
mod kv;
mod late;
mod late_command;
mod limits;
mod login;
mod modes;
mod new;
mod pages;
mod plugin_pages;
mod reload;
mod versions;
mod webhook;
mod wechat_api;
mod wechat_plugins;
mod wire;
