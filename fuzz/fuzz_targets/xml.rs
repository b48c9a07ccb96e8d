//! The reader and the writer of XML.

#![no_main]

#[path = "../checks"]
mod checks {
    mod printable;
    pub mod xml;
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::xml::check(bytes));
