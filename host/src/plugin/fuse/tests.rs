use wasmparser::{ConstExpr, DataKind, ElementKind, Operator, Validator};
use wasmtime::{
    Store,
    component::{Component, Linker},
};

use super::{fuse, layout::Layout, module::Module};
use crate::plugin::engine::{Class, compiler};

/// Two libraries as wit-component links them: `env` has the table, the memory and where everybody's part of them begins,
/// and `fixup` comes last.
const LIBRARIES: &str = r#"(component
    (import "double" (func $double (param "n" u32) (result u32)))
    (core module $env
        (table (export "table") 8 funcref)
        (memory (export "memory") 1)
        (global (export "first-elements") i32 (i32.const 1))
        (global (export "first-data") i32 (i32.const 64))
        (global (export "second-elements") i32 (i32.const 4))
        (global (export "second-data") i32 (i32.const 128))
        (global (export "calls") (mut i32) (i32.const 0)))
    (core module $first
        (type $unary (func (param i32) (result i32)))
        (import "env" "table" (table 8 funcref))
        (import "env" "memory" (memory 1))
        (import "env" "elements" (global $elements i32))
        (import "env" "data" (global $data i32))
        (import "env" "calls" (global $calls (mut i32)))
        (import "host" "double" (func $double (type $unary)))
        (elem (global.get $elements) func $add $count)
        (data (global.get $data) "\05")
        (func $add (type $unary) (i32.add (local.get 0) (i32.load8_u (global.get $data))))
        (func $count (type $unary)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (i32.add (local.get 0) (global.get $calls)))
        (func (export "double") (type $unary) (call $double (local.get 0))))
    (core module $second
        (type $unrelated (func (param i64)))
        (type $unary (func (param i32) (result i32)))
        (import "env" "memory" (memory 1))
        (import "env" "table" (table 8 funcref))
        (import "env" "elements" (global $elements i32))
        (import "env" "data" (global $data i32))
        (import "first" "double" (func $double (type $unary)))
        (elem (global.get $elements) func $subtract)
        (data (i32.add (global.get $data) (i32.const 4)) "\03")
        (func $subtract (type $unary) (i32.sub (local.get 0) (i32.load8_u offset=4 (global.get $data))))
        (func (export "increment") (type $unary) (i32.add (local.get 0) (i32.const 1)))
        (func (export "answer") (type $unary)
            (call_indirect (type $unary) (call $double (local.get 0)) (i32.const 1))
            (call_indirect (type $unary) (i32.const 2))
            (call_indirect (type $unary) (i32.const 4))
            (call_indirect (type $unary) (i32.const 6))
            (i32.mul (i32.const 1000) (i32.load8_u (i32.const 200)))
            (i32.add)))
    (core module $fixup
        (import "env" "table" (table 1 funcref))
        (import "second" "increment" (func $increment (param i32) (result i32)))
        (import "host" "double" (func $double (param i32) (result i32)))
        (elem (i32.const 6) func $increment $double))
    (core instance $env (instantiate $env))
    (core func $lowered (canon lower (func $double)))
    (core instance $host (export "double" (func $lowered)))
    (alias core export $env "table" (core table $table))
    (alias core export $env "memory" (core memory $memory))
    (alias core export $env "calls" (core global $calls))
    (alias core export $env "first-elements" (core global $first-elements))
    (alias core export $env "first-data" (core global $first-data))
    (core instance $first-env
        (export "table" (table $table)) (export "memory" (memory $memory)) (export "calls" (global $calls))
        (export "elements" (global $first-elements)) (export "data" (global $first-data)))
    (core instance $first (instantiate $first (with "env" (instance $first-env)) (with "host" (instance $host))))
    (alias core export $env "second-elements" (core global $second-elements))
    (alias core export $env "second-data" (core global $second-data))
    (core instance $second-env
        (export "table" (table $table)) (export "memory" (memory $memory))
        (export "elements" (global $second-elements)) (export "data" (global $second-data)))
    (core instance $second (instantiate $second (with "env" (instance $second-env)) (with "first" (instance $first))))
    (core func $with-memory (canon lower (func $double) (memory $memory)))
    (core instance $lowered-with-memory (export "double" (func $with-memory)))
    (core instance $fixup (instantiate $fixup
        (with "env" (instance $env)) (with "second" (instance $second)) (with "host" (instance $lowered-with-memory))))
    (alias core export $second "answer" (core func $answer))
    (func $lifted (param "n" u32) (result u32) (canon lift (core func $answer)))
    (export "answer" (func $lifted)))"#;

/// What the libraries say to 10: twice that, and 5, and 1 as the first call, less 3, and 1.
const ANSWER: u32 = 24;

/// A component in text, with changes: each of the first becomes the second.
fn component(changes: &[(&str, &str)]) -> Vec<u8> {
    let mut text = LIBRARIES.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "nothing to change: {from}");
        text = text.replace(from, to);
    }
    wat::parse_str(&text).expect("the text is right")
}

/// What a component answers to 10, or why it does not.
fn ask(component: &[u8]) -> Result<u32, String> {
    run(component).0
}

/// The same, and what `double` was asked meanwhile.
fn run(component: &[u8]) -> (Result<u32, String>, Vec<u32>) {
    let engine = compiler(Class::Large).expect("an engine starts");
    let mut linker = Linker::new(&engine);
    let double = |mut store: wasmtime::StoreContextMut<'_, Vec<u32>>, (n,): (u32,)| {
        store.data_mut().push(n);
        Ok((2 * n,))
    };
    linker.root().func_wrap("double", double).expect("the only one of its name");
    let mut store = Store::new(&engine, Vec::new());
    store.set_epoch_deadline(1);
    let answer = Component::new(&engine, component)
        .and_then(|component| linker.instantiate(&mut store, &component))
        .and_then(|instance| instance.get_typed_func::<(u32,), (u32,)>(&mut store, "answer"))
        .and_then(|answer| answer.call(&mut store, (10,)));
    (answer.map(|answer| answer.0).map_err(|error| format!("{error:#}")), store.into_data())
}

/// How many of a component's modules are more than empty.
fn modules(component: &[u8]) -> usize {
    let layout = Layout::read(component).expect("it can be read");
    layout.modules.iter().filter(|module| **module != wasm_encoder::Module::HEADER).count()
}

#[test]
fn linked_libraries_answer_as_before() {
    let before = component(&[]);
    let linked = fuse(&before).expect("it is linked");
    assert_eq!((modules(&before), modules(&linked)), (4, 2), "the libraries are one module, and `fixup` another");
    assert_eq!(ask(&before), Ok(ANSWER));
    assert_eq!(ask(&linked), Ok(ANSWER));
}

#[test]
fn what_is_linked_needs_no_code_to_set_up_its_table_and_memory() {
    let linked = fuse(&component(&[])).expect("it is linked");
    let layout = Layout::read(&linked).expect("it can be read");
    let module = Module::read(layout.modules[0]).expect("it can be read");
    assert!(!module.is_library());
    let is_constant = |offset: &ConstExpr<'_>| {
        matches!(offset.get_operators_reader().read(), Ok(Operator::I32Const { .. }))
            && offset.get_binary_reader().bytes_remaining() <= 4
    };
    assert_eq!((module.elements.len(), module.data.len()), (2, 2));
    for element in &module.elements {
        assert!(matches!(&element.kind, ElementKind::Active { offset_expr, .. } if is_constant(offset_expr)));
    }
    for data in &module.data {
        assert!(matches!(&data.kind, DataKind::Active { offset_expr, .. } if is_constant(offset_expr)));
    }
}

#[test]
fn libraries_of_an_inner_component_are_linked() {
    let inner = LIBRARIES.replacen("(component", "(component $inner", 1);
    let outer = format!(
        r#"(component {inner}
            (import "double" (func $double (param "n" u32) (result u32)))
            (instance $instance (instantiate $inner (with "double" (func $double))))
            (export "answer" (func $instance "answer")))"#
    );
    let linked = fuse(&wat::parse_str(outer).expect("the text is right")).expect("it is linked");
    assert_eq!(ask(&linked), Ok(ANSWER));
}

/// `$first` looks at where `$second` puts its data, which is not there yet.
#[test]
fn code_that_ran_before_a_later_library_came_still_does() {
    let start = "(start $start)
        (func $start (i32.store8 (i32.const 200) (i32.eqz (i32.load8_u (i32.const 132)))))
        (func $add";
    let before = component(&[("(func $add", start)]);
    let linked = fuse(&before).expect("what comes before is linked");
    assert_eq!(modules(&linked), 3);
    assert_eq!(ask(&before), Ok(ANSWER + 1000));
    assert_eq!(ask(&linked), Ok(ANSWER + 1000));
}

#[test]
fn code_that_runs_last_runs_last_when_it_is_linked() {
    let start = "(start $start)
        (func $start (i32.store8 (i32.const 200) (i32.load8_u (i32.const 132))))
        (func $subtract";
    let before = component(&[("(func $subtract", start)]);
    let linked = fuse(&before).expect("it is linked");
    assert_eq!(modules(&linked), 2);
    assert_eq!(ask(&before), Ok(ANSWER + 3000));
    assert_eq!(ask(&linked), Ok(ANSWER + 3000));
}

/// A library that comes after `fixup` goes before it, unless both write to the same table.
#[test]
fn what_was_written_over_still_is() {
    let late = r#"(core module $late
            (import "env" "table" (table 8 funcref))
            (import "env" "memory" (memory 1))
            (elem (i32.const 6) func $same)
            (func $same (param i32) (result i32) (local.get 0)))
        (core instance $late (instantiate $late (with "env" (instance $env))))
        (alias core export $second "answer""#;
    let before = component(&[(r#"(alias core export $second "answer""#, late)]);
    let linked = fuse(&before).expect("what comes before is linked");
    assert_eq!(ask(&before), Ok(ANSWER - 1));
    assert_eq!(ask(&linked), Ok(ANSWER - 1));
}

/// The memory that `$writer` has from `$passing` is that of the libraries.
#[test]
fn what_was_written_over_by_a_detour_still_is() {
    let late = r#"(core module $passing
            (import "env" "memory" (memory 1))
            (import "host" "double" (func (param i32) (result i32)))
            (export "memory" (memory 0)))
        (core instance $passing (instantiate $passing
            (with "env" (instance $env)) (with "host" (instance $lowered-with-memory))))
        (core module $writer
            (import "passing" "memory" (memory 1))
            (data (i32.const 200) "\01"))
        (core instance $writer (instantiate $writer (with "passing" (instance $passing))))
        (core module $late
            (import "env" "table" (table 8 funcref))
            (import "env" "memory" (memory 1))
            (data (i32.const 200) "\02"))
        (core instance $late (instantiate $late (with "env" (instance $env))))
        (alias core export $second "answer""#;
    let before = component(&[(r#"(alias core export $second "answer""#, late)]);
    let linked = fuse(&before).expect("what comes before is linked");
    assert_eq!(ask(&before), Ok(ANSWER + 2000));
    assert_eq!(ask(&linked), Ok(ANSWER + 2000));
}

/// An inner component whose code asks for twice 2 when it is made.
const INNER: &str = r#"(component $inner
        (import "double" (func $double (param "n" u32) (result u32)))
        (core func $lowered (canon lower (func $double)))
        (core instance $host (export "double" (func $lowered)))
        (core module $code
            (import "host" "double" (func $double (param i32) (result i32)))
            (start $start)
            (func $start (drop (call $double (i32.const 2)))))
        (core instance (instantiate $code (with "host" (instance $host)))))
    (instance (instantiate $inner (with "double" (func $double))))"#;

/// A library whose code asks for twice 1 when it is made.
const ASKS: (&str, &str) =
    ("(func $add", "(start $start) (func $start (drop (call $double (i32.const 1)))) (func $add");

#[test]
fn code_of_inner_components_runs_after_that_of_libraries_before_them() {
    let place = r#"(alias core export $env "second-elements""#;
    let before = component(&[ASKS, (place, &format!("{INNER} {place}"))]);
    let linked = fuse(&before).expect("what comes before is linked");
    assert_eq!(run(&before), (Ok(ANSWER), vec![1, 2, 10]));
    assert_eq!(run(&linked), run(&before));
}

#[test]
fn no_library_with_code_goes_before_an_inner_component() {
    let place = "(core instance $first (";
    let before = component(&[ASKS, (place, &format!("{INNER} {place}"))]);
    assert_eq!(run(&before), (Ok(ANSWER), vec![2, 1, 10]));
    assert!(fuse(&before).is_none(), "only `env` could be linked");
}

/// `$late` would put its data where `$fixup` looks first.
#[test]
fn no_library_goes_before_code_of_others() {
    let start = r#"(import "env" "memory" (memory 1))
        (start $start)
        (func $start (i32.store8 (i32.const 200) (i32.load8_u (i32.const 300))))
        (elem (i32.const 6)"#;
    let late = r#"(core module $late
            (import "env" "table" (table 8 funcref))
            (import "env" "memory" (memory 1))
            (data (i32.const 300) "\01"))
        (core instance $late (instantiate $late (with "env" (instance $env))))
        (alias core export $second "answer""#;
    let before = component(&[("(elem (i32.const 6)", start), (r#"(alias core export $second "answer""#, late)]);
    let linked = fuse(&before).expect("what comes before is linked");
    assert_eq!(ask(&before), Ok(ANSWER));
    assert_eq!(ask(&linked), Ok(ANSWER));
}

/// A reference to a function that only an export declared.
#[test]
fn functions_that_were_exported_can_be_referred_to() {
    let before = component(&[
        (
            r#"(func (export "answer") (type $unary)"#,
            r#"(func $decrement (export "decrement") (type $unary) (i32.sub (local.get 0) (i32.const 1)))
            (func (export "answer") (type $unary)
                (table.set (i32.const 5) (ref.func $decrement))"#,
        ),
        ("(call_indirect (type $unary) (i32.const 6))", "(call_indirect (type $unary) (i32.const 5))"),
    ]);
    let linked = fuse(&before).expect("it is linked");
    assert_eq!(ask(&before), Ok(ANSWER - 2));
    assert_eq!(ask(&linked), Ok(ANSWER - 2));
}

#[test]
fn what_is_no_library_is_left_alone() {
    let plain =
        r#"(component (core module $module (memory 1) (table 1 funcref)) (core instance (instantiate $module)))"#;
    assert_eq!(fuse(&wat::parse_str(plain).expect("the text is right")), None);
}

/// Each of these makes every library something that is not linked.
#[test]
fn what_is_not_understood_is_left_alone() {
    let twice = "(core instance $env (instantiate $env)) (core instance (instantiate $env))";
    let outer = "(component (alias outer 1 0 (core module $module)))
        (core instance $env (instantiate $env))";
    let module_export = r#"(export "answer" (func $lifted)) (export "module" (core module $env))"#;
    let destructor = r#"(core module $dtor (func (export "dtor") (param i32)))
        (core instance $dtor (instantiate $dtor))
        (alias core export $dtor "dtor" (core func $dtor))
        (type (resource (rep i32) (dtor (func $dtor))))
        (export "answer" (func $lifted))"#;
    let cases = [
        ("a module instantiated twice", ("(core instance $env (instantiate $env))", twice)),
        ("a module used by an inner component", ("(core instance $env (instantiate $env))", outer)),
        ("a module exported", (r#"(export "answer" (func $lifted))"#, module_export)),
        ("a destructor", (r#"(export "answer" (func $lifted))"#, destructor)),
        ("an exception", (r#"(table (export "table")"#, r#"(tag) (table (export "table")"#)),
        (
            "types of the garbage collector",
            (r#"(table (export "table")"#, r#"(type (struct)) (table (export "table")"#),
        ),
    ];
    for (what, change) in cases {
        assert_eq!(fuse(&component(&[change])), None, "{what}");
    }
}

/// `double` of the group, lowered with the group's memory, is only there when the group is.
#[test]
fn what_needs_the_group_first_stays_outside() {
    let moved = [
        ("(core func $lowered (canon lower (func $double)))\n", ""),
        ("(core instance $host (export \"double\" (func $lowered)))\n", ""),
        (
            "    (core instance $first (instantiate",
            "    (core func $lowered (canon lower (func $double) (memory $memory)))
            (core instance $host (export \"double\" (func $lowered)))
            (core instance $first (instantiate",
        ),
    ];
    let before = component(&moved);
    assert_eq!(ask(&before), Ok(ANSWER));
    assert_eq!(fuse(&before), None);
}

#[test]
fn an_invalid_component_is_left_alone() {
    // `answer` is no such function.
    let wrong = component(&[
        (
            r#"(import "first" "double" (func $double (type $unary)))"#,
            r#"(import "first" "double" (func $double (type $unrelated))) (func $double2 (type $unary) (local.get 0))"#,
        ),
        ("(call $double (local.get 0)) (i32.const 1))", "(call $double2 (local.get 0)) (i32.const 1))"),
    ]);
    assert!(Validator::new().validate_all(&wrong).is_err());
    assert_eq!(fuse(&wrong), None);
}

/// What comes is from strangers.
#[test]
fn no_bytes_break_it() {
    let whole = component(&[]);
    for end in 0..whole.len() {
        // What is cut off between two sections may be linked.
        let _ = fuse(&whole[..end]);
    }
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let bit = random as usize % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if let Some(linked) = fuse(&bytes) {
            let _ = Validator::new().validate_all(&linked);
        }
    }
}
