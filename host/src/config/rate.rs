//! How often something may happen: `"20/1m"`.

use std::{fmt, time::Duration};

/// So many calls in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many, at least 1.
    pub calls: u32,
    /// In how long, at least 1 s.
    pub per: Duration,
}

/// The most calls that a rate may have.
const CALLS_MAX: u32 = 1_000_000;

/// The longest time that a rate may have.
const PER_S_MAX: u64 = 31 * 24 * 3_600;

impl Rate {
    /// Reads a rate; `""` and `"0"` are none. A failure is the sentence's end: "must be …".
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        if matches!(text, "" | "0") {
            return Ok(None);
        }
        let rate = text.split_once('/').and_then(|(calls, time)| {
            let (calls, per) = (calls.trim().parse().ok()?, seconds(time.trim())?);
            let is_bounded = (1..=CALLS_MAX).contains(&calls) && (1..=PER_S_MAX).contains(&per);
            is_bounded.then(|| Self { calls, per: Duration::from_secs(per) })
        });
        rate.map(Some).ok_or_else(|| {
            "must be a number of calls and a time, such as \"20/1m\" (s, m, h, d; 1000000 calls and 31d at most), or \
             \"\" for no bound"
                .to_owned()
        })
    }
}

/// Reads a time: `30s`, `1m`, `2h`, `1d`.
fn seconds(text: &str) -> Option<u64> {
    const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let unit = |(unit, seconds)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(seconds);
    UNITS.into_iter().find_map(unit)
}

/// As an operator writes it, in the largest unit that fits.
impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (calls, seconds) = (self.calls, self.per.as_secs());
        match seconds {
            _ if seconds.is_multiple_of(86_400) => write!(formatter, "{calls}/{}d", seconds / 86_400),
            _ if seconds.is_multiple_of(3_600) => write!(formatter, "{calls}/{}h", seconds / 3_600),
            _ if seconds.is_multiple_of(60) => write!(formatter, "{calls}/{}m", seconds / 60),
            _ => write!(formatter, "{calls}/{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_time_with_its_unit() {
        for (text, calls, seconds) in [("20/1m", 20, 60), ("1/30s", 1, 30), ("5 / 2h", 5, 7_200), ("9/1d", 9, 86_400)] {
            let rate = Rate::parse(text).unwrap().unwrap();
            assert_eq!((rate.calls, rate.per.as_secs()), (calls, seconds), "{text}");
            assert_eq!(rate.to_string(), text.replace(' ', ""));
        }
        assert_eq!((Rate::parse(""), Rate::parse("0")), (Ok(None), Ok(None)));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "20",
            "20/m",
            "/1m",
            "0/1m",
            "20/0s",
            "-1/1m",
            "20/1w",
            "20/1m30s",
            "1000001/1s",
            "1/32d",
            "1/99999999999999999d",
        ] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }
}
