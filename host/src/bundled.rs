//! The bots that ship inside the binary, as files for a plugins directory.

use std::{fs, io, path::Path};

include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// In which order the bundled bots are asked. The gaps leave room for the operator's own: before the echo, which answers
/// every text, or between it and the fallback, which answers everything else.
const NUMBERS: &[(&str, u32)] = &[("welcome", 10), ("keywords", 15), ("echo", 20), ("fallback", 90)];

/// The bundled bots with their file names, in the order they are asked.
pub fn files() -> impl Iterator<Item = (String, &'static [u8])> {
    NUMBERS.iter().filter_map(|(name, number)| {
        let (_, wasm) = BUNDLED.iter().find(|(bundled, _)| bundled == name)?;
        Some((format!("{number}-{name}.wasm"), *wasm))
    })
}

/// Writes the bundled bots into a directory, which is made if need be. Files that are there stay as they are.
pub fn write(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, wasm) in files() {
        let path = dir.join(name);
        if !path.exists() {
            fs::write(path, wasm)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_bot_has_its_place() {
        let mut placed: Vec<&str> = NUMBERS.iter().map(|(name, _)| *name).collect();
        placed.sort_unstable();
        let bundled: Vec<&str> = BUNDLED.iter().map(|(name, _)| *name).collect();
        assert_eq!(placed, bundled);
    }
}
