//! `aviary api`: calls WeChat's API in an account's name.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::bot::CONFIG_FILE;
use crate::{
    api::{self, Answer, Api, ApiError, Apis, Field, Form, Method, check_path},
    config::{Account, Config},
};

/// How long the whole command may take: a file of some megabytes goes up in it, also when WeChat is busy for a while.
const PATIENCE: Duration = Duration::from_secs(120);

/// The most that is read to be posted: three times the largest file that WeChat takes, a video of 10 MB.
const POSTED_BYTES_MAX: u64 = 32 << 20;

/// Calls WeChat's API with the account's access_token: menus, QR codes, users, media, whatever WeChat offers.
///
/// A host may run meanwhile: the token is the one that it has, too. Exits 0 if WeChat did it, 1 if not, with what to do about
/// it, and 2 for wrong usage or settings.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  aviary api GET /cgi-bin/get_current_selfmenu_info
  aviary api POST /cgi-bin/menu/create --data menu.json
  aviary api POST '/cgi-bin/media/upload?type=image' --form media=@picture.jpg
  aviary api GET '/cgi-bin/media/get?media_id=MEDIA_ID' -o voice.amr")]
pub struct Args {
    /// GET or POST
    #[arg(value_parser = method)]
    method: Method,
    /// The path, with its query but without the access_token: /cgi-bin/user/info?openid=OPENID
    path: String,
    /// The JSON to post: a file, `-` for standard input, or the JSON itself
    #[arg(long, value_name = "FILE", conflicts_with = "form")]
    data: Option<String>,
    /// A field of a form to post: FIELD=@FILE, or FIELD=TEXT
    #[arg(long, value_name = "FIELD=@FILE")]
    form: Vec<String>,
    /// Write the answer to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// In whose name, where the settings have several accounts
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// The settings, if they are not in the directory here
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
}

/// Calls, and prints the answer.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let (api, call) = match prepare(&args, &config) {
        Ok(prepared) => prepared,
        // Nothing was called yet.
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    match call.send(&api).await {
        Ok(answer) => print(&answer, args.output.as_deref()).map(|()| ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("error: {}", error.advised());
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A call that can be sent.
struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    body: Body,
}

enum Body {
    Json(Option<String>),
    Form(Form),
}

impl Call {
    async fn send(self, api: &Api) -> Result<Answer, ApiError> {
        let deadline = Instant::now() + PATIENCE;
        match self.body {
            Body::Json(json) => api.fetch(self.method, &self.path, &self.query, json, deadline).await,
            Body::Form(form) => {
                let json = api.upload(&self.path, &self.query, form, deadline).await?;
                Ok(Answer { content_type: "application/json".to_owned(), file_name: None, body: json.into_bytes() })
            }
        }
    }
}

fn method(text: &str) -> Result<Method, String> {
    Method::parse(&text.to_ascii_uppercase()).ok_or_else(|| "it is GET or POST".to_owned())
}

fn prepare(args: &Args, config: &Config) -> anyhow::Result<(Api, Call)> {
    let account = account(config, args.account.as_deref())?;
    let none = || missing_for_api(account, &format!("accounts.{}.", account.name));
    let api = Apis::of_command(config).of(account).with_context(none)?;
    args.output.as_deref().map(writable).transpose()?;
    Ok((api, call(args)?))
}

/// Says what an account lacks for WeChat's API, its keys with this before them.
pub(super) fn missing_for_api(account: &Account, table: &str) -> String {
    let keys: Vec<_> = account.missing_for_api().iter().map(|key| format!("`{table}{key}`")).collect();
    format!("{} {} missing", keys.join(" and "), if keys.len() == 1 { "is" } else { "are" })
}

/// Sees whether an answer can be a file of this name: after the call, what it did is done.
fn writable(file: &Path) -> anyhow::Result<()> {
    ensure!(!file.is_dir(), "{} is a directory; name a file in it for the answer", file.display());
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    ensure!(dir.is_none_or(Path::is_dir), "the directory of {} is not there", file.display());
    Ok(())
}

fn account<'a>(config: &'a Config, name: Option<&str>) -> anyhow::Result<&'a Account> {
    let names = || config.accounts.iter().map(|account| account.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, config.accounts.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => bail!("there are several accounts; choose one with `--account`: {}", names()),
        (Some(name), accounts) => {
            let found = accounts.iter().find(|account| account.name == name);
            found
                .map(|account| &**account)
                .with_context(|| format!("there is no account `{name}`; there are {}", names()))
        }
    }
}

fn call(args: &Args) -> anyhow::Result<Call> {
    let (path, query) = args.path.split_once('?').unwrap_or((&args.path, ""));
    check_path(path).map_err(|reason| anyhow::anyhow!("the path {reason}"))?;
    let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    ensure!(query.iter().all(|(name, _)| name != "access_token"), "the access_token is added by this command");
    ensure!(args.method == Method::Post || (args.data.is_none() && args.form.is_empty()), "a GET has no body");
    let body = match args.form.is_empty() {
        true => Body::Json(args.data.as_deref().map(json).transpose()?),
        false => Body::Form(form(&args.form)?),
    };
    Ok(Call { method: args.method, path: path.to_owned(), query, body })
}

/// Reads the JSON to post.
fn json(data: &str) -> anyhow::Result<String> {
    let (what, bytes) = match data {
        "" => bail!("`--data` is empty; name a file, or `-` for standard input, or write the JSON itself"),
        "-" => ("standard input", bounded(std::io::stdin().lock()).context("standard input cannot be read")?),
        json if json.starts_with(['{', '[']) => ("what is to be posted", json.as_bytes().to_vec()),
        file => (file, read(file)?),
    };
    let text = String::from_utf8(bytes).with_context(|| format!("{what} is not UTF-8 text"))?;
    // Windows' editors begin a file with a mark that JSON does not have.
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    api::in_raw_utf8(text).with_context(|| format!("{what} is no JSON"))
}

fn read(file: &str) -> anyhow::Result<Vec<u8>> {
    File::open(file).and_then(bounded).with_context(|| format!("{file} cannot be read"))
}

/// Reads all there is, if it is no more than can be posted.
fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(POSTED_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > POSTED_BYTES_MAX {
        let too_large =
            format!("it is larger than {} MiB, which is all that this command posts", POSTED_BYTES_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, too_large));
    }
    Ok(bytes)
}

fn form(fields: &[String]) -> anyhow::Result<Form> {
    let fields = fields.iter().map(|field| {
        let (name, value) = field.split_once('=').with_context(|| format!("`--form {field}` has no `=`"))?;
        let Some(file) = value.strip_prefix('@') else {
            return Ok(Field { name: name.to_owned(), file: None, data: value.into() });
        };
        let data = read(file)?;
        let file_name = Path::new(file).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let content_type = api::content_type(&file_name).to_owned();
        Ok(Field { name: name.to_owned(), file: Some((file_name, content_type)), data })
    });
    let fields = fields.collect::<anyhow::Result<Vec<_>>>()?;
    Form::new(fields).map_err(anyhow::Error::msg)
}

/// Prints an answer: JSON in lines for a person, whatever it is for a program or a file.
fn print(answer: &Answer, output: Option<&Path>) -> anyhow::Result<()> {
    let json: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    match (output, json) {
        (Some(file), _) => {
            std::fs::write(file, &answer.body).with_context(|| format!("{} cannot be written", file.display()))?;
            eprintln!("{}: {} bytes {}", file.display(), answer.body.len(), answer.content_type.escape_debug());
        }
        (None, Some(json)) if std::io::stdout().is_terminal() => println!("{json:#}"),
        (None, None) if std::io::stdout().is_terminal() => bail!(
            "the answer is a file of {} bytes ({}); write it to one with `-o FILE`",
            answer.body.len(),
            answer.content_type.escape_debug()
        ),
        _ => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&answer.body)?;
            stdout.flush()?;
        }
    }
    Ok(())
}
