//! How long a new plugin waits for its first message.

use super::{Bench, Budget, Line, ms, number};
use crate::{binaries, generator::Pace, reload};

/// From the file's rename to its first answer, in ms: the longest of all.
const FIRST_ANSWER: Budget = Budget::AtMost(300.0);

/// Replaces echo at the offered rate, as `--reload` does.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Vec<Line>> {
    eprintln!("replacing a plugin");
    let parrot = binaries::plugin("aviary-test-parrot", binaries::BARE)?;
    let pace = Pace::Offered { per_second: bench.run.rate };
    let replaced = reload::replace_under_load(&bench.echo()?, &parrot, bench.run, pace).await?;
    bench.failures.merge(replaced.failures);
    let each: Vec<String> = replaced.times.iter().map(|&time| number(ms(time))).collect();
    Ok(vec![Line {
        what: "file dropped, to its first answer (longest)".into(),
        figure: replaced.times.iter().max().map(|&time| ms(time)).ok_or_else(|| "a replacement was not heard".into()),
        unit: "ms",
        budget: Some(FIRST_ANSWER),
        note: format!(
            "each: {}; meanwhile p99 {:.2} ms, longest {:.2} ms",
            each.join(" "),
            replaced.p99_ms,
            replaced.longest_ms
        ),
    }])
}
