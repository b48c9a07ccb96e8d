//! Which instances of a component become one, and what each of their imports is.
//!
//! Linked together, they are instantiated when the first from outside needs one of them: earlier than the last of them was.
//! So none may depend on anything that depends on the others, and none may notice that it comes before what came before it.

use std::collections::{BTreeMap, HashMap, HashSet};

use wasmparser::TypeRef;

use super::{
    layout::{Instance, Layout, Source, Space, Step},
    module::{Module, space_of},
};

/// The instances that become one, in the order of the component.
#[derive(Default)]
pub(super) struct Group<'a> {
    pub members: Vec<Member<'a>>,
    /// What they import from others.
    pub outside: Vec<Outside<'a>>,
    /// Each member's place, by the number of its instance.
    places: HashMap<u32, usize>,
}

/// An instance of the group.
pub(super) struct Member<'a> {
    /// The number of its module.
    pub module_index: u32,
    pub module: Module<'a>,
    /// What it imports, in the order of its module.
    pub imports: Vec<Target>,
}

/// What a member's import is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// What the member at that place defines under that number.
    Inside { member: usize, index: u32 },
    /// An import of the group.
    Outside(usize),
}

/// An import of the group.
pub(super) struct Outside<'a> {
    pub source: Source<'a>,
    pub space: Space,
    /// Its type, as the member at that place puts it.
    pub ty: TypeRef,
    pub member: usize,
}

/// What an import leads to, before it is decided whose it is.
enum Lead<'a> {
    /// Something of the group.
    Inside(Target),
    /// Something that does not depend on the group.
    Free(Source<'a>),
    /// Something that does.
    Tied,
}

/// Goes through the instances in their order.
struct Search<'l, 'a> {
    layout: &'l Layout<'a>,
    group: Group<'a>,
    outside: HashMap<Source<'a>, usize>,
    /// Instances outside the group that depend on it.
    tied: HashSet<u32>,
    /// What they write to.
    written: HashSet<(Space, Target)>,
    /// Whether there is any instance outside the group so far.
    has_others: bool,
    /// Whether nobody can join any more.
    is_closed: bool,
}

impl<'a> Group<'a> {
    /// Finds the group. `None` if there is nothing to gain.
    pub fn find(layout: &Layout<'a>) -> Option<Self> {
        let mut modules = HashSet::new();
        let is_first = |instance: &Instance<'_>| match instance {
            Instance::Module { module, .. } => modules.insert(*module),
            Instance::Items(_) => true,
        };
        // Two instances of one module would need its code twice. And a module is read here for each of its instances.
        if !layout.instances.iter().all(is_first) {
            return None;
        }
        let mut search = Search {
            layout,
            group: Self::default(),
            outside: HashMap::new(),
            tied: HashSet::new(),
            written: HashSet::new(),
            has_others: false,
            is_closed: false,
        };
        for step in &layout.steps {
            match step {
                Step::Instantiate { instance } => search.visit(*instance)?,
                // Its code may run here, too.
                Step::Components { .. } => search.has_others = true,
                _ => {}
            }
        }
        let group = search.group;
        // A table and a memory that are imported are another member's: see `is_free`.
        group.members.iter().any(|member| member.module.is_library()).then_some(group)
    }

    /// Returns the place of an instance, if it is a member.
    pub fn place(&self, instance: u32) -> Option<usize> {
        self.places.get(&instance).copied()
    }

    /// Returns what a member's export is.
    pub fn export(&self, member: usize, name: &str) -> Option<(Space, Target)> {
        let Member { module, imports, .. } = self.members.get(member)?;
        let (space, index) = *module.exports.get(name)?;
        Some((space, target(module, imports, member, space, index)?))
    }

    /// Tells whether instantiating the group runs code.
    pub fn has_start(&self) -> bool {
        self.members.iter().any(|member| member.module.start.is_some())
    }
}

impl<'a> Search<'_, 'a> {
    /// Takes an instance into the group, or passes it over.
    fn visit(&mut self, instance: u32) -> Option<()> {
        let Instance::Module { module: module_index, args } = self.layout.instance(instance)? else { return None };
        let module = Module::read(self.layout.modules.get(*module_index as usize)?)?;
        let leads = self.leads(&module, args)?;
        if self.is_closed || !self.may_join(&module, &leads) {
            self.pass_over(instance, &module, &leads);
        } else {
            self.join(instance, *module_index, module, leads);
        }
        Some(())
    }

    fn leads(&self, module: &Module<'a>, args: &BTreeMap<&'a str, u32>) -> Option<Vec<Lead<'a>>> {
        let lead = |import: &wasmparser::Import<'a>| {
            let space = space_of(import.ty)?;
            let source = self.layout.source(*args.get(import.module)?, import.name, space)?;
            Some(match source {
                Source::Export { instance, name } => match self.group.place(instance) {
                    Some(member) => Lead::Inside(self.group.export(member, name)?.1),
                    None if self.tied.contains(&instance) => Lead::Tied,
                    None => Lead::Free(source),
                },
                Source::Canon { func } if self.layout.needs_no_core(func) => Lead::Free(source),
                Source::Canon { .. } => Lead::Tied,
            })
        };
        module.imports.iter().map(lead).collect()
    }

    fn may_join(&self, module: &Module<'a>, leads: &[Lead<'a>]) -> bool {
        let is_known = module.imports.iter().zip(leads).all(|(import, lead)| match lead {
            Lead::Inside(_) => true,
            Lead::Free(_) => is_free(import.ty),
            Lead::Tied => false,
        });
        // Its code would run before what others do, and what it calls may be theirs.
        let is_too_early = module.start.is_some() && self.has_others;
        // Code that ran before would run after.
        let is_too_late = self.group.has_start() && module.written().next().is_some();
        // What others wrote over, it would write over.
        let mut written = module.written().filter_map(|(space, index)| written_target(module, leads, space, index));
        let is_written_over = written.any(|target| self.written.contains(&target));
        is_known && !is_too_early && !is_too_late && !is_written_over
    }

    fn join(&mut self, instance: u32, module_index: u32, module: Module<'a>, leads: Vec<Lead<'a>>) {
        let member = self.group.members.len();
        let mut imports = Vec::with_capacity(leads.len());
        for (import, lead) in module.imports.iter().zip(leads) {
            imports.push(match lead {
                Lead::Inside(target) => target,
                Lead::Free(source) => {
                    let outside = &mut self.group.outside;
                    Target::Outside(*self.outside.entry(source).or_insert_with(|| {
                        let space = space_of(import.ty).unwrap_or(Space::Func);
                        outside.push(Outside { source, space, ty: import.ty, member });
                        outside.len() - 1
                    }))
                }
                // `may_join` let none through.
                Lead::Tied => return,
            });
        }
        self.group.places.insert(instance, member);
        self.group.members.push(Member { module_index, module, imports });
    }

    fn pass_over(&mut self, instance: u32, module: &Module<'a>, leads: &[Lead<'a>]) {
        self.has_others = true;
        if leads.iter().all(|lead| matches!(lead, Lead::Free(_))) {
            return;
        }
        self.tied.insert(instance);
        // Its code may do anything to the group, and what it has from another that depends on the group may be the group's.
        let is_unclear = |(space, index)| matches!(written_lead(module, leads, space, index), Some(Lead::Tied));
        self.is_closed |= module.start.is_some() || module.written().any(is_unclear);
        let written = module.written().filter_map(|(space, index)| written_target(module, leads, space, index));
        self.written.extend(written);
    }
}

/// What the group may import: what never changes, so that nobody notices when it is taken.
fn is_free(ty: TypeRef) -> bool {
    match ty {
        TypeRef::Func(_) => true,
        TypeRef::Global(global) => !global.mutable,
        _ => false,
    }
}

/// Which table or memory of the group a module means by its number.
fn written_target(module: &Module<'_>, leads: &[Lead<'_>], space: Space, index: u32) -> Option<(Space, Target)> {
    match written_lead(module, leads, space, index)? {
        Lead::Inside(target) => Some((space, *target)),
        Lead::Free(_) | Lead::Tied => None,
    }
}

/// Where a table or memory leads that a module imports.
fn written_lead<'l, 'a>(module: &Module<'_>, leads: &'l [Lead<'a>], space: Space, index: u32) -> Option<&'l Lead<'a>> {
    leads.get(*module.imported[space as usize].get(index as usize)?)
}

/// What a member means by a number.
pub(super) fn target(
    module: &Module<'_>,
    imports: &[Target],
    member: usize,
    space: Space,
    index: u32,
) -> Option<Target> {
    match module.imported[space as usize].get(index as usize) {
        Some(import) => imports.get(*import).copied(),
        None => Some(Target::Inside { member, index }),
    }
}
