//! The wire of WeChat Official Accounts, and nothing else.
//!
//! A push from WeChat passes through these modules in this order:
//!
//! 1. [`signature`] tells whether it comes from WeChat;
//! 2. [`xml`] reads the bytes into a tree of [`xml::Element`];
//! 3. [`crypt`] opens the ciphertext in it, if there is one: that is XML again;
//! 4. [`envelope`] is the XML around the ciphertext, coming and going.
//!
//! A reply goes the other way: [`xml::Writer`] writes it, and [`envelope::seal`] encrypts and signs it
//! if the push came encrypted.
//!
//! There is no I/O here, no clock and no source of randomness: what depends on them is a parameter.
//! What a message *means* is not here either; the tree is where this crate ends.
//! Both sides of the wire are, so that a simulator can play WeChat with the same code.

#![deny(missing_docs)]

// In the order of the flow; the blank lines keep rustfmt from sorting them.

pub mod signature;

pub mod xml;

pub mod crypt;

pub mod envelope;

mod excerpt;

pub use excerpt::excerpt;
