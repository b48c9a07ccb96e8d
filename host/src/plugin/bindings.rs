//! The contract in `wit/`, as Rust. `Message` and `Reply` exist only here: nothing else in the host defines them.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "bot",
    imports: {
        // A handle too many ends the guest.
        "aviary:bot/kv": async | trappable,
        default: async,
    },
    trappable_error_type: { "aviary:bot/kv.error" => super::kv::Refusal },
    with: { "aviary:bot/kv.bucket": crate::store::kv::Bucket },
    exports: { default: async },
    include_component_type: true,
    additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
});

pub use aviary::bot::types::*;

/// `types` holds no functions: nothing to implement.
impl aviary::bot::types::Host for super::guest::Guest {}
