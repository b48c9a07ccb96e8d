//! What a component consists of, as far as linking it needs to know.
//!
//! Core functions, tables, memories and globals are no steps: they only name something, so that the writer can name them
//! again wherever they are needed.

use std::collections::BTreeMap;

use wasm_encoder::reencode::{self, Reencode, ReencodeComponent};
use wasmparser::{
    CanonicalFunction, Chunk, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentType, ComponentTypeRef, Encoding, ExternalKind, Instance as CoreInstance, Parser, Payload,
};

/// How many inline instances may stand between a name and what it names. wit-component makes one.
const CHAIN_MAX: usize = 16;

/// What core items can be, each numbered by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Space {
    Func,
    Table,
    Memory,
    Global,
}

/// As many as there are [`Space`]s.
pub(super) const SPACES: usize = 4;

impl Space {
    pub fn of(kind: ExternalKind) -> Option<Self> {
        match kind {
            ExternalKind::Func | ExternalKind::FuncExact => Some(Self::Func),
            ExternalKind::Table => Some(Self::Table),
            ExternalKind::Memory => Some(Self::Memory),
            ExternalKind::Global => Some(Self::Global),
            ExternalKind::Tag => None,
        }
    }
}

impl From<Space> for wasm_encoder::ExportKind {
    fn from(space: Space) -> Self {
        match space {
            Space::Func => Self::Func,
            Space::Table => Self::Table,
            Space::Memory => Self::Memory,
            Space::Global => Self::Global,
        }
    }
}

/// A component, taken apart.
#[derive(Default)]
pub(super) struct Layout<'a> {
    pub modules: Vec<&'a [u8]>,
    pub instances: Vec<Instance<'a>>,
    /// Core items by space and number.
    pub items: [Vec<Item<'a>>; SPACES],
    /// All that is not only a name, in order.
    pub steps: Vec<Step<'a>>,
}

/// What is done when a component is made, or defined in it.
pub(super) enum Step<'a> {
    /// A section that refers to nothing that linking renumbers.
    Section {
        id: u8,
        data: &'a [u8],
    },
    Module {
        module: u32,
    },
    Alias(ComponentAlias<'a>),
    Lift(CanonicalFunction),
    /// Inner components are instantiated.
    Components {
        id: u8,
        data: &'a [u8],
    },
    /// A module is instantiated.
    Instantiate {
        instance: u32,
    },
}

/// A core instance.
pub(super) enum Instance<'a> {
    Module {
        module: u32,
        args: BTreeMap<&'a str, u32>,
    },
    /// Names for items, and no more.
    Items(BTreeMap<&'a str, (Space, u32)>),
}

/// A core item: an export of a core instance, or a function of the component model.
pub(super) enum Item<'a> {
    Export {
        instance: u32,
        name: &'a str,
    },
    Canon {
        function: CanonicalFunction,
        /// How many steps come before it.
        position: usize,
    },
}

/// Where a core item really comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source<'a> {
    /// An export of the instance of a module.
    Export { instance: u32, name: &'a str },
    /// The core function of this number, from the component model.
    Canon { func: u32 },
}

impl<'a> Layout<'a> {
    /// Takes a component apart. `None` if it has something that is not understood here.
    pub fn read(component: &'a [u8]) -> Option<Self> {
        let mut layout = Self::default();
        for payload in payloads(component)? {
            layout.add(payload, component)?;
        }
        Some(layout)
    }

    fn add(&mut self, payload: Payload<'a>, component: &'a [u8]) -> Option<()> {
        let section = payload.as_section();
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } | Payload::End(_) => return Some(()),
            // They name what gets other numbers, and nobody reads them.
            Payload::CustomSection(_) => return Some(()),
            Payload::ModuleSection { unchecked_range, .. } => {
                self.steps.push(Step::Module { module: self.modules.len() as u32 });
                self.modules.push(component.get(unchecked_range)?);
                return Some(());
            }
            Payload::InstanceSection(instances) => {
                return instances.into_iter().try_for_each(|instance| self.add_instance(instance.ok()?));
            }
            Payload::ComponentAliasSection(aliases) => {
                return aliases.into_iter().try_for_each(|alias| self.add_alias(alias.ok()?));
            }
            Payload::ComponentCanonicalSection(functions) => {
                return functions.into_iter().try_for_each(|function| self.add_canon(function.ok()?));
            }
            Payload::ComponentInstanceSection(instances) => {
                instances.into_iter().try_for_each(|instance| has_no_module(&instance.ok()?).then_some(()))?;
                let (id, range) = section?;
                self.steps.push(Step::Components { id, data: component.get(range)? });
                return Some(());
            }
            Payload::ComponentTypeSection(types) => {
                types.into_iter().try_for_each(|ty| has_no_destructor(&ty.ok()?).then_some(()))?;
            }
            Payload::ComponentImportSection(imports) => imports.into_iter().try_for_each(|import| {
                let is_module = matches!(import.ok()?.ty, ComponentTypeRef::Module(_));
                (!is_module).then_some(())
            })?,
            Payload::ComponentExportSection(exports) => exports.into_iter().try_for_each(|export| {
                let is_module = export.ok()?.kind == ComponentExternalKind::Module;
                (!is_module).then_some(())
            })?,
            Payload::CoreTypeSection(_) | Payload::ComponentSection { .. } => {}
            _ => return None,
        }
        let (id, range) = section?;
        self.steps.push(Step::Section { id, data: component.get(range)? });
        Some(())
    }

    fn add_instance(&mut self, instance: CoreInstance<'a>) -> Option<()> {
        let instance = match instance {
            CoreInstance::Instantiate { module_index: module, args } => {
                self.steps.push(Step::Instantiate { instance: self.instances.len() as u32 });
                Instance::Module { module, args: args.iter().map(|arg| (arg.name, arg.index)).collect() }
            }
            CoreInstance::FromExports(exports) => {
                let item =
                    |export: &wasmparser::Export<'a>| Some((export.name, (Space::of(export.kind)?, export.index)));
                Instance::Items(exports.iter().map(item).collect::<Option<_>>()?)
            }
        };
        self.instances.push(instance);
        Some(())
    }

    fn add_alias(&mut self, alias: ComponentAlias<'a>) -> Option<()> {
        match alias {
            ComponentAlias::CoreInstanceExport { kind, instance_index: instance, name } => {
                self.items[Space::of(kind)? as usize].push(Item::Export { instance, name });
            }
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. }
            | ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } => return None,
            ComponentAlias::InstanceExport { .. } | ComponentAlias::Outer { .. } => self.steps.push(Step::Alias(alias)),
        }
        Some(())
    }

    fn add_canon(&mut self, function: CanonicalFunction) -> Option<()> {
        if let CanonicalFunction::Lift { .. } = function {
            self.steps.push(Step::Lift(function));
        } else {
            let position = self.steps.len();
            self.items[Space::Func as usize].push(Item::Canon { function, position });
        }
        Some(())
    }

    /// The core item of a number.
    pub fn item(&self, space: Space, index: u32) -> Option<&Item<'a>> {
        self.items[space as usize].get(index as usize)
    }

    /// The core instance of a number.
    pub fn instance(&self, index: u32) -> Option<&Instance<'a>> {
        self.instances.get(index as usize)
    }

    /// Finds where an instance's export really comes from.
    pub fn source(&self, mut instance: u32, mut name: &'a str, space: Space) -> Option<Source<'a>> {
        for _ in 0..CHAIN_MAX {
            let items = match self.instance(instance)? {
                Instance::Module { .. } => return Some(Source::Export { instance, name }),
                Instance::Items(items) => items,
            };
            let index = items.get(name).filter(|item| item.0 == space)?.1;
            match *self.item(space, index)? {
                Item::Canon { .. } => return Some(Source::Canon { func: index }),
                Item::Export { instance: inner, name: inner_name } => (instance, name) = (inner, inner_name),
            }
        }
        None
    }

    /// Tells whether a function of the component model needs no memory, table or function of a core instance.
    pub fn needs_no_core(&self, func: u32) -> bool {
        let Some(Item::Canon { function, .. }) = self.item(Space::Func, func) else { return false };
        let mut scratch = wasm_encoder::CanonicalFunctionSection::new();
        NoCore.parse_component_canonical(&mut scratch, function.clone()).is_ok()
    }
}

/// Reads a component's own sections, those of its inner components and modules not among them.
pub(super) fn payloads(component: &[u8]) -> Option<Vec<Payload<'_>>> {
    let mut payloads = Vec::new();
    let mut parser = Parser::new(0);
    let mut rest = component;
    while !rest.is_empty() {
        let Ok(Chunk::Parsed { consumed, payload }) = parser.parse(rest, true) else { return None };
        rest = rest.get(consumed..)?;
        if let Payload::ModuleSection { unchecked_range, .. } | Payload::ComponentSection { unchecked_range, .. } =
            &payload
        {
            rest = rest.get(unchecked_range.len()..)?;
        }
        payloads.push(payload);
    }
    Some(payloads)
}

fn has_no_module(instance: &ComponentInstance<'_>) -> bool {
    let is_module = |kind| kind == ComponentExternalKind::Module;
    match instance {
        ComponentInstance::Instantiate { args, .. } => !args.iter().any(|arg| is_module(arg.kind)),
        ComponentInstance::FromExports(exports) => !exports.iter().any(|export| is_module(export.kind)),
    }
}

/// A destructor is a core function, and types are copied as they are.
fn has_no_destructor(ty: &ComponentType<'_>) -> bool {
    !matches!(ty, ComponentType::Resource { dtor: Some(_), .. })
}

/// Refuses whatever refers to a core item.
struct NoCore;

/// A core item was referred to.
#[derive(Debug)]
struct RefersToCore;

impl Reencode for NoCore {
    type Error = RefersToCore;

    fn function_index(&mut self, _: u32) -> Result<u32, reencode::Error<RefersToCore>> {
        Err(reencode::Error::UserError(RefersToCore))
    }

    fn table_index(&mut self, _: u32) -> Result<u32, reencode::Error<RefersToCore>> {
        Err(reencode::Error::UserError(RefersToCore))
    }

    fn memory_index(&mut self, _: u32) -> Result<u32, reencode::Error<RefersToCore>> {
        Err(reencode::Error::UserError(RefersToCore))
    }
}

impl ReencodeComponent for NoCore {}
