//! What a visitor's page costs: one that a plugin makes, and the same from the native server.

use crate::{
    Run,
    account::{APP_ID, Mode},
    binaries,
    bot::{Bot, Plugins},
    compare::{self, Contestant},
    generator::{Expected, Failures},
    table,
};

/// Where the page is, at both servers.
pub const PATH: &str = "/pages/main/pager/hello";

/// The page.
pub const HELLO: &str = include_str!("../../pager/src/hello.html");

/// The account's domain: pages are served under no other name.
const DOMAIN: &str = "shop.example.com";

/// Measures both in turns and prints the table.
pub async fn run(run: &Run) -> anyhow::Result<Failures> {
    let host = run.host.clone().map_or_else(binaries::host, Ok)?;
    let account = format!("app_id = \"{APP_ID}\"\napp_secret = \"unused\"\noauth.domains = [\"{DOMAIN}\"]\n");
    let bot = Bot::new(&host, Plugins::Echo, Mode::Plain, &run.log)?
        .with_account(&account)?
        .with_plugin("30-pager.wasm", &binaries::plugin("aviary-test-pager", binaries::WASIP2)?)?
        .with_settings("[plugins.pager.grants]\npages = true\n")?;
    bot.warm_up()?;
    let page = Expected::Page { request: request().into(), body: HELLO };
    let mut contestants = [
        Contestant::native("native page", Mode::Plain)?.asked_for(page.clone()),
        Contestant::host("host, a plugin's page", Mode::Plain, bot).asked_for(page),
    ];
    let mut failures = Failures::default();
    compare::rounds(&mut contestants, run, &mut failures).await?;
    println!("{}", compare::heading(run));
    print!("{}", table::print(&contestants));
    Ok(failures)
}

/// What a browser asks for who is not signed in.
fn request() -> String {
    format!(
        "GET {PATH} HTTP/1.1\r\nHost: {DOMAIN}\r\nUser-Agent: Mozilla/5.0 (Linux; Android 14) MicroMessenger/8.0.50 \
         Language/zh_CN\r\nAccept: text/html,*/*;q=0.8\r\nAccept-Language: zh-CN,zh;q=0.9\r\n\r\n"
    )
}
