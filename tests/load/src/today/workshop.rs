//! What today's bots need, installed at the versions that `tests/load/today` pins: libraries and servers from PyPI in a virtual
//! environment, and packages from npm. All of it lies in one directory below `target/toolchains`, with a copy of the bots.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::time::timeout;

use crate::binaries::workspace_dir;

/// How long one step of an installation may take: it downloads, and uWSGI is compiled.
const STEP_MAX: Duration = Duration::from_secs(300);

/// What `tests/load/today` has for it.
const BOTS: [&str; 3] = ["flask_bot.py", "wechatpy_bot.py", "co_wechat_bot.js"];

/// What says which versions are installed, from the repository's root.
const PINNED: [&str; 4] = [
    "tests/load/today/requirements.txt",
    "tests/webhooks/requirements.txt",
    "tests/load/today/package.json",
    "tests/load/today/package-lock.json",
];

const PYTHON_NEEDED: &str = "the bots in Python need python3 (3.10 or newer) with its `venv` module, and PyPI; uWSGI is compiled, and \
     needs a C compiler and Python's headers (Debian has all in python3-venv, python3-dev and gcc)";

const NODE_NEEDED: &str = "the bot on koa needs Node.js 20 or newer with npm, and npm's registry";

/// The directory of today's bots and all they need.
#[derive(Clone, Debug)]
pub struct Workshop {
    dir: PathBuf,
}

impl Workshop {
    /// Installs what is not there yet at the versions pinned.
    pub async fn install() -> anyhow::Result<Self> {
        let repository = workspace_dir().canonicalize()?;
        let workshop = Self { dir: repository.join("target/toolchains/today") };
        fs::create_dir_all(&workshop.dir)?;
        let sources = repository.join("tests/load/today");
        let copy = |file: &str| {
            fs::copy(sources.join(file), workshop.dir.join(file)).with_context(|| format!("cannot copy {file}"))
        };
        for bot in BOTS {
            copy(bot)?;
        }
        let pinned =
            PINNED.map(|file| fs::read_to_string(repository.join(file))).into_iter().collect::<Result<String, _>>()?;
        let installed = workshop.dir.join("installed");
        if fs::read_to_string(&installed).is_ok_and(|installed| installed == pinned) {
            return Ok(workshop);
        }
        // What is interrupted from here on is not installed, whatever the next run is to install.
        _ = fs::remove_file(&installed);
        copy("package.json")?;
        copy("package-lock.json")?;
        workshop.install_node().await?;
        workshop.install_python(&sources.join("requirements.txt")).await?;
        fs::write(installed, pinned)?;
        Ok(workshop)
    }

    async fn install_python(&self, requirements: &Path) -> anyhow::Result<()> {
        eprintln!("installing Flask, xmltodict, wechatpy, gunicorn and uWSGI");
        // What an interrupted run left is not trusted, and not to make its successor.
        _ = fs::remove_dir_all(self.dir.join("python"));
        self.step(&["python3", "-m", "venv", "python"], PYTHON_NEEDED).await?;
        let requirements = requirements.to_str().context("the repository's path is no text")?;
        let pip = ["python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"];
        self.step(&[&pip[..], &[requirements]].concat(), PYTHON_NEEDED).await
    }

    async fn install_node(&self) -> anyhow::Result<()> {
        eprintln!("installing koa and co-wechat");
        let ci = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        self.step(&ci, NODE_NEEDED).await
    }

    async fn step(&self, words: &[&str], needed: &str) -> anyhow::Result<()> {
        let (program, args) = words.split_first().context("a step has a program")?;
        let named = format!("`{}`", words.join(" "));
        let mut command = tokio::process::Command::from(self.command(program));
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(STEP_MAX, command.output()).await;
        let output = output.with_context(|| format!("{named} did not end within {STEP_MAX:?}; {needed}"))?;
        let output = output.with_context(|| format!("{named} does not run; {needed}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{named} failed; {needed}:\n{said}");
        Ok(())
    }

    /// A program of the environment or of the system, to be run in the workshop.
    pub fn command(&self, program: &str) -> Command {
        let mut path = self.dir.join("python/bin").into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        command.current_dir(&self.dir).env("PATH", path);
        command
    }

    /// What the bots run on.
    pub fn versions(&self) -> anyhow::Result<String> {
        let version = |program| -> anyhow::Result<String> {
            let output = self.command(program).arg("--version").output()?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        Ok(format!("{}, Node.js {}", version("python3")?, version("node")?))
    }
}
