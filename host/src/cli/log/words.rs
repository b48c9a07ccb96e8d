//! Events in words, for whoever talks with a command: no time, no fields.

use std::fmt::{self, Debug, Write};

use tracing::{Event, Level, Subscriber, field::Field};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Writer, debug_fn},
    },
    registry::LookupSpan,
};

use super::fields::Harmless;

/// Writes `warning: ` or `error: ` before an event's message.
pub(super) struct Words;

impl<S, N> FormatEvent<S, N> for Words
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        writer.write_str(if *event.metadata().level() == Level::ERROR { "error: " } else { "warning: " })?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Writes an event's message, which says in words what the fields say again.
pub(super) fn message() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| match field.name() {
        "message" => write!(Harmless(writer), "{value:?}"),
        _ => Ok(()),
    })
}
