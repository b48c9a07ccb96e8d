//! Links a component statically whose parts find each other only when it is instantiated.
//!
//! Interpreters come as libraries that share one memory and one table by importing both: `libc`, the interpreter, the
//! bindings, each a core module of its own. wasmtime fills a table lazily, and maps a memory as it begins, only where a
//! module defines them; a module that imports them runs code for each of thousands of entries, whenever it is
//! instantiated, which here is for every message. So the child that compiles makes one module of such modules first.
//!
//! Nothing depends on this for safety: wasmtime validates what comes out like any other file. What is not understood here
//! stays as it is.

mod group;
mod layout;
mod merge;
mod module;
mod renumber;
mod write;

use wasm_encoder::{ComponentSection, RawSection};
use wasmparser::{ComponentAlias, ComponentOuterAliasKind, Parser, Payload, TypeRef, Validator, WasmFeatures};

use self::{group::Group, layout::Layout, write::Writer};

/// To be raised when the same file is linked otherwise than before: code from before then has another name in the cache.
pub(super) const REVISION: u32 = 2;

/// How deep in components of components is looked for libraries. `componentize-qjs` puts them at the second level.
const NESTING_MAX: usize = 4;

/// Returns the component with its libraries as one core module, or `None` if it has none or they cannot be linked.
pub(super) fn fuse(component: &[u8]) -> Option<Vec<u8>> {
    if !has_library(component)? {
        return None;
    }
    // What follows need not look out for indices that lead nowhere, or types that do not fit.
    Validator::new_with_features(WasmFeatures::all()).validate_all(component).ok()?;
    rewrite(component, NESTING_MAX)
}

/// Tells whether any core module imports both its memory and its table, as only a library does. A component that takes
/// modules from around it counts as one without: the number of each module would have to stay the same everywhere.
fn has_library(component: &[u8]) -> Option<bool> {
    let mut has_library = false;
    for payload in Parser::new(0).parse_all(component) {
        match payload.ok()? {
            Payload::ImportSection(imports) => {
                let (mut memory, mut table) = (false, false);
                for import in imports.into_imports() {
                    match import.ok()?.ty {
                        TypeRef::Memory(_) => memory = true,
                        TypeRef::Table(_) => table = true,
                        _ => {}
                    }
                }
                has_library |= memory && table;
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases {
                    if let ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } = alias.ok()? {
                        return None;
                    }
                }
            }
            _ => {}
        }
    }
    Some(has_library)
}

/// Links the outermost components that have something to link.
fn rewrite(component: &[u8], nesting: usize) -> Option<Vec<u8>> {
    let linked = Layout::read(component).and_then(|layout| {
        let group = Group::find(&layout)?;
        Writer::new(&layout, &group)?.write()
    });
    linked.or_else(|| rewrite_inner(component, nesting.checked_sub(1)?))
}

/// Copies a component, with its inner components linked. `None` if that changes none.
fn rewrite_inner(component: &[u8], nesting: usize) -> Option<Vec<u8>> {
    let mut written = wasm_encoder::Component::HEADER.to_vec();
    let mut has_changed = false;
    for payload in layout::payloads(component)? {
        let Some((id, range)) = payload.as_section() else { continue };
        let data = component.get(range)?;
        let linked = match payload {
            Payload::ComponentSection { .. } => rewrite(data, nesting),
            _ => None,
        };
        has_changed |= linked.is_some();
        RawSection { id, data: linked.as_deref().unwrap_or(data) }.append_to_component(&mut written);
    }
    has_changed.then_some(written)
}

#[cfg(test)]
mod tests;
