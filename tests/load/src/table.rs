//! The table of a comparison.

use std::fmt::Write as _;

use crate::compare::{Contestant, Turn};

/// Writes one line per server, medians of its turns, and below them the turns themselves.
pub fn print(contestants: &[Contestant]) -> String {
    let mut table = format!(
        "{:24} | {:-^50} | {:-^34} | {:-^15}\n{:24} | {:>7} {:>7} {:>9} {:>7} {:>7} {:>8} | {:>7} {:>7} {:>8} {:>9} | {:>7} {:>7}\n",
        "",
        " saturated ",
        " offered ",
        " MiB ",
        "",
        "CPU µs",
        "×native",
        "req/s",
        "p50 ms",
        "p99 ms",
        "gen. µs",
        "CPU µs",
        "×native",
        "p50 ms",
        "p99 ms",
        "RSS",
        "peak",
    );
    for contestant in contestants {
        let native = baseline(contestants, contestant);
        let of = |figure: fn(&Turn) -> f64| median(contestant.turns.iter().map(figure));
        let ratio = |figure: fn(&Turn) -> f64| {
            // Within a round, so that drift of the machine hits both.
            median(contestant.turns.iter().zip(&native.turns).map(|(turn, native)| figure(turn) / figure(native)))
        };
        let _ = writeln!(
            table,
            "{:24} | {:7.1} {:7.2} {:9.0} {:7.2} {:7.2} {:8.1} | {:7.1} {:7.2} {:8.2} {:9.2} | {:7.1} {:7.1}",
            contestant.name,
            of(saturated_cpu),
            ratio(saturated_cpu),
            of(|turn| turn.saturated.per_second),
            of(|turn| turn.saturated.p50_ms),
            of(|turn| turn.saturated.p99_ms),
            of(|turn| turn.saturated.generator_us),
            of(offered_cpu),
            ratio(offered_cpu),
            of(|turn| turn.offered.p50_ms),
            of(|turn| turn.offered.p99_ms),
            of(|turn| turn.memory.resident_mib),
            of(|turn| turn.memory.peak_mib),
        );
    }
    table.push_str("\nCPU µs of each round, saturated | offered:\n");
    for Contestant { name, turns, .. } in contestants {
        let each =
            |figure: fn(&Turn) -> f64| turns.iter().map(|turn| format!(" {:.1}", figure(turn))).collect::<String>();
        let _ = writeln!(table, "{name:24} |{} |{}", each(saturated_cpu), each(offered_cpu));
    }
    table
}

fn saturated_cpu(turn: &Turn) -> f64 {
    turn.saturated.cpu_us
}

fn offered_cpu(turn: &Turn) -> f64 {
    turn.offered.cpu_us
}

/// What a server is compared with: the native one of its mode, which comes first.
fn baseline<'a>(contestants: &'a [Contestant], contestant: &'a Contestant) -> &'a Contestant {
    contestants.iter().find(|other| other.mode == contestant.mode).unwrap_or(contestant)
}

/// The middle value; of an even number of values, the mean of the two in the middle. NaN if there is none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_ignores_the_outlier() {
        assert_eq!(median([17.0, 900.0, 18.0].into_iter()), 18.0);
        assert_eq!(median([1.0, 2.0, 3.0, 4.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }
}
