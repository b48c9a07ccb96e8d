//! The commands, as people run them: the real binary as a process of its own.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path};

use tempfile::TempDir;

use crate::{
    bot::{Setup, TOKEN},
    plugins::{ECHO, MISBEHAVE},
    process::{Finished, Running, aviary, finish, finish_with, shell},
};

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Runs a command in an empty directory.
async fn run(args: &[&str]) -> Finished {
    finish(aviary(directory().path(), args)).await
}

/// Free ports, so that tests may run at once.
const LISTEN: &str = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";

/// A bot directory to serve on a free port.
fn bot_directory(more: &str) -> TempDir {
    let dir = directory();
    fs::create_dir(dir.path().join("plugins")).unwrap();
    fs::write(dir.path().join("plugins/20-echo.wasm"), &*ECHO).unwrap();
    let account = format!("[accounts.main]\ntoken = \"{TOKEN}\"\n");
    fs::write(dir.path().join("aviary.toml"), format!("{LISTEN}{account}{more}")).unwrap();
    dir
}

/// The value that a form's line has after its name.
fn field<'a>(form: &'a str, name: &str) -> Option<&'a str> {
    form.lines().find_map(|line| Some(line.trim().strip_prefix(name)?.trim()))
}

/// `http://…` in a line, to its end or to the next blank.
fn url(line: &str) -> &str {
    let start = line.find("http://").unwrap_or_else(|| panic!("no URL in: {line}"));
    line[start..].split_whitespace().next().unwrap_or_default()
}

#[tokio::test]
async fn the_push_line_that_demo_prints_works_as_printed() {
    let dir = directory();
    let mut demo = Running::start(aviary(dir.path(), &["demo"]));
    let line = demo.line(" push http://127.0.0.1:").await;
    let pushed = finish(shell(dir.path(), line.trim())).await;
    assert_eq!((pushed.code, pushed.stdout.as_str()), (Some(0), "你好\n"), "{}", pushed.stderr);
    assert_eq!(demo.terminate().await, Some(0));
}

#[tokio::test]
async fn demo_leaves_nothing_behind_unless_a_directory_is_named() {
    let dir = directory();
    let plugins_of = |line: &str| {
        let (_, path) = line.split_once("Its plugins are in ").unwrap();
        dir.path().join(path.trim_end_matches('.'))
    };
    let mut demo = Running::start(aviary(dir.path(), &["demo"]));
    let plugins = plugins_of(&demo.line("Its plugins are in ").await);
    assert!(plugins.join("20-echo.wasm").exists());
    assert_eq!(demo.terminate().await, Some(0));
    assert!(!plugins.exists());

    let mut demo = Running::start(aviary(dir.path(), &["demo", "mine"]));
    let plugins = plugins_of(&demo.line("Its plugins are in ").await);
    let first = demo.line(" --token ").await;
    assert_eq!(demo.terminate().await, Some(0));
    assert_eq!(plugins, dir.path().join("mine/plugins"));
    assert!(plugins.join("20-echo.wasm").exists());

    let mut again = Running::start(aviary(dir.path(), &["demo", "mine"]));
    let token = |line: &str| line.split_once(" --token ").map(|(_, rest)| rest.to_owned());
    assert_eq!(token(&again.line(" --token ").await), token(&first), "it is the same bot");
    assert_eq!(again.terminate().await, Some(0));
}

#[tokio::test]
async fn init_writes_a_bot_and_prints_the_four_fields_of_wechats_form() {
    let dir = directory();
    let made = finish(aviary(dir.path(), &["init", "bot", "--app-id", "wx0123456789abcdef"])).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let file = dir.path().join("bot/aviary.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let config = fs::read_to_string(&file).unwrap();
    let (token, key) = (field(&made.stdout, "Token").unwrap(), field(&made.stdout, "EncodingAESKey").unwrap());
    assert_eq!((token.len(), key.len()), (32, 43));
    assert!(config.contains(&format!("token = \"{token}\"")) && config.contains(&format!("\"{key}\"")));
    assert!(field(&made.stdout, "URL").unwrap().starts_with("http"));
    assert_eq!(field(&made.stdout, "消息加解密方式"), Some("安全模式"));
    for plugin in ["10-welcome.wasm", "15-keywords.wasm", "20-echo.wasm", "90-fallback.wasm"] {
        assert!(dir.path().join("bot/plugins").join(plugin).exists(), "{plugin}");
    }

    let again = finish(aviary(dir.path(), &["init", "bot"])).await;
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("bot/aviary.toml is there already"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(&file).unwrap(), config);
}

#[tokio::test]
async fn init_refuses_what_is_no_app_id_before_anything_is_written() {
    let dir = directory();
    let refused = finish(aviary(dir.path(), &["init", "bot", "--app-id", "gh_0123456789ab"])).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    let why = "'gh_0123456789ab' for '--app-id <APPID>': must be the AppID, `wx…`; this is the account's original id";
    assert!(refused.stderr.contains(why) && !refused.stderr.contains("aviary.toml"), "{}", refused.stderr);
    assert!(!dir.path().join("bot").exists());
}

#[tokio::test]
async fn init_for_a_test_account_has_a_url_and_a_token_only() {
    let dir = directory();
    let made = finish(aviary(dir.path(), &["init", "bot", "--sandbox"])).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(field(&made.stdout, "URL").is_some() && field(&made.stdout, "Token").is_some());
    assert_eq!((field(&made.stdout, "EncodingAESKey"), field(&made.stdout, "消息加解密方式")), (None, None));
    let config = fs::read_to_string(dir.path().join("bot/aviary.toml")).unwrap();
    assert!(!config.contains("encoding_aes_key"), "{config}");
}

#[tokio::test]
async fn a_bot_of_init_serves_in_safe_mode_as_it_is() {
    let dir = directory();
    let made = finish(aviary(dir.path(), &["init", "bot", "--app-id", "wx0123456789abcdef"])).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let file = dir.path().join("bot/aviary.toml");
    let config = fs::read_to_string(&file).unwrap();
    let config = config.replacen("127.0.0.1:8000", "127.0.0.1:0", 1);
    fs::write(&file, format!("admin_listen = \"\"\n{config}")).unwrap();

    let mut serve = Running::start(aviary(dir.path(), &["serve", "bot"]));
    let line = serve.line("Account `main` listens on http://127.0.0.1:").await;
    serve.line("Ready after ").await;
    let push = |what: &[&str]| {
        let args = [&["push", url(&line), "--config", "bot/aviary.toml"], what].concat();
        finish(aviary(dir.path(), &args))
    };
    let pushed = push(&["--event", "subscribe"]).await;
    assert_eq!((pushed.code, pushed.stdout.as_str()), (Some(0), "感谢您的关注!\n"), "{}", pushed.stderr);
    let sealed = push(&["--text", "你好", "--raw"]).await;
    assert!(sealed.stdout.starts_with("<xml><Encrypt>"), "{}", sealed.stdout);
    let checked = push(&["--check"]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(checked.stderr.contains("WeChat would accept this URL"), "{}", checked.stderr);
    let plain = push(&["--text", "你好", "--mode", "plain"]).await;
    assert_eq!((plain.code, plain.stdout.as_str()), (Some(1), ""), "{}", plain.stderr);
    assert_eq!(serve.terminate().await, Some(0));
}

#[tokio::test]
async fn a_bot_of_init_without_an_app_id_says_what_it_lacks() {
    let dir = directory();
    let made = finish(aviary(dir.path(), &["init", "bot"])).await;
    assert!(made.stdout.contains("First write the account's AppID"), "{}", made.stdout);
    let served = finish(aviary(dir.path(), &["serve", "bot"])).await;
    assert_eq!(served.code, Some(2));
    assert!(served.stderr.contains("`accounts.main.app_id` is missing"), "{}", served.stderr);
}

#[tokio::test]
async fn serve_tells_where_it_listens_and_ends_well_when_it_is_told_to() {
    let dir = bot_directory("");
    let mut serve = Running::start(aviary(dir.path(), &["serve"]));
    let line = serve.line("Account `main` listens on http://127.0.0.1:").await;
    serve.line("Account `main` asks 1 plugin: echo").await;
    let pushed = finish(aviary(dir.path(), &["push", url(&line), "--text", "hi"])).await;
    assert_eq!((pushed.code, pushed.stdout.as_str()), (Some(0), "hi\n"), "{}", pushed.stderr);
    assert_eq!(serve.terminate().await, Some(0));
}

#[tokio::test]
async fn serve_takes_settings_that_are_elsewhere() {
    let (dir, bot) = (directory(), bot_directory(""));
    let file = bot.path().join("aviary.toml");
    let mut serve = Running::start(aviary(dir.path(), &["serve", "--config", file.to_str().unwrap()]));
    serve.line("Account `main` asks 1 plugin: echo").await;
    assert_eq!(serve.terminate().await, Some(0));
    assert!(bot.path().join("data").exists() && !dir.path().join("data").exists());
}

#[tokio::test]
async fn a_key_that_is_unknown_is_named_with_file_line_and_nearest_key() {
    let dir = bot_directory("[late]\nwindow = 4000\n");
    for command in ["serve", "push", "chat", "demo", "check"] {
        let args = match command {
            "push" => &["push", "--text", "hi"][..],
            "demo" => &["demo", "."],
            command => &[command],
        };
        let refused = finish(aviary(dir.path(), args)).await;
        assert_eq!(refused.code, Some(2), "{command}: {}", refused.stderr);
        assert_eq!(
            refused.stderr, "error: aviary.toml:6: unknown key `late.window`; did you mean `window_ms`?\n",
            "{command}"
        );
    }
}

#[tokio::test]
async fn serve_without_settings_names_the_file_it_looked_for() {
    let refused = run(&["serve", "nowhere"]).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.starts_with("error: aviary.toml: cannot be read"), "{}", refused.stderr);
}

#[tokio::test]
async fn serve_on_a_port_that_is_taken_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = bot_directory("");
    let file = dir.path().join("aviary.toml");
    let config = fs::read_to_string(&file).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let setting = |name: &str, value: &str| format!("\n{name} = \"{value}\"\n");
    let config = format!("\n{config}");
    for name in ["listen", "admin_listen"] {
        fs::write(&file, config.replacen(&setting(name, "127.0.0.1:0"), &setting(name, &address), 1)).unwrap();
        let refused = finish(aviary(dir.path(), &["serve"])).await;
        assert_eq!(refused.code, Some(1));
        let told = format!("cannot listen on {address}; is another program using it? `{name}` sets another");
        assert!(refused.stderr.contains(&told), "{}", refused.stderr);
    }
}

#[tokio::test]
async fn serve_says_in_one_line_why_a_file_is_no_plugin_and_asks_the_others() {
    let dir = bot_directory("");
    let plugins = dir.path().join("plugins");
    fs::write(plugins.join("30-compiled.cwasm"), b"\x7fELF").unwrap();
    fs::write(plugins.join("40-text.wasm"), "this is a text\nof two lines\n").unwrap();
    fs::write(plugins.join("50-half.wasm"), &ECHO[..ECHO.len() / 2]).unwrap();
    fs::write(plugins.join("60-empty.wasm"), "").unwrap();
    let mut serve = Running::start(aviary(dir.path(), &["serve"]));
    let line = serve.line("30-compiled.cwasm is refused").await;
    assert!(line.contains("put the `.wasm` file there"), "{line}");
    for (file, why) in [
        ("40-text.wasm", "this is no WebAssembly"),
        ("50-half.wasm", "unexpected end"),
        ("60-empty.wasm", "this is no WebAssembly"),
    ] {
        let line = serve.line(&format!("{file} is not loaded: ")).await;
        assert!(line.contains(why) && line.contains("its plugin is not asked"), "{line}");
    }
    serve.line("Account `main` asks 1 plugin: echo").await;
    assert_eq!(serve.terminate().await, Some(0));
}

const PUSH: &str = "<xml><ToUserName>gh_1</ToUserName><FromUserName>o_1</FromUserName><CreateTime>1700000000</CreateTime>\
                    <MsgType>text</MsgType><Content>你好</Content><MsgId>7</MsgId></xml>";

#[tokio::test]
async fn parse_prints_what_a_plugin_would_be_given() {
    let dir = directory();
    fs::write(dir.path().join("push.xml"), PUSH).unwrap();
    for (args, input) in [(&["parse"][..], PUSH), (&["parse", "-"], PUSH), (&["parse", "push.xml"], "")] {
        let parsed = finish_with(aviary(dir.path(), args), input).await;
        assert_eq!(parsed.code, Some(0), "{args:?}: {}", parsed.stderr);
        let message: serde_json::Value = serde_json::from_str(&parsed.stdout).unwrap();
        assert_eq!(message["from_user"], "o_1", "{args:?}");
        assert_eq!(message["msg_id"], 7, "{args:?}");
        assert_eq!(message["body"]["Text"]["content"], "你好", "{args:?}");
    }
}

#[tokio::test]
async fn parse_says_why_something_is_no_message() {
    let refused = finish_with(aviary(directory().path(), &["parse"]), "<xml><MsgType>text</xml>").await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert!(refused.stderr.starts_with("error: not a push: "), "{}", refused.stderr);
    let missing = run(&["parse", "nowhere.xml"]).await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.starts_with("error: cannot read `nowhere.xml`"), "{}", missing.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn push_exits_0_for_an_answer_1_for_none_and_2_when_nothing_was_sent() {
    let bot = Setup::new().plugin("20-echo.wasm", &ECHO).start().await;
    let url = format!("{}/", bot.origin);
    let answered = run(&["push", &url, "--token", TOKEN, "--text", "第一行\n第二行"]).await;
    assert_eq!((answered.code, answered.stdout.as_str()), (Some(0), "第一行\n    | 第二行\n"), "{}", answered.stderr);
    let silent = run(&["push", &url, "--token", TOKEN, "--say", "[subscribe]"]).await;
    assert_eq!((silent.code, silent.stdout.as_str()), (Some(0), "success\n"), "{}", silent.stderr);

    let forged = run(&["push", &url, "--token", "wrong", "--text", "hi"]).await;
    assert_eq!((forged.code, forged.stdout.as_str()), (Some(1), ""));
    assert!(forged.stderr.contains("403") && forged.stderr.contains("the token"), "{}", forged.stderr);
    bot.stop().await;
    let unreached = run(&["push", &url, "--token", TOKEN, "--text", "hi"]).await;
    assert_eq!(unreached.code, Some(1));
    assert!(unreached.stderr.contains("cannot reach"), "{}", unreached.stderr);

    // Nobody accepts what is sent there.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let once = run(&["push", &url, "--token", TOKEN, "--text", "hi", "--timeout-ms", "100"]).await;
    let hint = "WeChat would try 3 times; so does `--tries 3`\n";
    assert_eq!((once.code, once.stderr), (Some(1), format!("no answer within 100 ms\n{hint}")));

    let nowhere = run(&["push", "--text", "hi"]).await;
    assert_eq!(nowhere.code, Some(2));
    assert!(nowhere.stderr.contains("there is no `aviary.toml` here"), "{}", nowhere.stderr);
    let slip = run(&["push", &url, "--token", TOKEN, "--say", "[subscribed]"]).await;
    assert_eq!(slip.code, Some(2));
    assert!(slip.stderr.contains("write `[subscribe]` if that was meant"), "{}", slip.stderr);
    assert_eq!(run(&["push", &url, "--token", TOKEN]).await.code, Some(2), "nothing to send");
}

#[tokio::test]
async fn every_command_explains_itself() {
    let all = run(&["--help"]).await;
    assert_eq!(all.code, Some(0));
    let (_, list) = all.stdout.split_once("Commands:").unwrap();
    let (list, _) = list.split_once("Options:").unwrap();
    let commands: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        commands,
        [
            "demo", "init", "serve", "push", "chat", "parse", "check", "new", "dev", "status", "plugins", "late",
            "api", "help"
        ]
    );
    for command in commands.iter().filter(|command| **command != "help") {
        let help = run(&[command, "--help"]).await;
        assert_eq!(help.code, Some(0), "{command}");
        assert!(help.stdout.contains(&format!("Usage: aviary {command}")), "{command}: {}", help.stdout);
        assert!(help.stdout.contains("Options:") && help.stdout.contains("--help"), "{command}: {}", help.stdout);
        assert!(!help.stdout.contains(r"\["), "it reads well: {}", help.stdout);
    }
    assert!(run(&["push", "--help"]).await.stdout.contains("[subscribe qrscene_SCENE|last_trade_no_ID?]"));
    assert!(!all.stdout.contains("compile-plugin"), "only the host itself runs that");
    assert!(run(&["--version"]).await.stdout.starts_with("aviary 0."));
}

#[tokio::test]
async fn a_command_whose_reader_wants_no_more_ends_quietly() {
    let dir = bot_directory("");
    let line = format!("{{ '{}' check; echo $? >&2; }} | :", crate::bot::binary().display());
    let ended = finish(shell(dir.path(), &line)).await;
    assert_eq!(ended.stderr, "141\n");
}

#[tokio::test]
async fn what_is_no_command_is_wrong_usage() {
    for args in [&["fly"][..], &["serve", "--fast"], &["init"], &[]] {
        let refused = run(args).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(refused.stderr.contains("Usage: aviary"), "{args:?}: {}", refused.stderr);
    }
}

/// Talks to plugins, one line after the other.
async fn chat(dir: &Path, plugins: &[&str], script: &str) -> Finished {
    finish_with(aviary(dir, &[&["chat"], plugins].concat()), script).await
}

#[tokio::test]
async fn chat_shows_who_answered_and_what_it_took() {
    let dir = directory();
    fs::write(dir.path().join("10-misbehave.wasm"), &*MISBEHAVE).unwrap();
    fs::write(dir.path().join("20-echo.wasm"), &*ECHO).unwrap();
    let script = "print 你好\nhi\n小明> trap\nfail on purpose\n[imge]\n[image]\n";
    let talk = chat(dir.path(), &["10-misbehave.wasm", "20-echo.wasm"], script).await;
    assert_eq!((talk.code, talk.stderr.as_str()), (Some(0), ""), "a failure is told once, in the conversation");
    let taken = regex::Regex::new(r"\(\d+\.\d\d ms, \d+ KiB\)").unwrap();
    let said: Vec<String> = talk.stdout.lines().map(|line| taken.replace(line, "(taken)").into_owned()).collect();
    assert_eq!(said[0], "Talking to misbehave, echo. Ctrl-D ends it.");
    assert_eq!(said[1..4], ["> < printed", "    misbehave | 你好", "    misbehave replied (taken)"]);
    assert_eq!(said[4..7], ["> < hi", "    misbehave passed (taken)", "    echo replied (taken)"]);
    assert_eq!(said[7], "> < trap");
    assert!(said[8].starts_with("    misbehave failed: it trapped: ") && said[8].ends_with("(taken)"), "{}", said[8]);
    assert_eq!(said[10], "> < fail on purpose");
    assert_eq!(said[11], "    misbehave failed: it said: on purpose (taken)");
    assert!(said[13].starts_with("> `[imge]` is not one of WeChat's words; write `[image]`"), "{}", said[13]);
    assert_eq!(said[14..17], ["> < ", "    misbehave passed (taken)", "    echo passed (taken)"]);
}

#[tokio::test]
async fn chat_gives_plugins_the_settings_of_the_command_line() {
    let dir = directory();
    fs::write(dir.path().join("misbehave.wasm"), &*MISBEHAVE).unwrap();
    let talk = chat(dir.path(), &["misbehave.wasm", "--env", "CITY=北京"], "env CITY\nenv OTHER\n").await;
    assert!(talk.stdout.contains("< 北京\n") && talk.stdout.contains("< unset\n"), "{}", talk.stdout);
    let wrong = chat(dir.path(), &["misbehave.wasm", "--env", "CITY"], "").await;
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("`--env CITY` has no `=`"), "{}", wrong.stderr);
}

#[tokio::test]
async fn chat_with_a_file_that_is_no_plugin_says_why() {
    let dir = directory();
    fs::write(dir.path().join("text.wasm"), "hello").unwrap();
    let refused = chat(dir.path(), &["text.wasm"], "hi\n").await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("text.wasm is not loaded: this is no WebAssembly"), "{}", refused.stderr);
    let missing = chat(dir.path(), &["nowhere.wasm"], "hi\n").await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("cannot read nowhere.wasm"), "{}", missing.stderr);
}
