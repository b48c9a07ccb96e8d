//! How long a restart takes: from the start of the process to the first answer.

use std::time::Instant;

use super::{Bench, Budget, Line, ms};
use crate::{account::Mode, binaries, generator, reload::stamped, wechat::WeChat};

/// With a warm compile cache, in ms.
const READY: Budget = Budget::AtMost(300.0);

/// How many plugins there are, echo included. Each is another file to the host.
const PLUGINS: u32 = 100;

/// How often the host is started in each round.
const STARTS: u32 = 5;

/// Starts the host again and again. Echo is the last of its plugins in every order, and a message waits for it.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Vec<Line>> {
    let echo = binaries::plugin("aviary-plugin-echo", binaries::BARE)?;
    let bot = bench.crowd(PLUGINS - 1, |number| stamped(&echo, number.into()))?;
    eprintln!("compiling {PLUGINS} plugins, then starting with them");
    bot.warm_up()?;
    let mut starts = Vec::new();
    for _ in 0..STARTS * bench.run.rounds {
        let start = Instant::now();
        let server = bot.serve()?;
        generator::await_ready(server.address, &WeChat::new(Mode::Plain)).await?;
        starts.push(ms(start.elapsed()));
    }
    Ok(vec![Line::of_rounds(format!("start with {PLUGINS} plugins, compiled before"), &starts, "ms", Some(READY))])
}
