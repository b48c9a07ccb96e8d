//! The versions that served, and going back to them.
