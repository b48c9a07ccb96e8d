//! `aviary push`: plays WeChat over real HTTP.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use aviary_wechat::crypt::AesKey;
use clap::builder::RangedU64ValueParser;
use hyper::StatusCode;

use crate::{
    config::{Account, Config, Mode},
    conversation::{Answer, DEFAULT_USER, Encryption, NoAnswer, Playback, Said, Simulator, TRIES_MAX, shown},
};

/// How long a try may be made to wait: what a proxy in between may wait too.
const TIMEOUT_MS_MAX: u64 = 600_000;

/// Sends the bot a message as WeChat would, and prints its reply.
///
/// The reply is in the notation of conversation files, `success` if there is none; how it came goes to standard error.
/// Exits 0 if the answer is 200 and WeChat would understand it, 1 if not, 2 if nothing could be sent.
#[derive(Debug, clap::Args)]
#[command(after_long_help = Said::words())]
pub struct Args {
    /// The bot's address, such as http://127.0.0.1:8000/; without it, that of the account in aviary.toml
    url: Option<String>,

    #[command(flatten)]
    what: What,
    /// The event's value: its EventKey, or what else it is about
    // Not `requires = "event"`: clap does not ask for what another of the group has ruled out.
    #[arg(long, conflicts_with_all = ["text", "say", "xml", "check"], default_value = "", hide_default_value = true)]
    key: String,

    /// Who sends it: an openid, or any name
    #[arg(long, value_name = "OPENID", default_value = DEFAULT_USER)]
    user: String,
    /// The account's original id
    #[arg(long, value_name = "ID", default_value = "gh_aviary")]
    to: String,

    /// The token to sign with; without it, the account's
    #[arg(long)]
    token: Option<String>,
    /// Which account of aviary.toml; without it, the only one, or `main`
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Where the account is set up
    #[arg(long, value_name = "FILE", default_value = "aviary.toml")]
    config: PathBuf,
    /// How to encrypt; without it, as the account is set up, or safe with a key and plain without
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// The key to encrypt with; without it, the account's
    #[arg(long, value_name = "KEY")]
    encoding_aes_key: Option<String>,
    /// The AppID that encrypted messages carry; without it, the account's
    #[arg(long, value_name = "APPID")]
    app_id: Option<String>,

    /// How often to try while there is no answer; WeChat tries 3 times, 5 seconds apart
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = RangedU64ValueParser::<u32>::new().range(1..=u64::from(TRIES_MAX)))]
    tries: u32,
    /// How long a try waits; WeChat waits 5,000 ms
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = RangedU64ValueParser::<u64>::new().range(1..=TIMEOUT_MS_MAX))]
    timeout_ms: u64,
    /// Print the answer's body as it came, still encrypted
    #[arg(long)]
    raw: bool,
}

/// One of the things to send.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Send a text
    #[arg(long, allow_hyphen_values = true)]
    text: Option<String>,
    /// Send an event, such as subscribe or CLICK
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Send what stands after `>` in a conversation file: `[image]`, `[subscribe qrscene_42]`, `你好`; --help lists the
    /// words
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    say: Option<String>,
    /// Send a file as it is; `-` is standard input
    #[arg(long, value_name = "FILE")]
    xml: Option<PathBuf>,
    /// Check the URL, as WeChat does when its form is saved
    #[arg(long)]
    check: bool,
}

/// The modes of WeChat's console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ModeArg {
    /// 明文模式
    Plain,
    /// 兼容模式
    Compatible,
    /// 安全模式
    Safe,
}

/// What is sent.
enum Request {
    Push(String),
    UrlCheck,
}

/// Sends what `args` say and prints what comes back.
///
/// # Errors
///
/// Standard output is closed, or the system has no random numbers.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let prepared = simulator(&args).and_then(|simulator| Ok((simulator, request(&args)?)));
    let (simulator, request) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    let mut out = std::io::stdout();
    let answered = match request {
        Request::UrlCheck => check(&simulator, args.raw, &mut out).await?,
        Request::Push(xml) => push(&simulator, &xml, &args, &mut out).await?,
    };
    out.flush()?;
    Ok(if answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells whether the answer is one that WeChat would take.
async fn push(simulator: &Simulator, xml: &str, args: &Args, out: &mut impl Write) -> anyhow::Result<bool> {
    let signed = simulator.sign(xml)?;
    let report = |number, result: &Result<Answer, NoAnswer>| {
        let of = if args.tries > 1 { format!("try {number}: ") } else { String::new() };
        match result {
            Ok(answer) => eprintln!("{of}{}", described(answer)),
            Err(error) => eprintln!("{of}{error}"),
        }
    };
    let answer = match simulator.deliver(&signed, args.tries, report).await {
        Ok(answer) => answer,
        Err(error) => {
            if args.tries == 1 && matches!(error, NoAnswer::Timeout { .. }) {
                eprintln!("WeChat would try {TRIES_MAX} times; so does `--tries {TRIES_MAX}`");
            }
            return Ok(false);
        }
    };

    if args.raw {
        out.write_all(&answer.body)?;
    }
    if answer.status != StatusCode::OK {
        eprintln!("{}", meaning(answer.status));
        return Ok(false);
    }
    match simulator.reply(&answer) {
        Ok(_) if args.raw => {}
        Ok(None) => writeln!(out, "success")?,
        Ok(reply) => writeln!(out, "{}", shown(reply.as_ref()))?,
        Err(error) => {
            eprintln!(
                "WeChat would not understand this answer, and tell the user that the account is out of order: {error:#}"
            );
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tells whether WeChat would accept the URL.
async fn check(simulator: &Simulator, raw: bool, out: &mut impl Write) -> anyhow::Result<bool> {
    let check = match simulator.check_url().await {
        Ok(check) => check,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(false);
        }
    };
    eprintln!("{}", described(&check.answer));
    if raw {
        out.write_all(&check.answer.body)?;
    }
    if check.passed() {
        eprintln!("WeChat would accept this URL");
        return Ok(true);
    }
    match check.answer.status {
        StatusCode::OK => {
            eprintln!("the answer is not the `echostr` that was sent, so something else than the bot listens there")
        }
        status => eprintln!("{}", meaning(status)),
    }
    Ok(false)
}

fn described(answer: &Answer) -> String {
    format!("{} in {} ms", answer.status, answer.elapsed.as_millis())
}

/// Says what a status other than 200 means for whoever set the bot up.
fn meaning(status: StatusCode) -> &'static str {
    match status.as_u16() {
        300..=399 => "a redirect, which WeChat does not follow; use the address it leads to",
        400 => {
            "the signature is right, but not the message: broken XML, a broken ciphertext, or not a message of WeChat's"
        }
        403 => {
            "refused: the token or the AppID differs, or the clock is off, or the account's `mode` is not the one of this push (`--mode`); \
             the bot's log says which"
        }
        404 => "no account has this path; see `path` in aviary.toml",
        405 => "something else than the bot listens there; it takes no POST",
        413 => "the message is larger than the bot, or a proxy before it, takes",
        500..=599 => "the bot, or a proxy before it, is out of order; WeChat would try again, then tell the user",
        _ => "WeChat takes only 200 for an answer",
    }
}

fn request(args: &Args) -> anyhow::Result<Request> {
    let said = match &args.what {
        What { check: true, .. } => return Ok(Request::UrlCheck),
        What { xml: Some(file), .. } => return Ok(Request::Push(super::parse::read_text(file)?)),
        What { text: Some(text), .. } => Said::text(text),
        What { event: Some(event), .. } => {
            if let Some(what) = Said::needs(event).filter(|_| args.key.is_empty()) {
                bail!("the event `{event}` needs its {what}: add `--key {what}`");
            }
            Said::event(event, &args.key)?
        }
        What { say, .. } => Said::parse(say.as_deref().unwrap_or_default())?,
    };
    let mut playback = Playback { to_user: args.to.clone(), ..Playback::default() };
    Ok(Request::Push(playback.push(&args.user, &said)))
}

fn simulator(args: &Args) -> anyhow::Result<Simulator> {
    let is_named = args.account.is_some() || args.url.is_none() || args.token.is_none();
    let config = match is_named || (lacks_encryption(args) && args.config.exists()) {
        true => Some(load(&args.config)?),
        false => None,
    };
    let account = match &config {
        Some(config) => Some(account_of(config, args.account.as_deref())?),
        None => None,
    };
    let url = match (&args.url, &config, account) {
        (Some(url), ..) => url.clone(),
        (None, Some(config), Some(account)) => local_url(config.listen, &account.path),
        _ => bail!("without a URL, an account in `{}` has to say where the bot is", args.config.display()),
    };
    let token = match (&args.token, account) {
        (Some(token), _) => token.as_str(),
        (None, Some(account)) => account.token.expose(),
        (None, None) => bail!("without `--token`, an account in `{}` has to have one", args.config.display()),
    };
    let mut simulator = Simulator::new(&url, token)?;
    simulator.encryption = encryption(args, account)?;
    simulator.timeout = Duration::from_millis(args.timeout_ms);
    Ok(simulator)
}

/// Tells whether `args` ask for a mode and do not give all it needs.
fn lacks_encryption(args: &Args) -> bool {
    let is_asked = args.encoding_aes_key.is_some() || args.mode.is_some_and(|mode| mode != ModeArg::Plain);
    is_asked && (args.encoding_aes_key.is_none() || args.app_id.is_none())
}

fn load(file: &Path) -> anyhow::Result<Config> {
    ensure!(
        file.exists(),
        "there is no `{}` here; give the bot's URL and `--token`, or name the file with `--config`",
        file.display()
    );
    Ok(Config::load(file)?)
}

fn account_of<'a>(config: &'a Config, name: Option<&str>) -> anyhow::Result<&'a Account> {
    let accounts = config.accounts.as_slice();
    let named = |name: &str| accounts.iter().find(|account| account.name == name);
    let account = match (name, accounts) {
        (Some(name), _) => named(name),
        (None, [only]) => Some(only),
        (None, _) => named("main"),
    };
    account.map(Arc::as_ref).with_context(|| {
        let names: Vec<&str> = accounts.iter().map(|account| account.name.as_str()).collect();
        let names = names.join("`, `");
        match name {
            Some(name) => format!("there is no account `{name}`; `--account` can be `{names}`"),
            None => format!("there are several accounts; choose one with `--account`: `{names}`"),
        }
    })
}

/// Where this machine reaches a host that listens on `listen`.
fn local_url(listen: SocketAddr, path: &str) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}{path}", SocketAddr::new(ip, listen.port()))
}

fn encryption(args: &Args, account: Option<&Account>) -> anyhow::Result<Encryption> {
    let mode = args.mode.or_else(|| account.map(|account| account.mode.into()));
    let mode = mode.unwrap_or(if args.encoding_aes_key.is_some() { ModeArg::Safe } else { ModeArg::Plain });
    if mode == ModeArg::Plain {
        return Ok(Encryption::Plain);
    }
    let key = match &args.encoding_aes_key {
        Some(key) => Some(AesKey::parse(key).context("`--encoding-aes-key`")?),
        None => account.and_then(|account| account.encoding_aes_key.clone()),
    };
    let key =
        key.context("this mode needs a key; give `--encoding-aes-key`, or set `encoding_aes_key` in the account")?;
    let app_id = args.app_id.clone().or_else(|| account.and_then(|account| account.app_id.clone()));
    let app_id = app_id.context("this mode needs the AppID; give `--app-id`, or set `app_id` in the account")?;
    Ok(match mode {
        ModeArg::Compatible => Encryption::Compatible { key, app_id },
        _ => Encryption::Safe { key, app_id },
    })
}

impl From<Mode> for ModeArg {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Plain => ModeArg::Plain,
            Mode::Compatible => ModeArg::Compatible,
            Mode::Safe => ModeArg::Safe,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Result<Args, String> {
        let line = ["push"].iter().chain(line);
        Line::try_parse_from(line).map(|line| line.args).map_err(|error| error.to_string())
    }

    fn sent(line: &[&str]) -> anyhow::Result<String> {
        match request(&args(line).unwrap())? {
            Request::Push(xml) => Ok(xml),
            Request::UrlCheck => bail!("a URL check"),
        }
    }

    /// Writes an `aviary.toml` and returns what a push without URL and token would be sent with.
    fn with_config(toml: &str, line: &[&str]) -> anyhow::Result<Simulator> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("aviary.toml");
        std::fs::write(&file, toml)?;
        let mut args = args(line).unwrap();
        args.config = file;
        simulator(&args)
    }

    #[test]
    fn one_thing_is_sent_at_a_time() {
        assert!(args(&["http://a/"]).is_err());
        assert!(args(&["--text", "a", "--check"]).is_err());
        assert!(args(&["--text", "a", "--key", "b"]).is_err());
        assert!(args(&["--text", "a", "--tries", "4"]).is_err());
        assert!(args(&["--event", "CLICK", "--key", "b"]).is_ok());
    }

    #[test]
    fn a_text_is_sent_whatever_it_looks_like() {
        let xml = sent(&["--text", "[image]", "--user", "小明"]).unwrap();
        assert!(xml.contains("<Content><![CDATA[[image]]]></Content>"), "{xml}");
        assert!(xml.contains("<FromUserName><![CDATA[小明]]></FromUserName>"), "{xml}");
    }

    #[test]
    fn an_event_that_needs_a_key_says_by_which_option_it_is_given() {
        let needs = |event| sent(&["--event", event]).unwrap_err().to_string();
        assert_eq!(needs("CLICK"), "the event `CLICK` needs its KEY: add `--key KEY`");
        assert_eq!(needs("view"), "the event `view` needs its URL: add `--key URL`");
        assert!(sent(&["--event", "subscribe"]).is_ok() && sent(&["--event", "new_one"]).is_ok());
    }

    #[test]
    fn an_event_and_a_word_are_the_same_push() {
        let event = sent(&["--event", "click", "--key", "weather"]).unwrap();
        let said = sent(&["--say", "[CLICK weather]"]).unwrap();
        assert!(event.contains("<Event><![CDATA[CLICK]]></Event><EventKey><![CDATA[weather]]></EventKey>"), "{event}");
        assert!(said.contains("<EventKey><![CDATA[weather]]></EventKey>"), "{said}");
        assert!(sent(&["--event", "CLICK"]).unwrap_err().to_string().contains("needs its KEY"));
    }

    #[test]
    fn every_push_is_a_new_message() {
        assert_ne!(sent(&["--text", "a"]).unwrap(), sent(&["--text", "a"]).unwrap());
    }

    #[test]
    fn a_url_and_a_token_need_no_file() {
        let args = args(&["http://a/", "--token", "wrong", "--text", "a", "--config", "missing.toml"]).unwrap();
        assert!(simulator(&args).is_ok());
    }

    #[test]
    fn without_a_file_the_way_out_is_named() {
        let args = args(&["--text", "a", "--config", "missing.toml"]).unwrap();
        let error = simulator(&args).unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no `missing.toml` here; give the bot's URL and `--token`, or name the file with `--config`"
        );
    }

    #[test]
    fn the_account_says_how_to_send() {
        let toml = format!(
            "listen = \"0.0.0.0:8123\"\n[accounts.main]\npath = \"/wx\"\ntoken = \"abc\"\napp_id = \"wx13974bf780d3dc89\"\n\
             encoding_aes_key = \"{KEY}\"\n"
        );
        let simulator = with_config(&toml, &["--text", "a"]).unwrap();
        assert_eq!(simulator.token.expose(), "abc");
        assert!(matches!(simulator.encryption, Encryption::Safe { ref app_id, .. } if app_id == "wx13974bf780d3dc89"));

        let simulator = with_config(&toml, &["--text", "a", "--mode", "plain", "--token", "wrong"]).unwrap();
        assert_eq!(simulator.token.expose(), "wrong");
        assert!(matches!(simulator.encryption, Encryption::Plain));
    }

    #[test]
    fn of_several_accounts_one_is_chosen() {
        let toml = "[accounts.one]\npath = \"/1\"\ntoken = \"abc\"\n[accounts.two]\npath = \"/2\"\ntoken = \"def\"\n";
        assert_eq!(with_config(toml, &["--text", "a", "--account", "two"]).unwrap().token.expose(), "def");
        let error = with_config(toml, &["--text", "a"]).unwrap_err().to_string();
        assert_eq!(error, "there are several accounts; choose one with `--account`: `one`, `two`");
        let error = with_config(toml, &["--text", "a", "--account", "three"]).unwrap_err().to_string();
        assert_eq!(error, "there is no account `three`; `--account` can be `one`, `two`");
    }

    #[test]
    fn a_mode_needs_its_key_and_app_id() {
        let refusal = |more: &[&str]| {
            let line = [&["http://a/", "--token", "abc", "--text", "a"], more].concat();
            simulator(&args(&line).unwrap()).map(|_| ()).map_err(|error| error.to_string())
        };
        assert!(refusal(&["--mode", "safe"]).unwrap_err().contains("--encoding-aes-key"));
        assert!(refusal(&["--encoding-aes-key", KEY]).unwrap_err().contains("--app-id"));
        assert!(refusal(&["--encoding-aes-key", "short", "--app-id", "wx1"]).is_err());
        assert_eq!(refusal(&["--encoding-aes-key", KEY, "--app-id", "wx1"]), Ok(()));
    }

    /// Plays WeChat against a host that gives this answer, and returns whether it was one, and what was printed.
    async fn answered(head: &str, body: &str, more: &[&str]) -> (bool, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection.write_all(answer.as_bytes()).await;
        });
        let args = args(&[&[url.as_str(), "--token", "abc"], more].concat()).unwrap();
        let simulator = simulator(&args).unwrap();
        let mut out = Vec::new();
        let is_answered = match request(&args).unwrap() {
            Request::UrlCheck => check(&simulator, args.raw, &mut out).await,
            Request::Push(xml) => push(&simulator, &xml, &args, &mut out).await,
        };
        (is_answered.unwrap(), String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn the_reply_is_printed_in_the_notation() {
        let text = ["--text", "a"];
        let xml = "<xml><MsgType>text</MsgType><Content><![CDATA[第一行\n第二行]]></Content></xml>";
        assert_eq!(answered("200 OK", xml, &text).await, (true, "第一行\n    | 第二行\n".into()));
        assert_eq!(answered("200 OK", "success", &text).await, (true, "success\n".into()));
        assert_eq!(answered("200 OK", "", &text).await, (true, "success\n".into()));
        assert_eq!(answered("200 OK", xml, &["--text", "a", "--raw"]).await, (true, xml.into()));
    }

    #[tokio::test]
    async fn what_wechat_would_not_take_is_no_answer() {
        let text = ["--text", "a"];
        assert_eq!(answered("403 Forbidden", "", &text).await, (false, String::new()));
        assert_eq!(answered("200 OK", "{}", &text).await, (false, String::new()));
        assert_eq!(answered("200 OK", "success", &["--check"]).await, (false, String::new()));
        assert_eq!(answered("500 Error", "oops", &["--text", "a", "--raw"]).await, (false, "oops".into()));
    }

    #[test]
    fn a_host_that_listens_everywhere_is_reached_here() {
        let url = |listen: &str| local_url(listen.parse().unwrap(), "/wx");
        assert_eq!(url("0.0.0.0:80"), "http://127.0.0.1:80/wx");
        assert_eq!(url("[::]:80"), "http://[::1]:80/wx");
        assert_eq!(url("10.0.0.1:8000"), "http://10.0.0.1:8000/wx");
    }
}
