//! Keys, ciphertexts and the XML around them.

#![no_main]

#[path = "../checks"]
mod checks {
    mod decrypt;
    pub mod envelope;
    mod printable;
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::envelope::check(bytes));
