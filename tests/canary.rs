//! The conversation beside a plugin: what does not hold it does not serve.
