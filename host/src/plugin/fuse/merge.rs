//! One core module of all the members of a group.

use std::collections::{BTreeSet, HashMap};

use wasm_encoder::{
    CodeSection, DataCountSection, DataSection, ElementSection, Elements, EntityType, ExportSection, Function,
    FunctionSection, GlobalSection, ImportSection, MemorySection, Module, NameMap, NameSection, StartSection,
    TableSection, TypeSection,
    reencode::{Reencode, RoundtripReencoder},
};
use wasmparser::FuncType;

use super::{
    group::{Group, Member, Target},
    layout::{SPACES, Space},
    renumber::{Constant, Renumber},
};

/// The module of whose imports all are. Their names are their places in [`Group::outside`].
pub(super) const IMPORTS_FROM: &str = "";

const ALL_SPACES: [Space; SPACES] = [Space::Func, Space::Table, Space::Memory, Space::Global];

/// The members of a group, with new numbers for all that they have.
pub(super) struct Merged<'g, 'a> {
    group: &'g Group<'a>,
    members: Vec<Renumber>,
    /// What the imports of the group are, each in its space.
    outside: Vec<u32>,
    /// How many items there are of each kind.
    counts: [u32; SPACES],
    types: Types,
}

/// Types of functions, each once.
#[derive(Default)]
struct Types {
    section: TypeSection,
    indices: HashMap<FuncType, u32>,
}

impl Types {
    fn index(&mut self, ty: &FuncType) -> Option<u32> {
        if let Some(index) = self.indices.get(ty) {
            return Some(*index);
        }
        let index = self.section.len();
        self.section.ty().func_type(&RoundtripReencoder.func_type(ty.clone()).ok()?);
        self.indices.insert(ty.clone(), index);
        Some(index)
    }
}

impl<'g, 'a> Merged<'g, 'a> {
    /// Gives everything its number: imports first, then what each member defines.
    pub fn number(group: &'g Group<'a>) -> Option<Self> {
        let mut merged =
            Self { group, members: Vec::new(), outside: Vec::new(), counts: [0; SPACES], types: Types::default() };
        for outside in &group.outside {
            let count = &mut merged.counts[outside.space as usize];
            merged.outside.push(*count);
            *count += 1;
        }
        let (mut elements, mut data) = (0, 0);
        for member in &group.members {
            let mut renumber = Renumber { elements, data, ..Renumber::default() };
            for ty in &member.module.types {
                renumber.types.push(merged.types.index(ty)?);
            }
            for space in ALL_SPACES {
                renumber.spaces[space as usize] = merged.number_space(member, space)?;
            }
            renumber.constants = merged.constants(member)?;
            elements += member.module.elements.len() as u32;
            data += member.module.data.len() as u32;
            merged.members.push(renumber);
        }
        Some(merged)
    }

    fn number_space(&mut self, member: &Member<'a>, space: Space) -> Option<Vec<u32>> {
        let mut numbers = Vec::new();
        for import in &member.module.imported[space as usize] {
            numbers.push(self.target(space, *member.imports.get(*import)?)?);
        }
        let first = self.counts[space as usize];
        let end = first.checked_add(member.module.defined_count(space))?;
        numbers.extend(first..end);
        self.counts[space as usize] = end;
        Some(numbers)
    }

    /// Finds the values of a member's globals that never change. Those of earlier members are known.
    fn constants(&self, member: &Member<'a>) -> Option<Vec<Option<Constant>>> {
        let mut known = Renumber::default();
        for import in &member.module.imported[Space::Global as usize] {
            known.constants.push(match *member.imports.get(*import)? {
                Target::Inside { member, index } => {
                    self.members.get(member)?.constants.get(index as usize).copied().flatten()
                }
                Target::Outside(_) => None,
            });
        }
        for global in &member.module.globals {
            let value = if global.ty.mutable { None } else { known.evaluate(&global.init_expr) };
            known.constants.push(value);
        }
        Some(known.constants)
    }

    /// The number of what a member's import or export is.
    pub fn target(&self, space: Space, target: Target) -> Option<u32> {
        match target {
            Target::Inside { member, index } => self.members.get(member)?.item(space, index),
            Target::Outside(outside) => self.outside.get(outside).copied(),
        }
    }

    /// Writes the module, with these exports, whose names are their places.
    pub fn encode(mut self, exports: &[(Space, u32)]) -> Option<Vec<u8>> {
        let start = self.start()?;
        let code = self.code(&start)?;
        let mut module = Module::new();
        // Starting all takes a type, and imports take theirs from members.
        let functions = self.functions(&start)?;
        let imports = self.imports()?;
        module.section(&self.types.section).section(&imports).section(&functions);
        self.definitions(&mut module)?;
        let mut section = ExportSection::new();
        for (name, (space, index)) in exports.iter().enumerate() {
            section.export(&name.to_string(), (*space).into(), *index);
        }
        module.section(&section);
        if let Some(function_index) = start.function() {
            module.section(&StartSection { function_index });
        }
        let data = self.data()?;
        module.section(&self.elements()?).section(&DataCountSection { count: data.len() });
        module.section(&code).section(&data).section(&self.names());
        Some(module.finish())
    }

    fn imports(&mut self) -> Option<ImportSection> {
        let mut section = ImportSection::new();
        for (name, outside) in self.group.outside.iter().enumerate() {
            let ty: EntityType = self.members.get_mut(outside.member)?.entity_type(outside.ty).ok()?;
            section.import(IMPORTS_FROM, &name.to_string(), ty);
        }
        Some(section)
    }

    fn functions(&mut self, start: &Start) -> Option<FunctionSection> {
        let mut section = FunctionSection::new();
        for (member, renumber) in self.group.members.iter().zip(&mut self.members) {
            for ty in &member.module.functions {
                section.function(renumber.type_index(*ty).ok()?);
            }
        }
        if let Start::All { ty, .. } = start {
            section.function(*ty);
        }
        Some(section)
    }

    fn definitions(&mut self, module: &mut Module) -> Option<()> {
        let (mut tables, mut memories, mut globals) = (TableSection::new(), MemorySection::new(), GlobalSection::new());
        for (member, renumber) in self.group.members.iter().zip(&mut self.members) {
            for table in &member.module.tables {
                renumber.parse_table(&mut tables, table.clone()).ok()?;
            }
            for memory in &member.module.memories {
                memories.memory(renumber.memory_type(*memory).ok()?);
            }
            for global in &member.module.globals {
                renumber.parse_global(&mut globals, global.clone()).ok()?;
            }
        }
        module.section(&tables).section(&memories).section(&globals);
        Some(())
    }

    fn elements(&mut self) -> Option<ElementSection> {
        let mut section = ElementSection::new();
        for (member, renumber) in self.group.members.iter().zip(&mut self.members) {
            for element in &member.module.elements {
                renumber.parse_element(&mut section, element.clone()).ok()?;
            }
        }
        // Last, so that it has nobody's number.
        let referenced: BTreeSet<u32> =
            self.members.iter().flat_map(|member| member.referenced.iter().copied()).collect();
        if !referenced.is_empty() {
            section.declared(Elements::Functions(referenced.into_iter().collect::<Vec<_>>().into()));
        }
        Some(section)
    }

    fn data(&mut self) -> Option<DataSection> {
        let mut section = DataSection::new();
        for (member, renumber) in self.group.members.iter().zip(&mut self.members) {
            for data in &member.module.data {
                renumber.parse_data(&mut section, data.clone()).ok()?;
            }
        }
        Some(section)
    }

    fn code(&mut self, start: &Start) -> Option<CodeSection> {
        let mut section = CodeSection::new();
        for (member, renumber) in self.group.members.iter().zip(&mut self.members) {
            for body in &member.module.bodies {
                renumber.parse_function_body(&mut section, body.clone()).ok()?;
            }
        }
        if let Start::All { starts, .. } = start {
            let mut function = Function::new([]);
            for start in starts {
                function.instructions().call(*start);
            }
            function.instructions().end();
            section.function(&function);
        }
        Some(section)
    }

    /// Keeps the names of functions, which tell the author of a plugin where it trapped.
    fn names(&self) -> NameSection {
        let mut map = NameMap::new();
        for (member, renumber) in self.group.members.iter().zip(&self.members) {
            let first = member.module.imported_count(Space::Func);
            for (index, name) in &member.module.names {
                if *index >= first
                    && let Some(func) = renumber.item(Space::Func, *index)
                {
                    map.append(func, name);
                }
            }
        }
        let mut section = NameSection::new();
        section.functions(&map);
        section
    }

    /// Decides how the module starts.
    fn start(&mut self) -> Option<Start> {
        let mut starts = Vec::new();
        for (member, renumber) in self.group.members.iter().zip(&self.members) {
            if let Some(start) = member.module.start {
                starts.push(renumber.item(Space::Func, start)?);
            }
        }
        Some(match starts[..] {
            [] => Start::None,
            [start] => Start::One(start),
            _ => {
                let ty = self.types.index(&FuncType::new([], []))?;
                Start::All { function: self.counts[Space::Func as usize], ty, starts }
            }
        })
    }
}

/// How a module starts.
enum Start {
    None,
    One(u32),
    /// By a function of its own, which calls one after the other.
    All {
        function: u32,
        ty: u32,
        starts: Vec<u32>,
    },
}

impl Start {
    fn function(&self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::One(function) | Self::All { function, .. } => Some(*function),
        }
    }
}
