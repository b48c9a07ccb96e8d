//! What `cargo fuzz` checks for as long as one lets it, for a few seconds: the seeds, and the same mutations of them
//! every time. See `fuzz/README.md`.

use crate::plugins::workspace;

#[path = "../fuzz/checks"]
mod checks {
    mod decrypt;
    pub mod envelope;
    mod printable;
    pub mod seeds;
    pub mod webhook;
    pub mod xml;
}

use checks::seeds::{PIECES, Vectors};

/// How often each seed is sent with something changed in it.
const MUTANTS: usize = 40;

/// Marsaglia's xorshift64: the same walk every time, without a dependency.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("it is below a usize")
    }

    /// Spoils a few places: a piece put in, a stretch cut out or doubled, a byte changed.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let start = self.below(bytes.len() + 1);
            let end = (start + self.below(40)).min(bytes.len());
            match self.below(4) {
                0 => drop(bytes.splice(start..start, PIECES[self.below(PIECES.len())].bytes())),
                1 => drop(bytes.drain(start..end)),
                2 => drop(bytes.splice(start..start, bytes[start..end].to_vec())),
                _ => bytes[start..end].iter_mut().take(1).for_each(|byte| *byte ^= 1 << self.below(8)),
            }
        }
    }
}

/// Checks the seeds as they are, and mutants of each.
fn replay(seeds: &[Vec<u8>], check: impl Fn(&[u8])) {
    let mut random = Random(0x5eed);
    for seed in seeds {
        check(seed);
        for _ in 0..MUTANTS {
            let mut mutant = seed.clone();
            random.mutate(&mut mutant);
            check(&mutant);
        }
    }
}

fn vectors() -> Vectors {
    Vectors::read(&workspace().join("tests/wire"))
}

#[test]
fn no_body_and_nothing_a_user_types_breaks_the_reader() {
    replay(&vectors().xml(), checks::xml::check);
}

#[test]
fn every_ciphertext_is_decrypted_or_refused_as_wechats_page_says() {
    replay(&vectors().envelope(), checks::envelope::check);
}

#[test]
fn every_request_is_answered_as_the_table_of_answers_says() {
    let harness = checks::webhook::Harness::new();
    replay(&vectors().webhook(), |input| harness.check(input));
}
