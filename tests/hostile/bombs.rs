//! Files that cost whoever reads them far more than whoever wrote them.

use wasm_encoder::{
    Component, ComponentImportSection, ComponentTypeRef, ComponentTypeSection, ComponentValType, CustomSection, Encode,
    PrimitiveValType, Section,
};

use crate::plugins::untyped;

/// A component in a component in a component: readers keep all of what is around each, and those that recurse run out of
/// stack.
pub fn nested_components(depth: usize) -> Vec<u8> {
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";
    // Each is the head of a component and of its one section, whose number, 4, is that of a component.
    let (mut heads, mut bytes) = (Vec::new(), EMPTY.len());
    for _ in 0..depth {
        let mut head = [EMPTY, &[4]].concat();
        bytes.encode(&mut head);
        bytes += head.len();
        heads.push(head);
    }
    heads.reverse();
    [heads.concat(), EMPTY.into()].concat()
}

/// The echo with another description of its world.
pub fn with_component_type(module: &[u8], data: &[u8]) -> Vec<u8> {
    let mut module = untyped(module);
    CustomSection { name: "component-type:bot".into(), data: data.into() }.append_to(&mut module);
    module
}

/// A component that takes a list of lists of lists: readers that follow a type to its end run out of stack.
pub fn nested_lists(depth: usize) -> Vec<u8> {
    let mut types = ComponentTypeSection::new();
    types.defined_type().list(PrimitiveValType::U8);
    for inner in 0..depth {
        types.defined_type().list(ComponentValType::Type(index(inner)));
    }
    types.function().params([("lists", ComponentValType::Type(index(depth)))]).result(None);
    let mut imports = ComponentImportSection::new();
    imports.import("take", ComponentTypeRef::Func(index(depth + 1)));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish()
}

fn index(number: usize) -> u32 {
    u32::try_from(number).expect("there are not that many")
}
