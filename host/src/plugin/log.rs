//! A guest's standard output and error, as lines of the host's log.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use crate::foreign::end_of_words;

/// A line longer than this is broken, so that one write cannot fill the log with a single entry.
const LINE_BYTES_MAX: usize = 4 << 10;

/// How many lines of one call are kept: each is an entry of the log, with all that stands before it.
const LINES_MAX: usize = 1_000;

/// How much a guest may write in one piece; WASI's own streams use the same.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// What one call wrote, line by line, up to a bound. Writing more is not an error: the rest is counted and dropped.
#[derive(Clone, Debug)]
pub(super) struct Output(Arc<Mutex<Buffer>>);

#[derive(Debug)]
struct Buffer {
    text: Vec<u8>,
    bytes_max: usize,
    dropped: usize,
}

impl Output {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Buffer { text: Vec::new(), bytes_max, dropped: 0 })))
    }

    /// Takes the lines written so far, without blank ones, and with a note in the end of what was dropped.
    pub(super) fn take(&self) -> Vec<String> {
        let mut buffer = self.lock();
        let mut text = std::mem::take(&mut buffer.text);
        let mut dropped = std::mem::take(&mut buffer.dropped);
        if dropped > 0 {
            let end = end_of_words(&text, text.len());
            dropped += text.len() - end;
            text.truncate(end);
        }
        let mut rest = text.split(|&byte| byte == b'\n').flat_map(broken).filter_map(|line| {
            let line = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
            (!line.trim().is_empty()).then_some(line)
        });
        let mut lines: Vec<String> = rest.by_ref().take(LINES_MAX).collect();
        // Nothing is put into words that is not said: most calls write nothing.
        let note = |count, more: fmt::Arguments<'_>| (count > 0).then(|| format!("({count} more {more})"));
        lines.extend(note(rest.count(), format_args!("lines were dropped: one call writes {LINES_MAX} at most")));
        let bytes_max = buffer.bytes_max;
        lines.extend(note(dropped, format_args!("bytes were dropped: `log_bytes_max` is {bytes_max}")));
        lines
    }

    fn write(&self, bytes: &[u8]) {
        let mut buffer = self.lock();
        let room = buffer.bytes_max.saturating_sub(buffer.text.len()).min(bytes.len());
        buffer.text.extend_from_slice(&bytes[..room]);
        buffer.dropped += bytes.len() - room;
    }

    /// A panic elsewhere cannot leave the buffer half-written, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts of a line that are none too long.
fn broken(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let end = if rest.len() > LINE_BYTES_MAX { end_of_words(rest, LINE_BYTES_MAX) } else { rest.len() };
        let part = rest.split_off(..end)?;
        (!part.is_empty()).then_some(part)
    })
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    // The default would start a task for each stream.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        Output::write(self, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        Output::write(&self, bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines_in_the_order_written() {
        let output = Output::new(1_000);
        output.write("第一".as_bytes());
        output.write(" 行\n\nlast\r\n".as_bytes());
        assert_eq!(output.take(), ["第一 行", "last"]);
        assert!(output.take().is_empty());
    }

    #[test]
    fn a_flood_is_cut_with_a_note() {
        let output = Output::new(4);
        output.write("甲 bcdefgh".as_bytes());
        assert_eq!(output.take(), ["甲 ", "(7 more bytes were dropped: `log_bytes_max` is 4)"]);
    }

    #[test]
    fn a_flood_of_lines_is_cut_with_a_note_and_blank_ones_are_none() {
        let output = Output::new(1 << 20);
        output.write("\n \r\n".repeat(LINES_MAX).as_bytes());
        output.write("x\n".repeat(LINES_MAX + 7).as_bytes());
        let lines = output.take();
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert_eq!(lines[LINES_MAX], "(7 more lines were dropped: one call writes 1000 at most)");
    }

    #[test]
    fn a_line_without_end_is_broken() {
        let output = Output::new(LINE_BYTES_MAX * 2);
        output.write("、".repeat(LINE_BYTES_MAX / 3 + 1).as_bytes());
        let lengths = output.take().iter().map(|line| line.chars().count()).collect::<Vec<_>>();
        assert_eq!(lengths.len(), 2, "{lengths:?}");
    }

    #[test]
    fn no_cut_leaves_half_an_openid() {
        let openid = "oABCdefghijklmnopqrstuvwxy12";
        for before in [LINE_BYTES_MAX - 27, LINE_BYTES_MAX - 10, LINE_BYTES_MAX - 1] {
            let output = Output::new(LINE_BYTES_MAX * 2);
            output.write(format!("{}{openid} asks", "x".repeat(before)).as_bytes());
            let lines = output.take();
            assert!(!lines[0].contains('o') && lines[1].contains(openid), "{before}: {lines:?}");
            let output = Output::new(LINE_BYTES_MAX);
            output.write(format!("{}{openid} asks", ".".repeat(before)).as_bytes());
            assert_eq!(output.take()[0], ".".repeat(before));
        }
    }
}
