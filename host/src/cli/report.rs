//! What was found, as it is printed.

use std::process::ExitCode;

/// Prints, and counts what is wrong.
#[derive(Debug, Default)]
pub(super) struct Report {
    wrong: usize,
    /// Whether it only counts.
    is_silent: bool,
}

impl Report {
    /// One that counts and prints nothing.
    pub(super) fn silent() -> Self {
        Self { is_silent: true, ..Self::default() }
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_well(&self) -> bool {
        self.wrong == 0
    }

    /// Begins with another thing.
    pub(super) fn heading(&mut self, text: &str) {
        self.print(text);
    }

    /// Says a fact about it.
    pub(super) fn fact(&mut self, name: &str, value: &str) {
        self.print(&format!("  {name:<15} {value}"));
    }

    /// Says what may not be meant.
    pub(super) fn note(&mut self, text: &str) {
        self.print(&format!("  note: {text}"));
    }

    /// Says what is wrong.
    pub(super) fn wrong(&mut self, text: &str) {
        self.wrong += 1;
        self.print(&format!("  wrong: {text}"));
    }

    /// Sums it up.
    pub(super) fn end(&self) -> ExitCode {
        match self.wrong {
            0 => self.print("\nAll is well."),
            1 => self.print("\nOne thing is wrong."),
            count => self.print(&format!("\n{count} things are wrong.")),
        }
        if self.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn print(&self, line: &str) {
        if !self.is_silent {
            println!("{line}");
        }
    }
}
