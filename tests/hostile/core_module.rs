//! Core modules that no compiler would produce. The host wraps them, since they carry no component type, as bots.

/// What a hostile author writes by hand: a module that is a bot, part by part. Each part is WebAssembly text.
#[derive(Clone, Debug)]
pub struct CoreModule {
    imports: String,
    memory: String,
    realloc: String,
    handle: String,
    more: String,
}

/// Where [`answering`] puts what `handle` returns. Nothing else is there, and its first page is always there.
pub const ANSWER: i32 = 1024;

/// Where [`CoreModule::passing`] begins to allocate.
const HEAP: i32 = 4096;

impl CoreModule {
    /// A bot that does no harm: it has an allocator that never frees, and no answer to anything.
    pub fn passing() -> Self {
        Self {
            imports: String::new(),
            memory: "8".into(),
            realloc: r"
                (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                (global.get $next)
                (global.set $next (i32.add (global.get $next) (local.get $bytes)))"
                .into(),
            handle: answering(&[]),
            more: String::new(),
        }
    }

    /// Imports, which must stand before all else.
    pub fn imports(self, imports: &str) -> Self {
        Self { imports: imports.into(), ..self }
    }

    /// The limits of its memory, in pages of 64 KiB.
    pub fn memory(self, limits: &str) -> Self {
        Self { memory: limits.into(), ..self }
    }

    /// What `cabi_realloc` does: `$old`, `$old_bytes`, `$align` and `$bytes` in, a pointer out.
    pub fn realloc(self, body: &str) -> Self {
        Self { realloc: body.into(), ..self }
    }

    /// What `handle` does: the pointer `$message` in, a pointer to the answer out. `$i` and `$j` are its own.
    pub fn handle(self, body: &str) -> Self {
        Self { handle: body.into(), ..self }
    }

    /// Any further parts: tables, data, functions, what to do at the start.
    pub fn with(mut self, fields: &str) -> Self {
        self.more += fields;
        self
    }

    /// The module's bytes.
    pub fn wasm(&self) -> Vec<u8> {
        let Self { imports, memory, realloc, handle, more } = self;
        let text = format!(
            r#"(module
                {imports}
                (memory (export "memory") {memory})
                (global $next (mut i32) (i32.const {HEAP}))
                (func (export "cabi_realloc")
                    (param $old i32) (param $old_bytes i32) (param $align i32) (param $bytes i32) (result i32)
                    {realloc})
                (func (export "aviary:bot/handler@0.1.0#handle") (param $message i32) (result i32)
                    (local $i i32) (local $j i32)
                    {handle})
                {more})"#
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }
}

/// A `handle` that answers with these words, as `result<option<reply>, string>` lies in memory: 0 or 1 for error; then
/// the error's pointer and length, or 0 or 1 for a reply, which of [`reply`]'s cases it is, and its words. Words that
/// are left out are 0.
pub fn answering(words: &[i32]) -> String {
    let stores: String = (ANSWER..)
        .step_by(4)
        .zip(words)
        .map(|(address, word)| format!("(i32.store (i32.const {address}) (i32.const {word}))"))
        .collect();
    format!("{stores} (i32.const {ANSWER})")
}

/// The words of a reply: the number of its case in `wit/types.wit`, and what is in it.
pub fn reply(case: i32, words: &[i32]) -> Vec<i32> {
    [&[0, 1, case], words].concat()
}

/// The words of an error.
pub fn error(pointer: i32, bytes: i32) -> Vec<i32> {
    vec![1, pointer, bytes]
}

/// The case of [`reply`] that is a text: pointer and length.
pub const TEXT: i32 = 0;

/// The case of [`reply`] that is a list of articles: pointer and length.
pub const NEWS: i32 = 5;
