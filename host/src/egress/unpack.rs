//! Unpacks a body while it comes, up to a bound: a few kilobytes can hold gigabytes.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::NoAnswer;

/// A body's coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
    /// With zlib's header or, as some servers have it, without.
    Deflate,
    /// One that we cannot unpack, or several.
    Unknown,
}

/// What is unpacked when a guest leaves the choice to the host.
pub(super) const ACCEPTED: &str = "gzip, deflate";

impl Coding {
    /// Reads `Content-Encoding`.
    pub(super) fn named(name: &str) -> Self {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Self::Plain,
            "gzip" | "x-gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            _ => Self::Unknown,
        }
    }
}

/// About how many bytes are unpacked in one go: while they are, nobody else has the thread.
const STEP_BYTES: usize = 64 << 10;

/// Turns what arrives into what was packed.
pub(super) struct Unpacker {
    decoder: Decoder,
    bytes_max: usize,
}

enum Decoder {
    None,
    Gzip(MultiGzDecoder<Unpacked>),
    /// Before the first byte.
    Deflate,
    Zlib(ZlibDecoder<Unpacked>),
    Raw(DeflateDecoder<Unpacked>),
}

/// What was unpacked and not yet handed on, and how much more may come.
struct Unpacked {
    bytes: Vec<u8>,
    left: usize,
    is_full: bool,
}

impl Write for Unpacked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.left {
            self.is_full = true;
            return Err(io::Error::other("too large"));
        }
        self.left -= bytes.len();
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Unpacker {
    pub(super) fn new(coding: Coding, bytes_max: usize) -> Self {
        let decoder = match coding {
            Coding::Plain | Coding::Unknown => Decoder::None,
            // Made at the first byte: the answer to HEAD has a coding and nothing in it.
            Coding::Gzip => Decoder::Gzip(MultiGzDecoder::new(Unpacked::new(bytes_max))),
            Coding::Deflate => Decoder::Deflate,
        };
        Self { decoder, bytes_max }
    }

    /// Takes as much of a part as unpacks to about [`STEP_BYTES`], and returns what it unpacks to. The rest stays in `part`.
    ///
    /// # Errors
    ///
    /// [`NoAnswer::TooLarge`] at the first byte too many, and [`NoAnswer::Lost`] for what is not packed that way.
    pub(super) fn push(&mut self, part: &mut Bytes) -> Result<Bytes, NoAnswer> {
        if let (Decoder::Deflate, Some(first)) = (&self.decoder, part.first()) {
            let out = Unpacked::new(self.bytes_max);
            // zlib's header names its method, 8, in the lower half.
            self.decoder = match first & 0xf == 8 {
                true => Decoder::Zlib(ZlibDecoder::new(out)),
                false => Decoder::Raw(DeflateDecoder::new(out)),
            };
        }
        match &mut self.decoder {
            Decoder::None => return Ok(part.split_to(part.len().min(STEP_BYTES))),
            Decoder::Deflate => return Ok(Bytes::new()),
            Decoder::Gzip(decoder) => step(decoder, part, MultiGzDecoder::get_ref),
            Decoder::Zlib(decoder) => step(decoder, part, ZlibDecoder::get_ref),
            Decoder::Raw(decoder) => step(decoder, part, DeflateDecoder::get_ref),
        }
        .map_err(|error| self.wrong(&error))?;
        Ok(self.take())
    }

    /// Ends the body, and returns the rest. `is_empty` says whether nothing has come at all.
    pub(super) fn finish(&mut self, is_empty: bool) -> Result<Bytes, NoAnswer> {
        match &mut self.decoder {
            _ if is_empty => return Ok(Bytes::new()),
            Decoder::None | Decoder::Deflate => return Ok(Bytes::new()),
            Decoder::Gzip(decoder) => decoder.try_finish(),
            Decoder::Zlib(decoder) => decoder.try_finish(),
            Decoder::Raw(decoder) => decoder.try_finish(),
        }
        .map_err(|error| self.wrong(&error))?;
        Ok(self.take())
    }

    fn wrong(&mut self, error: &io::Error) -> NoAnswer {
        match self.unpacked().is_some_and(|unpacked| unpacked.is_full) {
            true => NoAnswer::TooLarge(self.bytes_max as u64),
            false => NoAnswer::Lost(format!("the answer is not packed as its header says: {error}")),
        }
    }

    fn take(&mut self) -> Bytes {
        self.unpacked().map(|unpacked| std::mem::take(&mut unpacked.bytes).into()).unwrap_or_default()
    }

    fn unpacked(&mut self) -> Option<&mut Unpacked> {
        match &mut self.decoder {
            Decoder::None | Decoder::Deflate => None,
            Decoder::Gzip(decoder) => Some(decoder.get_mut()),
            Decoder::Zlib(decoder) => Some(decoder.get_mut()),
            Decoder::Raw(decoder) => Some(decoder.get_mut()),
        }
    }
}

/// Feeds a decoder until the part is used up or enough has come of it.
fn step<D: Write>(decoder: &mut D, part: &mut Bytes, unpacked: impl Fn(&D) -> &Unpacked) -> io::Result<()> {
    while !part.is_empty() && unpacked(decoder).bytes.len() < STEP_BYTES {
        match decoder.write(part)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            taken => drop(part.split_to(taken)),
        }
    }
    // What comes out here is bounded by what a decoder keeps to look back at.
    if part.is_empty() { decoder.flush() } else { Ok(()) }
}

impl Unpacked {
    fn new(left: usize) -> Self {
        Self { bytes: Vec::new(), left, is_full: false }
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(coding: Coding, packed: &[u8], size: usize) -> Result<Vec<u8>, NoAnswer> {
        let mut unpacker = Unpacker::new(coding, 1_000);
        let mut bytes = Vec::new();
        for part in packed.chunks(size) {
            let mut part = Bytes::copy_from_slice(part);
            while !part.is_empty() {
                bytes.extend(unpacker.push(&mut part)?);
            }
        }
        bytes.extend(unpacker.finish(packed.is_empty())?);
        Ok(bytes)
    }

    #[test]
    fn every_coding_is_unpacked_however_it_is_cut() {
        let text = "晴天 ".repeat(100);
        for size in [1, 2, 7, 10_000] {
            for (coding, packed) in [
                (Coding::Gzip, gzip(text.as_bytes())),
                (Coding::Gzip, [gzip(&text.as_bytes()[..100]), gzip(&text.as_bytes()[100..])].concat()),
                (Coding::Deflate, zlib(text.as_bytes())),
                (Coding::Deflate, raw(text.as_bytes())),
                (Coding::Plain, text.clone().into_bytes()),
                (Coding::Unknown, text.clone().into_bytes()),
            ] {
                assert_eq!(unpacked(coding, &packed, size).unwrap(), text.as_bytes(), "{coding:?} {size}");
            }
        }
        assert!(unpacked(Coding::Gzip, b"", 1).unwrap().is_empty());
        assert!(unpacked(Coding::Deflate, b"", 1).unwrap().is_empty());
    }

    #[test]
    fn a_bomb_ends_at_the_bound() {
        let bomb = vec![0; 10 << 20];
        for (coding, packed) in
            [(Coding::Gzip, gzip(&bomb)), (Coding::Deflate, zlib(&bomb)), (Coding::Deflate, raw(&bomb))]
        {
            assert!(packed.len() < 20_000);
            assert!(matches!(unpacked(coding, &packed, 1 << 20), Err(NoAnswer::TooLarge(1_000))), "{coding:?}");
        }
        assert_eq!(unpacked(Coding::Gzip, &gzip(&[1; 1_000]), 9).unwrap().len(), 1_000);
        assert!(matches!(unpacked(Coding::Gzip, &gzip(&[1; 1_001]), 9), Err(NoAnswer::TooLarge(1_000))));
    }

    #[test]
    fn a_part_is_unpacked_in_steps() {
        let size = 4 << 20;
        let whole = vec![0; size];
        for (coding, packed) in [
            (Coding::Gzip, gzip(&whole)),
            (Coding::Deflate, zlib(&whole)),
            (Coding::Deflate, raw(&whole)),
            (Coding::Plain, whole.clone()),
        ] {
            let (mut unpacker, mut part, mut sum) = (Unpacker::new(coding, size), Bytes::from(packed), 0);
            while !part.is_empty() {
                let step = unpacker.push(&mut part).unwrap().len();
                assert!(step <= 4 * STEP_BYTES, "{coding:?} {step}");
                sum += step;
            }
            assert_eq!(sum + unpacker.finish(false).unwrap().len(), size, "{coding:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_packed_otherwise_is_no_answer() {
        let packed = gzip(b"hello");
        for broken in [&packed[..packed.len() - 5], b"hello", b"\x1f\x8b"] {
            assert!(matches!(unpacked(Coding::Gzip, broken, 3), Err(NoAnswer::Lost(_))));
        }
    }

    #[test]
    fn a_coding_is_known_by_its_name() {
        for (name, coding) in [
            ("", Coding::Plain),
            ("identity", Coding::Plain),
            (" GZIP ", Coding::Gzip),
            ("x-gzip", Coding::Gzip),
            ("deflate", Coding::Deflate),
            ("br", Coding::Unknown),
            ("gzip, gzip", Coding::Unknown),
        ] {
            assert_eq!(Coding::named(name), coding, "{name}");
        }
    }
}
