//! The table of `examples/README.md`: what an author and an operator wait for in each language, and what a call costs then.
//!
//! It is measured in a copy of what the examples are built from, so that nothing is built yet, and a line may be changed.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    Run,
    account::Mode,
    binaries,
    bot::{Bot, Plugins},
    budget::call_cpu_us,
    generator::Failures,
    table::median,
};

/// How the run of languages is asked for.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Instead of comparing, measure every language that a plugin can be written in: the table of examples/README.md
    #[arg(long, conflicts_with_all = ["safe", "reload", "late", "pages", "today", "budget", "soak"])]
    pub languages: bool,
    /// Download each language's toolchain anew, into an empty directory, to measure that as well
    #[arg(long, requires = "languages")]
    install: bool,
}

/// One line of the table.
struct Language {
    name: &'static str,
    /// What `examples/toolchain/install.sh` calls its tools.
    tools: &'static str,
    /// A command that prints the version of the tool that makes the plugin.
    version: &'static str,
    example: &'static str,
    /// The file of the bot, and how a comment begins there.
    source: (&'static str, &'static str),
    /// The command that builds the example.
    build: &'static str,
}

const BUILD: &str = "./build.sh";

/// Without WASI, and without a component around it: the least that can be dropped in.
const BUILD_CORE: &str = ". ../toolchain/install.sh; tools rust; \
    cargo build --quiet --release --locked --target wasm32-unknown-unknown; \
    cp \"$CARGO_TARGET_DIR/wasm32-unknown-unknown/release/echo_rs.wasm\" .; mv echo_rs.wasm echo-rs.wasm";

const QJS: &str = r#"echo "componentize-qjs $(sed -n 's/.*"componentize-qjs": "\([0-9.]*\)".*/\1/p' "$templates/ts/package.json" | head -n1)""#;

const LANGUAGES: [Language; 7] = [
    Language {
        name: "Rust, core module",
        tools: "rust",
        version: "rustc --version | cut -d' ' -f1-2",
        example: "echo-rs",
        source: ("src/lib.rs", "//"),
        build: BUILD_CORE,
    },
    Language {
        name: "Rust, wasip2",
        tools: "rust",
        version: "rustc --version | cut -d' ' -f1-2",
        example: "echo-rs",
        source: ("src/lib.rs", "//"),
        build: BUILD,
    },
    Language {
        name: "C",
        tools: "c",
        version: "echo \"Zig $(python-zig version)\"",
        example: "echo-c",
        source: ("bot.c", "//"),
        build: BUILD,
    },
    Language {
        name: "JavaScript",
        tools: "js",
        version: QJS,
        example: "echo-js",
        source: ("echo.js", "//"),
        build: BUILD,
    },
    Language {
        name: "TypeScript",
        tools: "ts",
        version: QJS,
        example: "echo-ts",
        source: ("echo.ts", "//"),
        build: BUILD,
    },
    Language {
        name: "Go",
        tools: "go",
        version: "echo \"Go $(go env GOVERSION | sed s/go//)\"",
        example: "echo-go",
        source: ("bot.go", "//"),
        build: BUILD,
    },
    Language {
        name: "Python",
        tools: "python",
        version: "componentize-py --version",
        example: "echo-py",
        source: ("app.py", "#"),
        build: BUILD,
    },
];

/// What was measured of a language.
struct Figures {
    version: String,
    /// How long the toolchain took to install, if that was asked, and its size; nothing where it is the author's own.
    install: Option<(Option<Duration>, u64)>,
    /// From nothing but the toolchain, and again after one line was changed.
    builds: [Duration; 2],
    plugin_bytes: u64,
    /// `aviary check` with an empty compile cache, and again.
    loads: [Duration; 2],
    call_us: f64,
}

/// Measures every language and prints the table.
pub async fn run(run: &Run) -> anyhow::Result<Failures> {
    let host = run.host.clone().map_or_else(binaries::host, Ok)?;
    let mut table = String::from(
        "| language | toolchain | install | first build | build after a change | file | first load | later loads | a call |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for language in &LANGUAGES {
        eprintln!("{}", language.name);
        let figures =
            measure(language, &host, run).await.with_context(|| format!("{} was not measured", language.name))?;
        let _ = writeln!(table, "{}", line(language.name, &figures));
    }
    println!("{table}");
    Ok(Failures::default())
}

async fn measure(language: &Language, host: &Path, run: &Run) -> anyhow::Result<Figures> {
    let workshop = Workshop::copy(language.example, host)?;
    let install = workshop.install(language, run.languages.install)?;
    let first = workshop.build(language)?;
    workshop.change(language)?;
    let builds = [first, workshop.build(language)?];
    let plugin = workshop.plugin();
    let loads = [workshop.load(&plugin)?, workshop.load(&plugin)?];
    let bytes = fs::read(&plugin)?;
    let bot = Bot::new(host, Plugins::Echo, Mode::Plain, &run.log)?.with_plugin("20-echo.wasm", &bytes)?;
    Ok(Figures {
        version: workshop.shell(&format!("tools {}; {}", language.tools, language.version))?,
        install,
        builds,
        plugin_bytes: bytes.len() as u64,
        loads,
        call_us: median(call_cpu_us(bot, run.rounds).await?.into_iter()),
    })
}

/// A copy of what an example is built from, with the directories of the repository around it.
struct Workshop {
    root: tempfile::TempDir,
    example: &'static str,
    host: PathBuf,
    toolchains: PathBuf,
}

impl Workshop {
    fn copy(example: &'static str, host: &Path) -> anyhow::Result<Self> {
        let root = tempfile::Builder::new().prefix("aviary-languages-").tempdir()?;
        let repository = binaries::workspace_dir().canonicalize()?;
        // What is under version control, as a clone has it.
        let example_dir = format!("examples/{example}");
        let copied = Command::new("sh")
            .args(["-euc", r#"cd "$1"; git ls-files -z -- "$3" examples/toolchain host/templates wit | tar --null -cT - | tar -xC "$2""#, "sh"])
            .arg(&repository)
            .arg(root.path())
            .arg(example_dir)
            .status()?;
        ensure!(copied.success(), "examples/{example} could not be copied");
        Ok(Self { root, example, host: host.into(), toolchains: repository.join("target/toolchains") })
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("examples").join(self.example)
    }

    fn plugin(&self) -> PathBuf {
        self.dir().join(self.example).with_extension("wasm")
    }

    /// Sees that a language's tools are there. Returns how long that took, if it was done anew, and how large they are.
    fn install(&self, language: &Language, anew: bool) -> anyhow::Result<Option<(Option<Duration>, u64)>> {
        let empty = tempfile::tempdir()?;
        let install = format!("tools {} >&2; du -sk ${{installed:-}} | cut -f1", language.tools);
        let started = Instant::now();
        let kib = match anew {
            true => self.shell(&format!("toolchains={}; {install}", empty.path().display()))?,
            false => self.shell(&install)?,
        };
        let took = anew.then(|| started.elapsed());
        // Rust is installed as its author has it.
        Ok((language.tools != "rust").then_some((took, kib.parse::<u64>().context("`du` said no number")? * 1024)))
    }

    fn build(&self, language: &Language) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.shell(&format!("{} >&2", language.build))?;
        Ok(started.elapsed())
    }

    /// Changes a line, as far as a compiler can tell.
    fn change(&self, language: &Language) -> anyhow::Result<()> {
        let (file, comment) = language.source;
        let file = self.dir().join(file);
        Ok(fs::write(&file, fs::read_to_string(&file)? + comment + " changed\n")?)
    }

    /// Has the host examine a plugin, with a compile cache of the workshop's own.
    fn load(&self, plugin: &Path) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let mut check = Command::new(&self.host);
        let check = check.arg("check").arg(plugin).env("XDG_CACHE_HOME", self.root.path().join("cache")).output()?;
        ensure!(check.status.success(), "`aviary check`: {}", String::from_utf8_lossy(&check.stdout));
        Ok(started.elapsed())
    }

    /// Runs a line in the example's directory, where `install.sh` was read, and returns what it printed.
    fn shell(&self, line: &str) -> anyhow::Result<String> {
        let path =
            format!("{}:{}", self.host.parent().context("the host is a file")?.display(), std::env::var("PATH")?);
        let mut shell = Command::new("sh");
        shell.args(["-euc", &format!(". ../toolchain/install.sh; {line}")]).current_dir(self.dir());
        let output = shell.env("AVIARY_TOOLCHAINS", &self.toolchains).env("PATH", path).output()?;
        ensure!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

fn line(name: &str, figures: &Figures) -> String {
    let Figures { version, install, builds, plugin_bytes, loads, call_us } = figures;
    let install = match install {
        None => "your own".to_owned(),
        Some((None, bytes)) => megabytes(*bytes),
        Some((Some(took), bytes)) => format!("{}, {}", seconds(*took), megabytes(*bytes)),
    };
    let [first_build, build] = builds.map(seconds);
    let [first_load, load] = loads.map(seconds);
    let file = megabytes(*plugin_bytes);
    format!(
        "| {name} | {version} | {install} | {first_build} | {build} | {file} | {first_load} | {load} | {call_us:.0} µs |"
    )
}

fn seconds(duration: Duration) -> String {
    match duration.as_secs_f64() {
        brief if brief < 10.0 => format!("{brief:.2} s"),
        long => format!("{long:.0} s"),
    }
}

fn megabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a file is far smaller than 2^53 bytes")]
    match bytes as f64 / 1e6 {
        small if small < 10.0 => format!("{small:.2} MB"),
        large => format!("{large:.0} MB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_has_what_was_measured() {
        let mut figures = Figures {
            version: "Zig 0.17.1".into(),
            install: Some((Some(Duration::from_secs(21)), 437_600_000)),
            builds: [Duration::from_millis(2_340), Duration::from_millis(500)],
            plugin_bytes: 41_234,
            loads: [Duration::from_millis(87), Duration::from_millis(21)],
            call_us: 23.4,
        };
        let expected = "| C | Zig 0.17.1 | 21 s, 438 MB | 2.34 s | 0.50 s | 0.04 MB | 0.09 s | 0.02 s | 23 µs |";
        assert_eq!(line("C", &figures), expected);
        figures.install = Some((None, 437_600_000));
        assert!(line("C", &figures).contains("| 438 MB |"), "{}", line("C", &figures));
    }
}
