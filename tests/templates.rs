//! What `aviary new` writes: in every language it is built as it says itself, by somebody who has none of the tools that it can
//! install, and held to its conversation; and a failure in it shows its author where.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;
use toolchains::{cache, finish, trial, turn};

#[path = "dev_loop.rs"]
mod dev_loop;
#[path = "toolchains.rs"]
mod toolchains;

/// A language, and how its bot is made to fail.
struct Language {
    name: &'static str,
    fails: Fails,
}

/// A line of the bot, what takes its place, and what of that the author reads.
struct Fails {
    file: &'static str,
    line: &'static str,
    instead: &'static str,
    shown: &'static [&'static str],
}

/// What a project installs for itself where it is missing, as it is here.
const INSTALLED: [&str; 3] = ["componentize-py", "go", "zig"];

const LANGUAGES: [Language; 6] = [
    Language {
        name: "rust",
        fails: Fails {
            file: "src/lib.rs",
            line: "reply::image(&image.media_id)",
            instead: r#"panic!("broken on purpose: {}", image.media_id)"#,
            shown: &["src/lib.rs:", "broken on purpose"],
        },
    },
    Language { name: "js", fails: thrown("bot.js") },
    Language { name: "ts", fails: thrown("bot.ts") },
    Language {
        name: "python",
        fails: Fails {
            file: "bot.py",
            line: "image(picture.media_id)",
            instead: r#"{}["broken on purpose"]"#,
            shown: &["Traceback", "bot.py\", line ", "KeyError: 'broken on purpose'"],
        },
    },
    Language {
        name: "go",
        fails: Fails {
            file: "bot.go",
            line: "return aviary.Image(body.Image().MediaId), nil",
            instead: r#"panic("broken on purpose")"#,
            shown: &["panic: broken on purpose", "main.handle", "bot.go:"],
        },
    },
    Language {
        name: "c",
        fails: Fails {
            file: "bot.c",
            line: "return image(reply, message->body.val.image.media_id)",
            instead: r#"__builtin_printf("the first line\n"); __builtin_printf("the second line\n"); abort()"#,
            shown: &["the first line", "the second line", "unreachable"],
        },
    },
];

const fn thrown(file: &'static str) -> Fails {
    Fails {
        file,
        line: "return image(body.val.mediaId)",
        instead: r#"throw new RangeError("broken on purpose")"#,
        shown: &["RangeError: broken on purpose", "at handle"],
    }
}

fn main() {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, LANGUAGES.iter().map(test).collect()).exit();
}

fn test(language: &'static Language) -> Trial {
    let name = format!("a_new_project_in_{}_builds_and_answers", language.name);
    trial(name, language.name, || turn(|| built(language)))
}

fn built(language: &Language) -> Result<(), Failed> {
    let project = Project::new(language, "hello")?;
    project.build()?;
    let said = project.chat(&["--replay", "hello.txt"])?;
    contains(&said, &["All 5 expected replies came."])?;
    // All is well, and what the project's settings promise is granted under the names that it imports.
    let checked = finish(project.newcomer("aviary")?.arg("check"))?;
    contains(&checked, &["\nAll is well.\n"])?;
    if checked.contains("`kv` is not granted") || checked.contains("`http` is not granted") {
        return Err(checked.into());
    }

    let Fails { file, line, instead, shown } = &language.fails;
    if let Some(other) = other(language.name) {
        does_what_another_bot_wants(&project, file, &other)?;
    }
    if language.name == "go" {
        // Named as what it imports, of its own and of Go's.
        ["aviary", "time"].into_iter().try_for_each(|name| project.beside(language, name)?.build().map(drop))?;
    }
    if ["js", "python"].contains(&language.name) {
        dev_loop::answers_each_change(project.newcomer("aviary")?, &project.dir.join(file))?;
    }
    project.edit(file, line, instead)?;
    if project.build()?.contains("npm install") {
        return Err("what is installed already is installed again".into());
    }
    fs::write(project.dir.join("failing.txt"), "> [image]\n<\n")?;
    contains(&project.chat(&["--replay", "failing.txt"])?, shown)
}

/// A bot that takes the place of the template's, its conversation, and what its author reads beside that.
struct Other {
    bot: &'static str,
    conversation: &'static str,
    shown: &'static [&'static str],
}

/// What JavaScript's authors take for granted, and QuickJS does not have by itself.
const GLOBALS: Other = Other {
    bot: include_str!("templates/globals.js"),
    conversation: include_str!("templates/globals.txt"),
    shown: &[
        "| part one",
        r#"| part {"two":2}"#,
        "handle waits for a promise that nothing will settle",
        "| without `await`: RangeError: nobody waits",
        "failed: it said: invalid: a key has 1 to 512 bytes",
        "TypeError: handle returned a string, which is no reply",
        "TypeError: a reply wants a string, and was given 5",
    ],
};

/// What languages whose bindings are generated here make of the host's results and errors.
const fn reaching(bot: &'static str) -> Other {
    Other { bot, conversation: include_str!("templates/reaching.txt"), shown: &["kv: invalid: ", "http: denied: "] }
}

/// What Python's runtime would answer with a trap.
const REPLIES: Other = Other {
    bot: include_str!("templates/replies.py"),
    conversation: include_str!("templates/replies.txt"),
    shown: &[
        "TypeError: handle returned 'a string', which is no reply",
        "bot.py\", line ",
        "TypeError: a reply wants a str, and was given 5",
    ],
};

fn other(language: &str) -> Option<Other> {
    match language {
        "js" => Some(GLOBALS),
        "python" => Some(REPLIES),
        "go" => Some(reaching(include_str!("templates/reaching.go"))),
        "c" => Some(reaching(include_str!("templates/reaching.c"))),
        _ => None,
    }
}

fn does_what_another_bot_wants(project: &Project, file: &str, other: &Other) -> Result<(), Failed> {
    let file = project.dir.join(file);
    let bot = fs::read_to_string(&file)?;
    fs::write(&file, other.bot)?;
    fs::write(project.dir.join("other.txt"), other.conversation)?;
    project.build()?;
    let said = project.chat(&["--replay", "other.txt"])?;
    fs::write(&file, bot)?;
    contains(&said, other.shown)
}

/// A project of `aviary new`.
struct Project {
    _temporary: TempDir,
    dir: PathBuf,
}

impl Project {
    fn new(language: &Language, name: &str) -> Result<Self, Failed> {
        let temporary = tempfile::tempdir()?;
        let dir = temporary.path().join(name);
        let mut new = Command::new(env!("CARGO_BIN_EXE_aviary"));
        finish(new.args(["new", name, "--lang", language.name]).current_dir(temporary.path()))?;
        let config = fs::read_to_string(dir.join("aviary.toml"))?;
        // A busy machine may take long for what is compiled last of all.
        fs::write(dir.join("aviary.toml"), format!("{config}\n[compile]\ntimeout_s = 600\n"))?;
        Ok(Self { _temporary: temporary, dir })
    }

    /// Another project in the same language, for which this one has installed what it needs.
    fn beside(&self, language: &Language, name: &str) -> Result<Self, Failed> {
        let project = Self::new(language, name)?;
        symlink(self.dir.join(".venv"), project.dir.join(".venv"))?;
        Ok(project)
    }

    /// Runs the build that the project declares, and returns its commands and what they wrote.
    fn build(&self) -> Result<String, Failed> {
        let config = fs::read_to_string(self.dir.join("aviary.toml"))?;
        let build = config.lines().find_map(|line| line.strip_prefix("build = \"")?.strip_suffix('"'));
        let build = build.ok_or("aviary.toml declares no build")?;
        finish(self.newcomer("sh")?.args(["-x", "-c", build]))
    }

    fn chat(&self, args: &[&str]) -> Result<String, Failed> {
        finish(self.newcomer("aviary")?.arg("chat").args(args))
    }

    /// A program as a newcomer runs it in the project.
    fn newcomer(&self, program: &str) -> Result<Command, Failed> {
        let binaries = Path::new(env!("CARGO_BIN_EXE_aviary")).parent().ok_or("it is in a directory")?;
        let path = env::var_os("PATH").unwrap_or_default();
        let bare = env::split_paths(&path).filter(|dir| !INSTALLED.iter().any(|tool| dir.join(tool).exists()));
        let path = env::join_paths([binaries.to_owned()].into_iter().chain(bare))?;
        let mut command = Command::new(program);
        // What Go needs is in the project.
        command.current_dir(&self.dir).env("PATH", path).env("XDG_CACHE_HOME", cache()).env("GOPROXY", "off");
        Ok(command)
    }

    fn edit(&self, file: &str, from: &str, to: &str) -> Result<(), Failed> {
        let file = self.dir.join(file);
        let text = fs::read_to_string(&file)?;
        if text.matches(from).count() != 1 {
            return Err(format!("{} does not have `{from}` once", file.display()).into());
        }
        Ok(fs::write(&file, text.replace(from, to))?)
    }
}

fn contains(text: &str, parts: &[&str]) -> Result<(), Failed> {
    match parts.iter().find(|part| !text.contains(**part)) {
        None => Ok(()),
        Some(missing) => Err(format!("`{missing}` is not in:\n{text}").into()),
    }
}
