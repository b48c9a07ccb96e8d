//! Every leaf of a push, each to be taken by one typed field or left for `extra`.

use std::{ops::Range, str::FromStr};

use aviary_wechat::xml::{Element, Leaf};

use crate::plugin::bindings::Field;

/// The leaves of a push, in the order they came.
///
/// A value leaves here in one of two ways: a read that understood it takes it, or [`Fields::into_extra`]
/// returns it. What an [`attempt`](Fields::attempt) took comes back when the attempt fails.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    leaves: Vec<Leaf<'a>>,
    is_taken: Vec<bool>,
    /// Which leaves were taken, the latest last: what a failed attempt has to put back.
    taken: Vec<usize>,
    /// Where the next read looks: everywhere, or in one entry of a list.
    scope: Scope,
}

#[derive(Debug)]
struct Scope {
    leaves: Range<usize>,
    /// How much of these leaves' paths is the path of the entry itself.
    prefix_bytes: usize,
}

impl<'a> Fields<'a> {
    /// Takes stock of a push. `Encrypt` is not content: it is the whole push once more.
    pub(super) fn of(root: &'a Element) -> Self {
        let mut leaves = root.leaves();
        leaves.retain(|leaf| !is_at_or_below(&leaf.path, "Encrypt"));
        let scope = Scope { leaves: 0..leaves.len(), prefix_bytes: 0 };
        Self { is_taken: vec![false; leaves.len()], taken: Vec::new(), leaves, scope }
    }

    /// Takes the leaf at `path` if `parse` understands it. A path without numbers is the first occurrence.
    pub(super) fn read<T>(&mut self, path: &str, parse: impl FnOnce(&'a str) -> Option<T>) -> Option<T> {
        let Scope { leaves, prefix_bytes } = &self.scope;
        let is_it = |index: &usize| self.leaves[*index].path.get(*prefix_bytes..) == Some(path);
        let index = leaves.clone().find(is_it)?;
        self.take(index, parse)
    }

    /// Takes the text at `path`, which may be empty.
    pub(super) fn text(&mut self, path: &str) -> Option<String> {
        self.read(path, |text| Some(text.to_owned()))
    }

    /// Takes the text at `path` unless there is only white space.
    pub(super) fn filled(&mut self, path: &str) -> Option<String> {
        self.read(path, |text| (!text.trim().is_empty()).then(|| text.to_owned()))
    }

    /// Takes the whole number at `path`, if there is one and it fits.
    pub(super) fn number<N: FromStr>(&mut self, path: &str) -> Option<N> {
        self.read(path, |text| text.trim().parse().ok())
    }

    /// Takes the decimal number at `path`. Rust also reads `nan` and `inf`, which are no places on earth.
    pub(super) fn decimal(&mut self, path: &str) -> Option<f64> {
        self.read(path, |text| text.trim().parse().ok().filter(|number: &f64| number.is_finite()))
    }

    /// Takes the number of the last leaf of that name below the root.
    pub(super) fn last_number<N: FromStr>(&mut self, name: &str) -> Option<N> {
        let index = self.leaves.iter().rposition(|leaf| is_at(leaf, name))?;
        self.take(index, |text| text.trim().parse().ok())
    }

    /// Takes the texts at `path` wherever they are, whichever of the elements on the way repeats.
    pub(super) fn every(&mut self, path: &str) -> Vec<String> {
        let found = |index: &usize| is_at(&self.leaves[*index], path);
        let found: Vec<usize> = (0..self.leaves.len()).filter(found).collect();
        found.into_iter().filter_map(|index| self.take(index, |text| Some(text.to_owned()))).collect()
    }

    /// Reads each of the elements at `path`, inside which paths begin anew. Nothing if there are none,
    /// or if `read` finds one unreadable.
    pub(super) fn each<T>(&mut self, path: &str, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut entries = Vec::new();
        let mut start = 0;
        while let Some(leaf) = self.leaves.get(start) {
            let Some(entry) = entry(&leaf.path, path) else {
                start += 1;
                continue;
            };
            // The leaves of one element stand together.
            let in_entry = |leaf: &&Leaf<'_>| leaf.path.starts_with(entry);
            let end = start + self.leaves[start..].iter().take_while(in_entry).count();
            let scope = Scope { leaves: start..end, prefix_bytes: entry.len() };
            let outer = std::mem::replace(&mut self.scope, scope);
            let value = read(self);
            self.scope = outer;
            entries.push(value?);
            start = end;
        }
        (!entries.is_empty()).then_some(entries)
    }

    /// Reads something that counts only whole: if it fails, what it took is put back.
    pub(super) fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = self.taken.len();
        let value = read(self);
        if value.is_none() {
            for index in self.taken.drain(before..) {
                self.is_taken[index] = false;
            }
        }
        value
    }

    /// Returns what nobody took.
    pub(super) fn into_extra(self) -> Vec<Field> {
        let leaves = self.leaves.into_iter().zip(self.is_taken);
        leaves
            .filter(|(_, is_taken)| !is_taken)
            .map(|(leaf, _)| Field { path: leaf.path, value: leaf.value.to_owned() })
            .collect()
    }

    /// A leaf has one home: whoever understands it first.
    fn take<T>(&mut self, index: usize, parse: impl FnOnce(&'a str) -> Option<T>) -> Option<T> {
        if self.is_taken[index] {
            return None;
        }
        let value = parse(self.leaves[index].value)?;
        self.is_taken[index] = true;
        self.taken.push(index);
        Some(value)
    }
}

/// Tells whether a leaf's path is `path` but for the numbers of repeated elements.
fn is_at(leaf: &Leaf<'_>, path: &str) -> bool {
    leaf.path.split('/').map(name).eq(path.split('/'))
}

/// Tells whether a leaf's path is that of an element at `place`, or leads through one.
fn is_at_or_below(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '[']))
}

/// Returns a step of a path without its number: no element's name contains a bracket.
fn name(step: &str) -> &str {
    step.split_once('[').map_or(step, |(name, _)| name)
}

/// Returns the part of `leaf` that names an element at `list`, up to and with its slash: `A/List[2]/` of
/// `A/List[2]/Id`. An element at `list` that is itself a leaf is returned whole.
fn entry<'p>(leaf: &'p str, list: &str) -> Option<&'p str> {
    if !is_at_or_below(leaf, list) {
        return None;
    }
    let rest = &leaf[list.len()..];
    let end = rest.find('/').map_or(leaf.len(), |slash| list.len() + slash + 1);
    Some(&leaf[..end])
}

#[cfg(test)]
mod tests {
    use aviary_wechat::xml;

    use super::*;

    #[test]
    fn a_leaf_has_one_home() {
        let root = xml::parse(b"<xml><a>1</a></xml>").unwrap();
        let mut fields = Fields::of(&root);
        assert_eq!(fields.number::<u8>("a"), Some(1));
        assert_eq!(fields.text("a"), None);
        assert_eq!(fields.into_extra(), []);
    }

    #[test]
    fn a_failed_attempt_puts_back_what_it_took_and_no_more() {
        let root = xml::parse(b"<xml><a>1</a><b>2</b><c>3</c></xml>").unwrap();
        let mut fields = Fields::of(&root);
        let outer = fields.attempt(|fields| {
            let a = fields.text("a")?;
            let inner = fields.attempt(|fields| {
                fields.text("b")?;
                fields.text("missing")
            });
            Some((a, inner))
        });
        assert_eq!(outer, Some(("1".to_owned(), None)));
        let rest = fields.into_extra();
        assert_eq!(rest.iter().map(|field| field.path.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn a_long_list_is_read_in_order() {
        let entries: String = (0..300).map(|id| format!("<List><Id>{id}</Id></List>")).collect();
        let root = xml::parse(format!("<xml><A>{entries}</A></xml>").as_bytes()).unwrap();
        let mut fields = Fields::of(&root);
        let ids = fields.each("A/List", |list| list.number::<u32>("Id"));
        assert_eq!(ids, Some((0..300).collect()));
        assert_eq!(fields.into_extra(), []);
    }
}
