//! `aviary check`: verifies a bot without starting it.
