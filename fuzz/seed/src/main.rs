//! Writes what each target begins with into `fuzz/corpus`.

use std::{fs, path::Path};

#[path = "../../checks/seeds.rs"]
mod seeds;

use seeds::{PIECES, Vectors};

fn main() -> std::io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is in fuzz");
    let vectors = Vectors::read(&fuzz.join("../tests/wire"));
    let corpus = fuzz.join("corpus");
    for (target, seeds) in [("xml", vectors.xml()), ("envelope", vectors.envelope()), ("webhook", vectors.webhook())] {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(dir.join(format!("seed-{number:03}")), seed)?;
        }
        println!("{target}: {} seeds", seeds.len());
    }
    fs::write(corpus.join("pieces.dict"), PIECES.map(entry).concat())
}

/// A line of a libFuzzer dictionary.
fn entry(piece: &str) -> String {
    let bytes: String = piece.bytes().map(|byte| format!("\\x{byte:02X}")).collect();
    format!("\"{bytes}\"\n")
}
