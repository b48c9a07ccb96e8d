//! The fields of an event as text without colours. tracing's own writer says the same, but paints each name and each sign in
//! no colour and looks at a message letter by letter, which is half of what the line of an answered message costs.

use std::fmt::{self, Debug, Write};

use tracing::field::Field;
use tracing_subscriber::{
    field::MakeExt,
    fmt::{
        FormatFields,
        format::{Writer, debug_fn},
    },
};

/// Writes an event's message, and `name=value` for each field.
pub(super) fn plain() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(field).delimited(" ")
}

fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let mut writer = Harmless(writer);
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        name => {
            writer.0.write_str(name)?;
            writer.0.write_char('=')?;
            write!(writer, "{value:?}")
        }
    }
}

/// Takes the power over a terminal from what is written, for whoever looks at the log with one.
pub(super) struct Harmless<'a, 'w>(pub(super) &'a mut Writer<'w>);

impl Write for Harmless<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(is_surely_harmless) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|char| match char {
            char if is_command(char) => write!(self.0, "{}", char.escape_unicode()),
            char => self.0.write_char(char),
        })
    }
}

/// Whether a byte is part of no command, told sooner than of a character: the commands that are not ASCII begin with 0xc2.
fn is_surely_harmless(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f && byte != 0xc2
}

/// Line ends and tabs are left: a guest's own are escaped before they come here.
fn is_command(char: char) -> bool {
    char.is_control() && !matches!(char, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing::{info, subscriber};
    use tracing_subscriber::fmt;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of a few events, without the time.
    fn logged(log: Log, subscriber: impl tracing::Subscriber + Send + Sync) -> String {
        subscriber::with_default(subscriber, || {
            let (user, text) = ("1f6d408b", "say \"hi\"");
            info!(account = %"main", %user, plugin.name = "echo", duration_ms = 3_u64, "Plugin `echo` answered {user}");
            info!(text, ?text, number = -1, yes = true, "A text\nof two lines, 你好");
            info!("No fields");
        });
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn it_says_what_tracing_would_say() {
        let (ours, theirs) = (Log::default(), Log::default());
        let builder =
            |log: Log| fmt().without_time().with_target(false).with_ansi(false).with_writer(move || log.clone());
        let ours = logged(ours.clone(), builder(ours).fmt_fields(plain()).finish());
        assert_eq!(ours, logged(theirs.clone(), builder(theirs).finish()));
        assert!(ours.starts_with(" INFO Plugin `echo` answered 1f6d408b account=main user=1f6d408b"), "{ours}");
    }

    #[test]
    fn nothing_in_it_commands_a_terminal() {
        let log = Log::default();
        let writer = log.clone();
        let builder = fmt().without_time().with_target(false).with_ansi(false).with_writer(move || writer.clone());
        subscriber::with_default(builder.fmt_fields(plain()).finish(), || {
            info!(name = %"a\x1b[2Jb", "c\x07d\u{9b}2Je\x7ff");
        });
        let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(logged, " INFO c\\u{7}d\\u{9b}2Je\\u{7f}f name=a\\u{1b}[2Jb\n");
    }
}
