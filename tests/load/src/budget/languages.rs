//! What one call of a plugin costs, by the language it is written in: `Plugin::call` of the host's library, from the
//! question to the answer, a sandbox made for it and gone after it. No HTTP, no signature, no dedupe.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use aviary_host::plugin::{
    Plugin,
    bindings::{Body, Reply},
    question::Question,
};
use tokio::runtime::Builder;

use super::{Bench, Budget, Line, in_process};
use crate::{
    account::Mode,
    binaries,
    bot::Bot,
    server_process::own_cpu,
    wechat::{WeChat, now_s},
};

/// QuickJS, Go and Python: each an example's directory and what a call of it may cost, in µs of CPU.
const LANGUAGES: [(&str, &str, Budget); 3] = [
    ("JavaScript (QuickJS)", "echo-js", Budget::AtMost(125.0)),
    ("Go", "echo-go", Budget::AtMost(200.0)),
    ("Python", "echo-py", Budget::AtMost(1_000.0)),
];

/// What an operator may set whose bots are all their own.
const SCANNING: &str = "[engine]\npagemap_scan = true\n";

/// How long a call may take: far longer than any does.
const CALL_MAX: Duration = Duration::from_secs(4);

/// How many calls one round makes, after a tenth of them to warm up.
const CALLS: u32 = 1_000;

/// Measures each language, and echo in Rust beside them.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Vec<Line>> {
    let mut lines = vec![
        line(bench, "a call: Rust (the bundled echo)", None, bench.echo()?).await?,
        line(bench, "a call: Rust (wasip2)", None, bench.echo()?.with_plugin("20-echo.wasm", &binaries::echo_rs()?)?)
            .await?,
    ];
    for (language, example, budget) in LANGUAGES {
        let what = format!("a call: {language}");
        match binaries::example(example) {
            Ok(bytes) => {
                let bot = || bench.echo()?.with_plugin("20-echo.wasm", &bytes);
                lines.push(line(bench, &what, Some(budget), bot()?).await?);
                let scanning = bot()?.with_settings(SCANNING)?;
                lines.push(scanning_line(bench, scanning).await);
            }
            Err(not_built) => lines.push(Line {
                what,
                figure: Err(not_built.to_string()),
                unit: "µs",
                budget: Some(budget),
                note: String::new(),
            }),
        }
    }
    Ok(lines)
}

async fn line(bench: &Bench<'_>, what: &str, budget: Option<Budget>, bot: Bot) -> anyhow::Result<Line> {
    eprintln!("{what}");
    Ok(Line::of_rounds(what, &call_cpu_us(bot, bench.run.rounds).await?, "µs", budget))
}

/// Without a figure where it cannot be had.
async fn scanning_line(bench: &Bench<'_>, bot: Bot) -> Line {
    let what = "  with `engine.pagemap_scan`";
    line(bench, what, None, bot).await.unwrap_or_else(|error| Line {
        what: what.to_owned(),
        figure: Err(error.to_string()),
        unit: "µs",
        budget: None,
        note: String::new(),
    })
}

/// Calls the bot's one plugin again and again, and returns the CPU time of a call in each round, in µs.
pub async fn call_cpu_us(bot: Bot, rounds: u32) -> anyhow::Result<Vec<f64>> {
    // On one thread, and nothing else runs in this process meanwhile.
    tokio::task::spawn_blocking(move || {
        Builder::new_current_thread().enable_all().build()?.block_on(each_round(&bot, rounds))
    })
    .await?
}

async fn each_round(bot: &Bot, rounds: u32) -> anyhow::Result<Vec<f64>> {
    let app = in_process::load(bot).await?;
    let live = app.live();
    let serving = live.accounts().next().context("the bot has no account")?;
    let plugin = serving.chain.plugins.first().context("the plugin was not loaded; see the log above")?;
    ensure!(
        plugin.code.engine.scans_pagemap() || !live.config.engine.pagemap_scan,
        "`engine.pagemap_scan` cannot be had here: it wants Linux 6.7 and no swap"
    );
    let question = question()?;
    call(plugin, &question, CALLS / 10).await?;
    let mut figures = Vec::new();
    for _ in 0..rounds {
        let before = own_cpu();
        call(plugin, &question, CALLS).await?;
        figures.push((own_cpu() - before).as_secs_f64() * 1e6 / f64::from(CALLS));
    }
    Ok(figures)
}

async fn call(plugin: &Plugin, question: &Question, calls: u32) -> anyhow::Result<()> {
    let Body::Text(text) = &question.message.body else { bail!("echo answers texts only") };
    for _ in 0..calls {
        let answer = plugin.call(question, Instant::now() + CALL_MAX).await.answer?;
        ensure!(
            matches!(&answer, Some(Reply::Text(reply)) if *reply == text.content),
            "plugin `{}` answered {answer:?}",
            plugin.name
        );
    }
    Ok(())
}

/// The message that the generator sends, as plugins are given it.
fn question() -> anyhow::Result<Question> {
    let push = WeChat::new(Mode::Plain).push(now_s());
    Question::read("main", push.query_and_body().1.to_owned())
}
