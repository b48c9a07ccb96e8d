//! The assistant beside a model that is slow, streams, or fails: `aviary serve` as a process, the API played over real HTTP, and
//! WeChat's own clock.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use libtest_mimic::Failed;
use tempfile::TempDir;

use crate::{toolchains::cache, workspace};

/// What a model does with every question.
#[derive(Clone, Copy, Debug)]
pub enum Model {
    /// Answers in one piece, after so long.
    After(Duration),
    /// Answers in pieces.
    Streams,
    /// Is out of order.
    Fails,
}

/// What it says.
const ANSWER: &str = "四十二。";

/// What the user reads while the answer is not there, and fetches it with.
const WAITING: &str = "还在想，稍后回复“继续”查看";
const FETCH: &str = "继续";

/// How often the user asks for what is not there yet; each time the host waits as long as three tries last.
const FETCHES_MAX: usize = 8;

/// Asks the assistant one question, with or without the grant that keeps its history. The user is to read `expected` once,
/// however late, and the model to be asked once.
pub fn ask(model: Model, kv: bool, expected: &str) -> Result<(), Failed> {
    let (origin, questions) = serve(model)?;
    let bot = Bot::start(&origin, kv)?;
    let mut read = bot.says("生命的意义是什么？")?;
    for _ in 0..FETCHES_MAX {
        if read != WAITING {
            break;
        }
        read = bot.says(FETCH)?;
    }
    let asked = questions.lock().unwrap_or_else(PoisonError::into_inner).len();
    match (read.as_str(), asked) {
        (read, 1) if read == expected => Ok(()),
        (read, asked) => Err(format!("the user read {read:?}, and the model was asked {asked} times").into()),
    }
}

/// The bodies of requests, in the order they came.
type Requests = Arc<Mutex<Vec<String>>>;

/// Plays the model's API on a free port. Returns where, and the requests that came.
fn serve(model: Model) -> Result<(String, Requests), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let origin = format!("http://{}", listener.local_addr()?);
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = seen.clone();
            thread::spawn(move || _ = answer(stream, model, &seen));
        }
    });
    Ok((origin, requests))
}

/// Reads one request and answers it.
fn answer(mut stream: TcpStream, model: Model, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {
        let last = head.trim_end().lines().last().unwrap_or_default().to_ascii_lowercase();
        length = last.strip_prefix("content-length: ").and_then(|length| length.parse().ok()).unwrap_or(length);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let whole = format!(r#"{{"choices":[{{"message":{{"content":"{ANSWER}"}}}}]}}"#);
    if !head.starts_with("POST /v1/chat/completions ") {
        return write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
    let (status, body) = match model {
        Model::After(time) => {
            // The story itself: a model that takes so long.
            thread::sleep(time);
            ("200 OK", whole)
        }
        Model::Streams => {
            let pieces = ANSWER
                .chars()
                .map(|piece| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{piece}\"}}}}]}}\n\n"));
            ("200 OK", pieces.collect::<String>() + "data: [DONE]\n\n")
        }
        Model::Fails => ("503 Service Unavailable", "overloaded".to_owned()),
    };
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// A bot with the assistant, served by a process that ends with this value.
struct Bot {
    dir: TempDir,
    process: Child,
    url: String,
}

impl Bot {
    fn start(model: &str, kv: bool) -> Result<Self, Failed> {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("plugins"))?;
        let wasm = workspace().join("examples/assistant-ts/assistant-ts.wasm");
        fs::copy(wasm, dir.path().join("plugins/40-assistant.wasm"))?;
        fs::write(dir.path().join("aviary.toml"), settings(model, kv))?;
        let mut process = aviary(dir.path()).arg("serve").stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let log = process.stderr.take().ok_or("the log is a pipe")?;
        let mut lines = BufReader::new(log).lines().map_while(Result::ok);
        let listens = lines.find(|line| line.contains("listens on http://")).ok_or("it does not listen")?;
        lines.find(|line| line.contains("Ready after")).ok_or("it is not ready")?;
        // A full pipe would stop it.
        thread::spawn(move || lines.for_each(drop));
        let url = listens.split_whitespace().find(|word| word.starts_with("http://")).ok_or("it has no URL")?;
        Ok(Self { url: url.trim_end_matches(',').to_owned(), dir, process })
    }

    /// Sends a text as WeChat does, up to three times, and returns what the user reads.
    fn says(&self, text: &str) -> Result<String, Failed> {
        let args = ["push", &self.url, "--config", "aviary.toml", "--tries", "3", "--text", text];
        let output = aviary(self.dir.path()).args(args).output()?;
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout)?.trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
        }
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn settings(model: &str, kv: bool) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
admin_listen = ""

[accounts.main]
token = "abc"

[plugins.assistant]
env = {{ BASE_URL = "{model}/v1/" }}

[plugins.assistant.grants]
kv = {kv}
http = [{{ url = "{model}", private = true }}]
"#
    )
}

fn aviary(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aviary"));
    command.current_dir(dir).env("XDG_CACHE_HOME", cache()).stdin(Stdio::null());
    command
}
