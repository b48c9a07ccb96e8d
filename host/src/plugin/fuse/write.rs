//! A component whose group is one module, and everything else as it was.
//!
//! Steps are written in their order. Names of core items are written where they are needed: those of the group can only be
//! once it is instantiated, and most of them nobody needs any more.

use std::collections::{BTreeMap, HashMap};

use wasm_encoder::{
    Alias, CanonicalFunctionSection, Component, ComponentAliasSection, ComponentSection, ComponentSectionId,
    ExportKind, InstanceSection, ModuleArg, RawSection,
    reencode::{Error, Reencode, ReencodeComponent, RoundtripReencoder},
};
use wasmparser::Import;

use super::{
    group::{Group, Outside},
    layout::{Instance, Item, Layout, SPACES, Source, Space, Step},
    merge::{IMPORTS_FROM, Merged},
    module::Module,
};

/// How many names may stand for one another. Each is written before the one that stands for it.
const DEPTH_MAX: usize = 64;

pub(super) struct Writer<'l, 'a> {
    layout: &'l Layout<'a>,
    group: &'l Group<'a>,
    merged: Merged<'l, 'a>,
    out: Vec<u8>,
    /// Where the module of the group is to be put in: in the place of its first member, so that no module's number changes.
    module_at: Option<usize>,
    /// The step that is being written.
    step: usize,
    depth: usize,
    /// How many core items and core instances there are so far.
    counts: [u32; SPACES],
    instances: u32,
    /// The new numbers, by the old ones.
    new_items: HashMap<(Space, u32), u32>,
    new_instances: HashMap<u32, u32>,
    /// The instance of the group, once there is one.
    fused: Option<u32>,
    /// What the group exports, in the order of its names, with the number of its alias.
    exports: Vec<(Space, u32)>,
    aliases: HashMap<(Space, u32), u32>,
}

/// Something is needed before it is there.
#[derive(Debug)]
pub(super) struct NotYet;

impl<'l, 'a> Writer<'l, 'a> {
    pub fn new(layout: &'l Layout<'a>, group: &'l Group<'a>) -> Option<Self> {
        Some(Self {
            layout,
            group,
            merged: Merged::number(group)?,
            out: Component::HEADER.to_vec(),
            module_at: None,
            step: 0,
            depth: 0,
            counts: [0; SPACES],
            instances: 0,
            new_items: HashMap::new(),
            new_instances: HashMap::new(),
            fused: None,
            exports: Vec::new(),
            aliases: HashMap::new(),
        })
    }

    /// Writes the component.
    pub fn write(mut self) -> Option<Vec<u8>> {
        for (number, step) in self.layout.steps.iter().enumerate() {
            self.step = number;
            self.write_step(step)?;
        }
        self.step = self.layout.steps.len();
        self.fused()?;
        let module = self.merged.encode(&self.exports)?;
        let rest = self.out.split_off(self.module_at?);
        section(ComponentSectionId::CoreModule, &module).append_to_component(&mut self.out);
        self.out.extend(rest);
        Some(self.out)
    }

    fn write_step(&mut self, step: &Step<'a>) -> Option<()> {
        match step {
            Step::Section { id, data } => RawSection { id: *id, data }.append_to_component(&mut self.out),
            Step::Components { id, data } => {
                self.start_group()?;
                RawSection { id: *id, data }.append_to_component(&mut self.out);
            }
            Step::Module { module } => self.write_module(*module)?,
            Step::Alias(alias) => {
                let alias = RoundtripReencoder.component_alias(alias.clone()).ok()?;
                ComponentAliasSection::new().alias(alias).append_to_component(&mut self.out);
            }
            Step::Lift(function) => self.write_canon(function)?,
            Step::Instantiate { instance } => {
                if self.group.place(*instance).is_none() {
                    self.instantiate(*instance)?;
                }
            }
        }
        Some(())
    }

    /// Writes a module of nobody in the group as it is, and an empty one for a member.
    fn write_module(&mut self, module: u32) -> Option<()> {
        let is_member = self.group.members.iter().any(|member| member.module_index == module);
        if is_member && self.module_at.is_none() {
            self.module_at = Some(self.out.len());
            return Some(());
        }
        let data =
            if is_member { &wasm_encoder::Module::HEADER[..] } else { self.layout.modules.get(module as usize)? };
        section(ComponentSectionId::CoreModule, data).append_to_component(&mut self.out);
        Some(())
    }

    fn write_canon(&mut self, function: &wasmparser::CanonicalFunction) -> Option<()> {
        let mut section = CanonicalFunctionSection::new();
        self.parse_component_canonical(&mut section, function.clone()).ok()?;
        section.append_to_component(&mut self.out);
        Some(())
    }

    /// Writes the group's instance if making it runs code, which ran before that of what comes next.
    fn start_group(&mut self) -> Option<()> {
        if self.group.has_start() {
            self.fused()?;
        }
        Some(())
    }

    /// Writes an instance of a module outside the group.
    fn instantiate(&mut self, instance: u32) -> Option<()> {
        let Instance::Module { module, args } = self.layout.instance(instance)? else { return None };
        self.start_group()?;
        let imports = Module::read(self.layout.modules.get(*module as usize)?)?.imports;
        let mut new_args = Vec::new();
        for (name, arg) in args {
            let arg = match self.group.place(*arg) {
                Some(member) => self.member_for(member, imports.iter().filter(|import| import.module == *name))?,
                None => self.instance(*arg)?,
            };
            new_args.push((*name, ModuleArg::Instance(arg)));
        }
        InstanceSection::new().instantiate(*module, new_args).append_to_component(&mut self.out);
        let new = self.next_instance();
        self.new_instances.insert(instance, new);
        Some(())
    }

    /// Writes an instance with those exports of a member that are imported from it.
    fn member_for<'i>(&mut self, member: usize, imports: impl Iterator<Item = &'i Import<'a>>) -> Option<u32>
    where
        'a: 'i,
    {
        let mut items = BTreeMap::new();
        for import in imports {
            let (space, target) = self.group.export(member, import.name)?;
            let index = self.merged.target(space, target)?;
            items.insert(import.name, (space, self.alias_of_fused(space, index)?));
        }
        self.write_items(items)
    }

    fn write_items<'n>(&mut self, items: impl IntoIterator<Item = (&'n str, (Space, u32))>) -> Option<u32> {
        let items: Vec<_> =
            items.into_iter().map(|(name, (space, index))| (name, ExportKind::from(space), index)).collect();
        InstanceSection::new().export_items(items).append_to_component(&mut self.out);
        Some(self.next_instance())
    }

    /// The new number of an instance outside the group.
    fn instance(&mut self, instance: u32) -> Option<u32> {
        if let Some(new) = self.new_instances.get(&instance) {
            return Some(*new);
        }
        let Instance::Items(items) = self.layout.instance(instance)? else { return None };
        let mut new_items = Vec::with_capacity(items.len());
        for (name, (space, index)) in items {
            new_items.push((*name, (*space, self.item(*space, *index)?)));
        }
        let new = self.write_items(new_items)?;
        self.new_instances.insert(instance, new);
        Some(new)
    }

    /// The new number of a core item, which is written if it has none yet.
    fn item(&mut self, space: Space, index: u32) -> Option<u32> {
        if let Some(new) = self.new_items.get(&(space, index)) {
            return Some(*new);
        }
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let new = match self.layout.item(space, index)? {
            // What it was made of may come only later.
            Item::Canon { position, .. } if *position > self.step => return None,
            Item::Canon { function, .. } => {
                self.write_canon(function)?;
                self.next_item(space)
            }
            Item::Export { instance, name } => match self.group.place(*instance) {
                Some(member) => {
                    let (_, target) = self.group.export(member, name)?;
                    let index = self.merged.target(space, target)?;
                    self.alias_of_fused(space, index)?
                }
                None => {
                    let instance = self.instance(*instance)?;
                    self.alias(space, instance, name)
                }
            },
        };
        self.depth -= 1;
        self.new_items.insert((space, index), new);
        Some(new)
    }

    /// The number of the group's instance, which is written if it is not yet.
    fn fused(&mut self) -> Option<u32> {
        if let Some(fused) = self.fused {
            return Some(fused);
        }
        let mut items = Vec::new();
        for (name, Outside { source, space, .. }) in self.group.outside.iter().enumerate() {
            let item = match *source {
                Source::Canon { func } => self.item(Space::Func, func)?,
                Source::Export { instance, name } => {
                    let instance = self.instance(instance)?;
                    self.alias(*space, instance, name)
                }
            };
            items.push((name.to_string(), (*space, item)));
        }
        let imports = self.write_items(items.iter().map(|(name, item)| (name.as_str(), *item)))?;
        let module = self.group.members.iter().map(|member| member.module_index).min()?;
        let args = [(IMPORTS_FROM, ModuleArg::Instance(imports))];
        InstanceSection::new().instantiate(module, args).append_to_component(&mut self.out);
        let fused = self.next_instance();
        self.fused = Some(fused);
        Some(fused)
    }

    fn alias_of_fused(&mut self, space: Space, index: u32) -> Option<u32> {
        let fused = self.fused()?;
        if let Some(alias) = self.aliases.get(&(space, index)) {
            return Some(*alias);
        }
        let name = self.exports.len().to_string();
        self.exports.push((space, index));
        let alias = self.alias(space, fused, &name);
        self.aliases.insert((space, index), alias);
        Some(alias)
    }

    fn alias(&mut self, space: Space, instance: u32, name: &str) -> u32 {
        let alias = Alias::CoreInstanceExport { instance, kind: space.into(), name };
        ComponentAliasSection::new().alias(alias).append_to_component(&mut self.out);
        self.next_item(space)
    }

    fn next_item(&mut self, space: Space) -> u32 {
        let count = &mut self.counts[space as usize];
        *count += 1;
        *count - 1
    }

    fn next_instance(&mut self) -> u32 {
        self.instances += 1;
        self.instances - 1
    }

    fn known(&mut self, space: Space, index: u32) -> Result<u32, Error<NotYet>> {
        self.item(space, index).ok_or(Error::UserError(NotYet))
    }
}

fn section(id: ComponentSectionId, data: &[u8]) -> RawSection<'_> {
    RawSection { id: id.into(), data }
}

impl Reencode for Writer<'_, '_> {
    type Error = NotYet;

    fn function_index(&mut self, func: u32) -> Result<u32, Error<NotYet>> {
        self.known(Space::Func, func)
    }

    fn table_index(&mut self, table: u32) -> Result<u32, Error<NotYet>> {
        self.known(Space::Table, table)
    }

    fn memory_index(&mut self, memory: u32) -> Result<u32, Error<NotYet>> {
        self.known(Space::Memory, memory)
    }
}

impl ReencodeComponent for Writer<'_, '_> {}
