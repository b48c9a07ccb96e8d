//! The contract as TypeScript declarations, in the shape in which componentize-qjs hands values to JavaScript.

use std::fmt::Write as _;

use wit_bindgen_core::wit_parser::{
    Docs, Function, FunctionKind, Handle, Interface, InterfaceId, Resolve, Result_, Type, TypeDefKind, TypeId,
    TypeOwner, WorldId, WorldItem,
};

/// Returns the declarations of everything that a world imports: a module for each interface.
///
/// # Errors
/// A function of a kind that the contract has none of yet: left out, it would be missing in the languages that need types.
pub(crate) fn declarations(resolve: &Resolve, world: WorldId) -> Result<String, String> {
    let mut text = "// Generated from wit/*.wit.\n".to_owned();
    for item in resolve.worlds[world].imports.values() {
        if let WorldItem::Interface { id, .. } = item {
            known(resolve, *id)?;
            module(&mut text, resolve, *id);
        }
    }
    Ok(text)
}

/// Refuses what `functions` does not write.
fn known(resolve: &Resolve, id: InterfaceId) -> Result<(), String> {
    let is_written = |kind: &FunctionKind| matches!(kind, FunctionKind::Freestanding | FunctionKind::Method(_));
    match resolve.interfaces[id].functions.values().find(|function| !is_written(&function.kind)) {
        None => Ok(()),
        Some(Function { name: function, .. }) => Err(format!(
            "`{function}` of {} is of a kind for which host/build/typescript.rs writes no declaration; add it there",
            name(resolve, id)
        )),
    }
}

/// Writes an interface as a module: its types, and one default export with its functions.
fn module(text: &mut String, resolve: &Resolve, id: InterfaceId) {
    let interface = &resolve.interfaces[id];
    text.push('\n');
    docs(text, &interface.docs, "");
    let _ = writeln!(text, "declare module \"{}\" {{", name(resolve, id));
    let mut used = foreign(resolve, id, interface);
    used.sort();
    for (name, module) in used {
        let _ = writeln!(text, "  import type {{ {name} }} from \"{module}\";");
    }
    for (name, id) in &interface.types {
        definition(text, resolve, interface, name, *id);
    }
    let functions = functions(resolve, interface, None);
    if !functions.is_empty() {
        let _ = writeln!(text, "\n  const functions: {{\n{functions}  }};\n  export default functions;");
    }
    text.push_str("}\n");
}

/// `aviary:bot/types@0.1.0`
fn name(resolve: &Resolve, id: InterfaceId) -> String {
    resolve.id_of(id).unwrap_or_default()
}

/// The types that an interface takes from others, with their modules.
fn foreign(resolve: &Resolve, id: InterfaceId, interface: &Interface) -> Vec<(String, String)> {
    let owner = |type_id: &TypeId| match resolve.types[*type_id].kind {
        TypeDefKind::Type(Type::Id(original)) => match resolve.types[original].owner {
            TypeOwner::Interface(owner) if owner != id => Some(name(resolve, owner)),
            _ => None,
        },
        _ => None,
    };
    interface.types.iter().filter_map(|(name, id)| Some((pascal(name), owner(id)?))).collect()
}

/// Writes the declaration of a type, unless it is another interface's.
fn definition(text: &mut String, resolve: &Resolve, interface: &Interface, name: &str, id: TypeId) {
    let definition = &resolve.types[id];
    let body = match &definition.kind {
        TypeDefKind::Record(record) => {
            let fields = record.fields.iter().map(|field| {
                let mut line = String::new();
                docs(&mut line, &field.docs, "    ");
                let _ = writeln!(line, "    {}: {};", camel(&field.name), reference(resolve, field.ty));
                line
            });
            format!("{{\n{}  }}", fields.collect::<String>())
        }
        TypeDefKind::Variant(variant) => {
            let cases = variant.cases.iter().map(|case| {
                let mut line = String::from("\n");
                docs(&mut line, &case.docs, "    ");
                let value = case.ty.map(|ty| format!("; val: {}", reference(resolve, ty))).unwrap_or_default();
                let _ = write!(line, "    | {{ tag: \"{}\"{value} }}", case.name);
                line
            });
            cases.collect()
        }
        TypeDefKind::Enum(cases) => {
            cases.cases.iter().map(|case| format!("\"{}\"", case.name)).collect::<Vec<_>>().join(" | ")
        }
        TypeDefKind::Resource => {
            text.push('\n');
            docs(text, &definition.docs, "  ");
            let methods = functions(resolve, interface, Some(id));
            let _ = writeln!(text, "  export interface {} {{\n{methods}  }}", pascal(name));
            return;
        }
        TypeDefKind::Type(_) => return,
        other => structural(resolve, other),
    };
    text.push('\n');
    docs(text, &definition.docs, "  ");
    let _ = writeln!(text, "  export type {} = {body};", pascal(name));
}

/// Writes the methods of a resource, or the functions that belong to none.
fn functions(resolve: &Resolve, interface: &Interface, resource: Option<TypeId>) -> String {
    let mut text = String::new();
    for function in interface.functions.values() {
        let is_wanted = match function.kind {
            FunctionKind::Freestanding => resource.is_none(),
            FunctionKind::Method(id) => resource == Some(id),
            _ => false,
        };
        if is_wanted {
            signature(&mut text, resolve, function);
        }
    }
    text
}

/// Writes a function. An error is thrown, so only the good result is its type.
fn signature(text: &mut String, resolve: &Resolve, function: &Function) {
    let mut words = function.docs.contents.clone().unwrap_or_default();
    let result = match function.result {
        None => "void".to_owned(),
        Some(Type::Id(id)) => match &resolve.types[id].kind {
            TypeDefKind::Result(Result_ { ok, err }) => {
                if let Some(err) = err {
                    let _ = write!(words, "\nThrows `{}`.", reference(resolve, *err));
                }
                ok.map_or_else(|| "void".into(), |ok| reference(resolve, ok))
            }
            _ => reference(resolve, Type::Id(id)),
        },
        Some(ty) => reference(resolve, ty),
    };
    docs(text, &Docs { contents: Some(words.trim().to_owned()) }, "    ");
    let is_method = matches!(function.kind, FunctionKind::Method(_));
    let params = function.params.iter().skip(usize::from(is_method));
    let params: Vec<_> =
        params.map(|param| format!("{}: {}", camel(&param.name), reference(resolve, param.ty))).collect();
    let _ = writeln!(text, "    {}({}): {result};", camel(function.item_name()), params.join(", "));
}

/// A type as it is written where it is used.
fn reference(resolve: &Resolve, ty: Type) -> String {
    match ty {
        Type::Bool => "boolean".into(),
        Type::Char | Type::String => "string".into(),
        Type::Id(id) => match &resolve.types[id] {
            definition if definition.name.is_some() => pascal(definition.name.as_deref().unwrap_or_default()),
            definition => structural(resolve, &definition.kind),
        },
        _ => "number".into(),
    }
}

/// A type that has no name.
fn structural(resolve: &Resolve, kind: &TypeDefKind) -> String {
    match kind {
        TypeDefKind::Option(ty) => format!("{} | null", reference(resolve, *ty)),
        TypeDefKind::List(Type::U8) => "Uint8Array".into(),
        TypeDefKind::List(ty) => format!("Array<{}>", reference(resolve, *ty)),
        TypeDefKind::Tuple(tuple) => {
            format!("[{}]", tuple.types.iter().map(|ty| reference(resolve, *ty)).collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Handle(Handle::Own(id) | Handle::Borrow(id)) | TypeDefKind::Type(Type::Id(id)) => {
            reference(resolve, Type::Id(*id))
        }
        // The contract has none of these; a type that is not known stops nobody.
        _ => "unknown".into(),
    }
}

fn docs(text: &mut String, docs: &Docs, indent: &str) {
    let Some(contents) = docs.contents.as_deref().filter(|contents| !contents.is_empty()) else { return };
    let lines: Vec<&str> = contents.trim().lines().collect();
    match lines.as_slice() {
        [line] => _ = writeln!(text, "{indent}/** {line} */"),
        lines => {
            let _ = writeln!(text, "{indent}/**");
            lines.iter().for_each(|line| _ = writeln!(text, "{}", format!("{indent} * {line}").trim_end()));
            let _ = writeln!(text, "{indent} */");
        }
    }
}

/// `media-id16k` as `mediaId16k`.
fn camel(name: &str) -> String {
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &capitalised(word))
}

/// `media-id` as `MediaId`.
fn pascal(name: &str) -> String {
    name.split('-').map(capitalised).collect()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
}
