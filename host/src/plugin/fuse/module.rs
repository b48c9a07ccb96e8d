//! A core module, read as far as merging it needs.

use std::collections::HashMap;

use wasmparser::{
    Data, Element, ElementKind, Encoding, FuncType, FunctionBody, Global, Import, KnownCustom, MemoryType, Name,
    Parser, Payload, Table, TypeRef, ValType,
};

use super::layout::{SPACES, Space};

#[derive(Default)]
pub(super) struct Module<'a> {
    pub types: Vec<FuncType>,
    pub imports: Vec<Import<'a>>,
    /// Which import each imported item is, by space.
    pub imported: [Vec<usize>; SPACES],
    /// The types of the functions that are defined here.
    pub functions: Vec<u32>,
    pub tables: Vec<Table<'a>>,
    pub memories: Vec<MemoryType>,
    pub globals: Vec<Global<'a>>,
    pub exports: HashMap<&'a str, (Space, u32)>,
    pub start: Option<u32>,
    pub elements: Vec<Element<'a>>,
    pub data: Vec<Data<'a>>,
    pub bodies: Vec<FunctionBody<'a>>,
    /// Names of functions, imported ones too.
    pub names: Vec<(u32, &'a str)>,
}

impl<'a> Module<'a> {
    /// Reads a module. `None` if it uses more of WebAssembly than libraries do: types of the garbage collector, memory that
    /// threads share, exceptions.
    pub fn read(module: &'a [u8]) -> Option<Self> {
        let mut read = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            read.add(payload.ok()?)?;
        }
        Some(read)
    }

    fn add(&mut self, payload: Payload<'a>) -> Option<()> {
        match payload {
            Payload::Version { encoding: Encoding::Module, .. }
            | Payload::End(_)
            | Payload::DataCountSection { .. }
            | Payload::CodeSectionStart { .. } => {}
            Payload::TypeSection(types) => {
                self.types = all(types.into_iter_err_on_gc_types()).filter(|types| types.iter().all(is_plain))?;
            }
            Payload::ImportSection(imports) => {
                imports.into_imports().try_for_each(|import| self.add_import(import.ok()?))?;
            }
            Payload::FunctionSection(functions) => self.functions = all(functions)?,
            Payload::TableSection(tables) => self.tables = all(tables)?,
            Payload::MemorySection(memories) => {
                self.memories = all(memories).filter(|memories| !memories.iter().any(|memory| memory.shared))?;
            }
            Payload::GlobalSection(globals) => self.globals = all(globals)?,
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export.ok()?;
                    self.exports.insert(export.name, (Space::of(export.kind)?, export.index));
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(elements) => self.elements = all(elements)?,
            Payload::DataSection(data) => self.data = all(data)?,
            Payload::CodeSectionEntry(body) => self.bodies.push(body),
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    // Nothing depends on a name that is wrong.
                    let _ = self.add_names(names);
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn add_import(&mut self, import: Import<'a>) -> Option<()> {
        self.imported[space_of(import.ty)? as usize].push(self.imports.len());
        self.imports.push(import);
        Some(())
    }

    fn add_names(&mut self, subsections: wasmparser::NameSectionReader<'a>) -> Option<()> {
        for names in subsections {
            if let Name::Function(names) = names.ok()? {
                for name in names {
                    let name = name.ok()?;
                    self.names.push((name.index, name.name));
                }
            }
        }
        Some(())
    }

    /// Tells whether the module works on a memory and a table of somebody else.
    pub fn is_library(&self) -> bool {
        let imports = |space: Space| !self.imported[space as usize].is_empty();
        imports(Space::Memory) && imports(Space::Table)
    }

    /// The tables and memories that instantiating the module writes to.
    pub fn written(&self) -> impl Iterator<Item = (Space, u32)> {
        let tables = self.elements.iter().filter_map(|element| match element.kind {
            ElementKind::Active { table_index, .. } => Some((Space::Table, table_index.unwrap_or(0))),
            _ => None,
        });
        let memories = self.data.iter().filter_map(|data| match data.kind {
            wasmparser::DataKind::Active { memory_index, .. } => Some((Space::Memory, memory_index)),
            wasmparser::DataKind::Passive => None,
        });
        tables.chain(memories)
    }

    /// How many items of a kind are imported.
    pub fn imported_count(&self, space: Space) -> u32 {
        self.imported[space as usize].len() as u32
    }

    /// How many items of a kind are defined.
    pub fn defined_count(&self, space: Space) -> u32 {
        let count = match space {
            Space::Func => self.functions.len(),
            Space::Table => self.tables.len(),
            Space::Memory => self.memories.len(),
            Space::Global => self.globals.len(),
        };
        count as u32
    }
}

/// What kind of item an import is. `None` for what is not linked.
pub(super) fn space_of(ty: TypeRef) -> Option<Space> {
    match ty {
        TypeRef::Func(_) => Some(Space::Func),
        TypeRef::Table(_) => Some(Space::Table),
        TypeRef::Memory(_) => Some(Space::Memory),
        TypeRef::Global(_) => Some(Space::Global),
        TypeRef::FuncExact(_) | TypeRef::Tag(_) => None,
    }
}

/// Types that refer to no other are the same in every module.
fn is_plain(ty: &FuncType) -> bool {
    let is_concrete = |ty: &ValType| matches!(ty, ValType::Ref(ty) if ty.is_concrete_type_ref());
    !ty.params().iter().chain(ty.results()).any(is_concrete)
}

fn all<T>(section: impl IntoIterator<Item = wasmparser::Result<T>>) -> Option<Vec<T>> {
    section.into_iter().collect::<Result<_, _>>().ok()
}
