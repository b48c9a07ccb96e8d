//! What `aviary new` writes: in every language it is built as it says itself, by somebody who has none of the tools that it can
//! install, and held to its conversation; and a failure in it shows its author where.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf, absolute},
    process::Command,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;
use toolchains::{cache, finish, trial, turn};

#[path = "dev_loop.rs"]
mod dev_loop;
#[path = "toolchains.rs"]
mod toolchains;
#[path = "templates/tools.rs"]
mod tools;

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

/// What a build says that installs something.
const INSTALLS: [&str; 2] = ["npm install", "is installed into .venv"];

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
            // The words are in a package that the project gains.
            instead: "{}[extra.WORDS]",
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
    let hidden = Trial::test("what_projects_install_is_hidden_and_nothing_beside_it", only_what_is_installed_is_hidden);
    libtest_mimic::run(&arguments, LANGUAGES.iter().map(test).chain([hidden]).collect()).exit();
}

fn test(language: &'static Language) -> Trial {
    let name = format!("a_new_project_in_{}_builds_and_answers", language.name);
    trial(name, language.name, || turn(|| built(language)))
}

fn built(language: &Language) -> Result<(), Failed> {
    let mut project = Project::new(language, "hello")?;
    tools::cut_short(&project.dir)?;
    project.build()?;
    let said = project.chat(&["--replay", "hello.txt"])?;
    contains(&said, &["All 5 expected replies came."])?;
    // All is well, and what the project's settings promise is granted under the names that it imports.
    let checked = finish(project.newcomer("aviary").arg("check"))?;
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
    if language.name == "python" {
        tools::upgrade_python(&project.dir)?;
    }
    if language.name == "js" {
        fails_to_build(&project, file, "Promise.reject(new RangeError('too early'))", "RangeError: too early")?;
    }
    if ["js", "python"].contains(&language.name) {
        dev_loop::answers_each_change(project.newcomer("aviary"), &project.dir.join(file))?;
    }
    if let Some(install) = asks_to_install(&project, language.name)? {
        contains(&project.build()?, &[install])?;
    }
    project.edit(file, line, instead)?;
    project.is_moved()?;
    project.build_alone()?;
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
        "| without `await`: RangeError: nobody can wait",
        r#"| something that has no words {"why":"RangeError: inside"} () => 1 NaN"#,
        "| caused by RangeError: goes round",
        "| without `await`: thrown: something that has no words",
        "failed: it said: invalid: a key has 1 to 512 bytes",
        "TypeError: handle returned a string, which is no reply",
        "TypeError: handle returned {\"tag\":\"card\",\"val\":\"a string\"}, which is no reply",
        "TypeError: a reply wants a string, and was given 5\n",
        "TypeError: a reply wants a string, and was given undefined",
        "TypeError: a reply wants a string, and was given 5.5",
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
        "TypeError: a reply wants a str, and was given 5\n",
        "TypeError: a reply wants a str, and was given None",
        "TypeError: a reply wants a str, and was given 5.5",
    ],
};

fn other(language: &str) -> Option<Other> {
    match language {
        "js" => Some(GLOBALS),
        "python" => Some(REPLIES),
        "go" => Some(reaching(include_str!("templates/reaching.go"))),
        "c" => Some(Other {
            bot: include_str!("templates/reaching.c"),
            conversation: concat!(include_str!("templates/reaching.txt"), "> forget the reply\n<\n"),
            shown: &["kv: invalid: ", "http: denied: ", "handle returned REPLIED, and set no reply"],
        }),
        _ => None,
    }
}

fn does_what_another_bot_wants(project: &Project, file: &str, other: &Other) -> Result<(), Failed> {
    let file = project.dir.join(file);
    let bot = fs::read_to_string(&file)?;
    fs::write(&file, other.bot)?;
    fs::write(project.dir.join("other.txt"), other.conversation)?;
    project.build_alone()?;
    let said = project.chat(&["--replay", "other.txt"])?;
    fs::write(&file, bot)?;
    contains(&said, other.shown)
}

/// Has what a project installs named anew, and returns what its build is to say of that.
fn asks_to_install(project: &Project, language: &str) -> Result<Option<&'static str>, Failed> {
    match language {
        "js" | "ts" => {
            // By the author; or by a colleague, whose `npm update` has changed the lock file alone.
            let package = project.dir.join(if language == "ts" { "package.json" } else { "package-lock.json" });
            let text = fs::read_to_string(&package)?;
            fs::write(package, text)?;
            Ok(Some("npm install"))
        }
        "python" => {
            gains_a_package(project)?;
            Ok(Some("is installed into .venv"))
        }
        _ => Ok(None),
    }
}

/// Adds a package to a Python project's requirements.txt, of which no registry knows, and to its bot.
fn gains_a_package(project: &Project) -> Result<(), Failed> {
    let info = project.dir.join("extra-1.0.dist-info");
    fs::create_dir(&info)?;
    fs::write(project.dir.join("extra.py"), "WORDS = \"broken on purpose\"\n")?;
    fs::write(info.join("METADATA"), "Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")?;
    fs::write(info.join("WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")?;
    fs::write(info.join("RECORD"), "extra.py,,\nextra-1.0.dist-info/METADATA,,\nextra-1.0.dist-info/WHEEL,,\n")?;
    let wheel = "extra-1.0-py3-none-any.whl";
    let pack = ["-m", "zipfile", "-c", wheel, "extra.py", "extra-1.0.dist-info"];
    finish(project.newcomer("python3").args(pack))?;
    // From now on it is in the wheel alone.
    fs::remove_file(project.dir.join("extra.py"))?;
    let requirements = fs::read_to_string(project.dir.join("requirements.txt"))?;
    fs::write(project.dir.join("requirements.txt"), format!("{requirements}./{wheel}\n"))?;
    project.edit("bot.py", "import os\n", "import os\n\nimport extra\n")
}

/// Adds a line to a bot that is wrong before any message comes, which its author reads at the build.
fn fails_to_build(project: &Project, file: &str, line: &str, told: &str) -> Result<(), Failed> {
    let file = project.dir.join(file);
    let bot = fs::read_to_string(&file)?;
    fs::write(&file, format!("{bot}\n{line}\n"))?;
    let built = project.build();
    fs::write(&file, bot)?;
    match built {
        Ok(said) => Err(format!("it was built:\n{said}").into()),
        Err(failed) => contains(failed.message().unwrap_or_default(), &[told]),
    }
}

/// A project of `aviary new`.
struct Project {
    temporary: TempDir,
    dir: PathBuf,
    /// As a newcomer's has it.
    path: OsString,
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
        let binaries = Path::new(env!("CARGO_BIN_EXE_aviary")).parent().ok_or("it is in a directory")?;
        let path = bare(&env::var_os("PATH").unwrap_or_default(), &temporary.path().join("tools"))?;
        let old = temporary.path().join("old");
        tools::old(&old)?;
        let path = env::join_paths([binaries.to_owned(), old].into_iter().chain(path))?;
        Ok(Self { temporary, dir, path })
    }

    /// Another project in the same language, for which this one has installed what it needs.
    fn beside(&self, language: &Language, name: &str) -> Result<Self, Failed> {
        let project = Self::new(language, name)?;
        symlink(self.dir.join(".venv"), project.dir.join(".venv"))?;
        Ok(project)
    }

    /// Gives it another place, with all that it has installed.
    fn is_moved(&mut self) -> Result<(), Failed> {
        let to = self.temporary.path().join("elsewhere");
        fs::rename(&self.dir, &to)?;
        self.dir = to;
        Ok(())
    }

    /// Runs the build that the project declares, and returns its commands and what they wrote.
    fn build(&self) -> Result<String, Failed> {
        let config = fs::read_to_string(self.dir.join("aviary.toml"))?;
        let build = config.lines().find_map(|line| line.strip_prefix("build = \"")?.strip_suffix('"'));
        let build = build.ok_or("aviary.toml declares no build")?;
        finish(self.newcomer("sh").args(["-x", "-c", build]))
    }

    /// Runs the build where everything is installed that it needs.
    fn build_alone(&self) -> Result<(), Failed> {
        match self.build()? {
            said if INSTALLS.iter().any(|installs| said.contains(installs)) => {
                Err(format!("what is installed already is installed again:\n{said}").into())
            }
            _ => Ok(()),
        }
    }

    fn chat(&self, args: &[&str]) -> Result<String, Failed> {
        finish(self.newcomer("aviary").arg("chat").args(args))
    }

    /// A program as a newcomer runs it in the project, who has old compilers, and another environment of Python active.
    fn newcomer(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir).env("PATH", &self.path).env("XDG_CACHE_HOME", cache());
        // What Go needs is in the project; what this user has installed for Python is not on a newcomer's machine.
        command.env("GOPROXY", "off").env("PYTHONNOUSERSITE", "1").env("VIRTUAL_ENV", self.temporary.path());
        command
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

/// The directories of a path, without what projects install. Where one of them has that, links to all the others that it has
/// take its place.
fn bare(path: &OsStr, links: &Path) -> io::Result<Vec<PathBuf>> {
    let mut bare = Vec::new();
    for (number, dir) in env::split_paths(path).enumerate() {
        if !INSTALLED.iter().any(|tool| dir.join(tool).exists()) {
            bare.push(dir);
            continue;
        }
        let links = links.join(number.to_string());
        fs::create_dir_all(&links)?;
        for entry in fs::read_dir(absolute(&dir)?)? {
            let (file, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            if !INSTALLED.iter().any(|tool| name == *tool) {
                symlink(file, links.join(name))?;
            }
        }
        bare.push(links);
    }
    Ok(bare)
}

/// Where a system keeps Go, it keeps everything.
fn only_what_is_installed_is_hidden() -> Result<(), Failed> {
    let temporary = tempfile::tempdir()?;
    let (system, other) = (temporary.path().join("bin"), temporary.path().join("other"));
    for tool in ["bin/go", "bin/sh", "bin/python3", "other/node"] {
        let file = temporary.path().join(tool);
        fs::create_dir_all(file.parent().ok_or("it has one")?)?;
        fs::write(file, "")?;
    }
    let found = bare(&env::join_paths([&system, &other])?, &temporary.path().join("links"))?;
    let is_there = |tool: &str| found.iter().any(|dir| dir.join(tool).exists());
    match (["sh", "python3", "node"].map(is_there), is_there("go")) {
        ([true, true, true], false) => Ok(()),
        other => Err(format!("{other:?} in {found:?}").into()),
    }
}

fn contains(text: &str, parts: &[&str]) -> Result<(), Failed> {
    match parts.iter().find(|part| !text.contains(**part)) {
        None => Ok(()),
        Some(missing) => Err(format!("`{missing}` is not in:\n{text}").into()),
    }
}
