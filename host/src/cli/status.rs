//! `aviary status`: how the host is that runs.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use super::{bot::CONFIG_FILE, report::Report};
use crate::{
    api::NoToken,
    config::Config,
    control::{
        client::{Host, NoAnswer},
        status::{Account, Asked, Status},
    },
    forward::Failing,
    plugin::{
        quarantine::{Part, Quarantined},
        set::Fault,
    },
    shell::word,
    store::late::Counts,
};

/// How much of a hash is shown: enough to tell versions apart, and to name one.
const HASH_CHARS: usize = 12;

/// Tells how the running host is: its accounts, their plugins, and all that somebody should look at.
///
/// Exits 0 if all is well; 1 if no host runs, or something needs a person; 2 if the settings cannot be loaded and no host is
/// found.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bot's directory, with its aviary.toml
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// The settings, if they are elsewhere
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the status.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = args.config.unwrap_or_else(|| args.dir.join(CONFIG_FILE));
    let asked = async { Host::find(&data_dir(&file)?).await?.status().await.map_err(anyhow::Error::from) }.await;
    match asked {
        Ok(status) if args.json => {
            let mut report = Report::silent();
            print(&status, &mut report);
            let mut value = serde_json::to_value(&status)?;
            value["running"] = true.into();
            value["well"] = report.is_well().into();
            println!("{value:#}");
            Ok(report.end())
        }
        Ok(status) => {
            let mut report = Report::default();
            print(&status, &mut report);
            Ok(report.end())
        }
        Err(error) if is_not_running(&error) => {
            match args.json {
                true => println!("{:#}", json!({ "running": false, "well": false })),
                false => println!("{error}.\nStart it with: {}", start_line(&file)),
            }
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error),
    }
}

/// Where the host of these settings has its socket, also when they are broken at the moment: it still has the old ones.
pub(super) fn data_dir(file: &Path) -> anyhow::Result<PathBuf> {
    let error = match Config::load(file) {
        Ok(config) => return Ok(config.data_dir),
        Err(error) => error,
    };
    let Ok(text) = std::fs::read_to_string(file) else { return Err(error.into()) };
    let line = text.lines().find(|line| line.split('=').next().is_some_and(|key| key.trim() == "data_dir"));
    let set =
        line.and_then(|line| toml::from_str::<toml::Table>(line).ok()?.get("data_dir")?.as_str().map(PathBuf::from));
    let dir = file.parent().unwrap_or(Path::new(".")).join(set.unwrap_or_else(|| "data".into()));
    if dir.is_dir() { Ok(dir) } else { Err(error.into()) }
}

/// Whether an answer is missing because nobody is there.
pub(super) fn is_not_running(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(NoAnswer::NotRunning(_)))
}

/// How the host of these settings is started.
pub(super) fn start_line(file: &Path) -> String {
    match file.parent().filter(|_| file.file_name().is_some_and(|name| name == CONFIG_FILE)) {
        Some(dir) if dir == Path::new("") || dir == Path::new(".") => "aviary serve".to_owned(),
        Some(dir) => format!("aviary serve {}", word(dir)),
        None => format!("aviary serve --config {}", word(file)),
    }
}

fn print(status: &Status, report: &mut Report) {
    report.heading("Host");
    report.fact("settings", &status.settings.display().to_string());
    report.fact(
        "running for",
        &format!("{} (process {}, version {})", span(status.running_s), status.pid, status.version),
    );
    report.fact("late replies", &late(status));
    if let Some(Counts { dead: dead @ 1.., .. }) = status.late {
        let could = counted(dead, "late reply", "late replies");
        report.wrong(&format!(
            "{could} could not be delivered: `aviary late` says why, and `aviary late retry` or `drop` ends it"
        ));
    }
    status.unready.iter().for_each(|why| report.wrong(&format!("not ready: {why}")));
    status.problems.iter().for_each(|problem| report.wrong(problem));
    status.notes.iter().for_each(|note| report.note(note));
    let base = status.settings.parent();
    status.accounts.iter().for_each(|account| print_account(account, status, base, report));
    if !status.faults.is_empty() || !status.complaints.is_empty() {
        report.heading("\nFiles and tables");
    }
    for fault in &status.faults {
        report.wrong(&format!("{} is not loaded: {}; {}", shown(&fault.file, base), fault.why, instead(fault)));
    }
    status.complaints.iter().for_each(|complaint| report.wrong(complaint));
}

fn print_account(account: &Account, status: &Status, base: Option<&Path>, report: &mut Report) {
    report.heading(&format!("\nAccount `{}`", account.name));
    report.fact("path", &account.path);
    report.fact("mode", &account.mode);
    for plugin in &account.plugins {
        report.fact(&plugin.name, &version(plugin, base));
    }
    if let Some(forward) = &account.forward {
        report.fact("forward", forward);
    }
    if let Some(NoToken { since_s, why }) = &account.no_token {
        let since = span(*since_s);
        report.wrong(&format!(
            "no access_token could be fetched for {since}: {why}; the next call of WeChat's API tries again"
        ));
    }
    account.forward_failing.iter().for_each(|failing| report.wrong(&told(failing)));
    // While plugins are loaded, the host is to blame and has said so.
    if account.plugins.is_empty() && account.forward.is_none() && status.unready.is_none() {
        report.wrong("it asks no plugin: every message is answered with silence");
    }
    account.wrong_settings.iter().for_each(|wrong| report.wrong(&format!("plugin {wrong}")));
    account.plugins.iter().flat_map(Asked::quarantined).for_each(|out| report.wrong(&left_alone(out)));
}

/// What became of a plugin that kept failing.
pub(super) fn left_alone(out: &Quarantined) -> String {
    let again = match (out.probe_in_s, out.again_in_s) {
        _ if out.probing => "a call is trying it right now".to_owned(),
        (0, 0) => "the next one for it tries it again".to_owned(),
        (0, seconds) => format!(
            "the next one for it tries it again, unless its user has tried it already: then in {}",
            span(seconds)
        ),
        (seconds, _) => format!("it is tried again in {}", span(seconds)),
    };
    let part = match out.part {
        Part::Bot => "",
        Part::Pages => ", for its pages,",
    };
    format!("plugin `{}`{part} has been left alone for {}: {}; {again}", out.plugin, span(out.out_s), out.why)
}

/// How many replies are late.
fn late(status: &Status) -> String {
    let under_way = status.late_under_way;
    let Some(Counts { owed, kept, dead }) = status.late else {
        return format!("{under_way} under way; the store does not say what is written down");
    };
    let see = if under_way + owed + kept + dead > 0 { "; see `aviary late`" } else { "" };
    let dead = counted(dead, "dead letter", "dead letters");
    format!("{under_way} under way, {owed} owed, {kept} kept, {dead}{see}")
}

/// A number with what it counts.
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// How a webhook fails.
fn told(Failing { since_s, messages, why }: &Failing) -> String {
    let at = match messages {
        0 => String::new(),
        1 => ", at the last message".to_owned(),
        _ => format!(", at the last {messages} messages"),
    };
    format!("`forward` has failed for {}{at}: it {why}; the next one that it answers ends this", span(*since_s))
}

/// Which version of a plugin serves, and from where.
pub(super) fn version(plugin: &Asked, base: Option<&Path>) -> String {
    let since = plugin.first_served_s.map(|then| format!(", first served {}", ago(then))).unwrap_or_default();
    let pin = match &plugin.pinned {
        Some(pinned) if *pinned == plugin.sha256 => ", pinned".to_owned(),
        Some(pinned) => format!(", but pinned to {}", short(pinned)),
        None => String::new(),
    };
    format!("{}  {}{since}{pin}", short(&plugin.sha256), shown(&plugin.file, base))
}

/// Who is asked instead of a file that does not serve.
pub(super) fn instead(fault: &Fault) -> &'static str {
    if fault.serving { "the version before it serves" } else { "its plugin is not asked" }
}

/// The beginning of a hash.
pub(super) fn short(sha256: &str) -> &str {
    sha256.get(..HASH_CHARS).unwrap_or(sha256)
}

/// A path as short as can be.
pub(super) fn shown(file: &Path, base: Option<&Path>) -> String {
    base.and_then(|base| file.strip_prefix(base).ok()).unwrap_or(file).display().to_string()
}

/// How long ago a second since 1970 was.
pub(super) fn ago(then_s: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{} ago", span(now.as_secs().saturating_sub(then_s)))
}

/// A time in its largest unit.
fn span(seconds: u64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_when_a_plugin_that_is_left_alone_is_tried_again() {
        let told = |probing, probe_in_s, again_in_s| {
            let (account, plugin, part) = ("main".into(), "weather".into(), Part::Bot);
            let (code, why, out_s, probes_failed) = (String::new(), "it trapped".into(), 30, 1);
            left_alone(&Quarantined {
                account,
                plugin,
                part,
                code,
                why,
                out_s,
                probe_in_s,
                again_in_s,
                probing,
                probes_failed,
            })
        };
        let start = "plugin `weather` has been left alone for 30 s: it trapped; ";
        for (told, expected) in [
            (told(false, 20, 40), "it is tried again in 20 s"),
            (
                told(false, 0, 20),
                "the next one for it tries it again, unless its user has tried it already: then in 20 s",
            ),
            (told(false, 0, 0), "the next one for it tries it again"),
            (told(true, 0, 20), "a call is trying it right now"),
        ] {
            assert_eq!(told.strip_prefix(start), Some(expected));
        }
    }
}
