//! What was found, as it is printed.

use std::process::ExitCode;

/// Prints, and counts what is wrong.
#[derive(Debug, Default)]
pub(super) struct Report {
    wrong: usize,
}

impl Report {
    /// Begins with another thing.
    pub(super) fn heading(&mut self, text: &str) {
        println!("{text}");
    }

    /// Says a fact about it.
    pub(super) fn fact(&mut self, name: &str, value: &str) {
        println!("  {name:<15} {value}");
    }

    /// Says what may not be meant.
    pub(super) fn note(&mut self, text: &str) {
        println!("  note: {text}");
    }

    /// Says what is wrong.
    pub(super) fn wrong(&mut self, text: &str) {
        self.wrong += 1;
        println!("  wrong: {text}");
    }

    /// Sums it up.
    pub(super) fn end(&self) -> ExitCode {
        match self.wrong {
            0 => println!("\nAll is well."),
            1 => println!("\nOne thing is wrong."),
            count => println!("\n{count} things are wrong."),
        }
        if self.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
