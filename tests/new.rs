//! An author's loop: a project is written, built at every change, and answers anew. What the templates of each language come to
//! is `templates.rs`.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use tempfile::TempDir;

use crate::{
    bot::Setup,
    fake_wechat::FakeWechat,
    plugins::{CALLER, ECHO, FETCHER, MISBEHAVE, PARROT, WELCOME},
    process::{Running, aviary, finish},
    upstream::{Upstream, ok},
};

/// A project whose source is a plugin already: its build is a copy.
fn project() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let build = "test -s bot.src && cp bot.src plugins/bot.wasm";
    let config = format!("[accounts.main]\ntoken = \"abc\"\n[dev]\nbuild = \"{build}\"\n");
    fs::write(dir.path().join("aviary.toml"), config).unwrap();
    fs::write(dir.path().join("bot.src"), &*ECHO).unwrap();
    dir
}

/// Writes a project's `build.sh` at once, so that no half of it runs.
fn build_as(dir: &Path, script: &str) {
    let passing = dir.join(".build.sh");
    fs::write(&passing, script).unwrap();
    fs::set_permissions(&passing, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&passing, dir.join("build.sh")).unwrap();
}

/// A command that somebody types into.
fn typed(dir: &Path, args: &[&str]) -> Running {
    let mut command = aviary(dir, args);
    command.stdin(Stdio::piped());
    Running::start(command)
}

#[tokio::test]
async fn a_change_is_built_and_loaded_and_answers_what_was_said_last() {
    let dir = project();
    let mut dev = typed(dir.path(), &["dev"]);
    dev.type_line("你好").await;
    dev.line("< 你好").await;
    fs::write(dir.path().join("bot.txt"), "> hi\n< 鹦鹉：hi\n").unwrap();
    fs::write(dir.path().join("bot.src"), &*PARROT).unwrap();
    dev.line("< 鹦鹉：你好").await;
    dev.line("bot.txt: all 1 expected replies came").await;
    assert_eq!(dev.terminate().await, Some(0));
}

#[tokio::test]
async fn a_lock_file_that_a_build_writes_starts_no_other_build() {
    let dir = project();
    build_as(dir.path(), "cp bot.src plugins/bot.wasm && sha256sum bot.src > Cargo.lock");
    fs::write(dir.path().join("aviary.toml"), "[accounts.main]\ntoken = \"abc\"\n").unwrap();
    let mut dev = typed(dir.path(), &["dev"]);
    dev.type_line("你好").await;
    dev.line("< 你好").await;
    fs::write(dir.path().join("bot.src"), &*PARROT).unwrap();
    dev.line("< 鹦鹉：你好").await;
    // What looks at it the next time sees the lock file, too.
    fs::write(dir.path().join("bot.txt"), "> hi\n< 鹦鹉：hi\n").unwrap();
    dev.line("bot.txt: all 1 expected replies came").await;
    assert_eq!(dev.count("Built in"), 2);
    assert_eq!(dev.terminate().await, Some(0));
}

#[tokio::test]
async fn a_build_that_fails_is_told_and_the_version_before_it_answers() {
    let dir = project();
    let mut dev = typed(dir.path(), &["dev"]);
    dev.line("Talk to it").await;
    fs::write(dir.path().join("bot.src"), "").unwrap();
    dev.line("The build failed").await;
    dev.type_line("你好").await;
    dev.line("< 你好").await;
    assert_eq!(dev.terminate().await, Some(0));
}

#[tokio::test]
async fn what_only_lacked_a_tool_is_built_again_at_enter() {
    let (dir, tools) = (project(), tempfile::tempdir().unwrap());
    let tool = tools.path().join("tool");
    build_as(dir.path(), &format!("test -e {} && cp bot.src plugins/bot.wasm", tool.display()));
    fs::write(dir.path().join("aviary.toml"), "[accounts.main]\ntoken = \"abc\"\n").unwrap();
    let mut dev = typed(dir.path(), &["dev"]);
    dev.line("Enter builds again").await;
    fs::write(tool, "").unwrap();
    dev.type_line("").await;
    dev.line("Built in").await;
    // What was built is not built for another empty line.
    dev.type_line("").await;
    dev.type_line("你好").await;
    dev.line("< 你好").await;
    assert_eq!(dev.count("$ ./build.sh"), 2);
    assert_eq!(dev.terminate().await, Some(0));
}

#[tokio::test]
async fn an_edited_conversation_is_held_and_edited_settings_count_without_a_build() {
    let dir = project();
    fs::write(dir.path().join("bot.src"), &*WELCOME).unwrap();
    let mut dev = typed(dir.path(), &["dev"]);
    dev.type_line("[subscribe]").await;
    dev.line("< 感谢您的关注!").await;

    fs::write(dir.path().join("bot.txt"), "> [subscribe]\n< 感谢您的关注!\n").unwrap();
    dev.line("bot.txt: all 1 expected replies came").await;
    // As an editor saves it that knows only the system's old encoding.
    fs::write(dir.path().join("bot.txt"), b"> [subscribe]\n< \xb8\xd0\xd0\xbb\n").unwrap();
    dev.line("bot.txt` is not UTF-8").await;

    let config = fs::read_to_string(dir.path().join("aviary.toml")).unwrap();
    let greeting = "[plugins.bot]\nenv = { TEXT = \"欢迎！\" }\n";
    fs::write(dir.path().join("aviary.toml"), format!("{config}{greeting}")).unwrap();
    dev.line("< 欢迎！").await;
    assert_eq!(dev.count("Built in"), 1);

    // Another command to build is another build.
    fs::write(dir.path().join("aviary.toml"), config.replace("test -s bot.src", "echo anew") + greeting).unwrap();
    dev.line("$ echo anew").await;
    assert_eq!(dev.terminate().await, Some(0));
}

/// In words, where the author looks, and not as a line of a log beside them.
#[tokio::test]
async fn a_plugin_that_fails_is_told_once_for_each_message() {
    let dir = project();
    fs::write(dir.path().join("bot.src"), &*MISBEHAVE).unwrap();
    fs::write(dir.path().join("bot.txt"), "> say hi\n< hi\n小明> fail in the conversation\n<\n").unwrap();
    let mut dev = typed(dir.path(), &["dev"]);
    dev.line("小明> fail in the conversation").await;
    dev.line("    bot failed: it said: in the conversation (").await;
    dev.line("bot.txt: all 2 expected replies came").await;
    dev.type_line("fail on purpose").await;
    dev.line("    bot failed: it said: on purpose (").await;
    // Whatever the log said would have come before this.
    dev.type_line("say hi").await;
    dev.line("< hi").await;
    assert_eq!(["WARN", "in the conversation", "on purpose"].map(|part| dev.count(part)), [0, 2, 1]);

    fs::write(dir.path().join("bot.src"), "no plugin").unwrap();
    let told = dev.line("is not loaded: ").await;
    assert!(told.starts_with("warning: Plugin file "), "{told}");
    assert_eq!(dev.terminate().await, Some(0));
}

#[tokio::test]
async fn what_settings_name_counts_without_a_build_wherever_it_is_and_whenever_it_comes() {
    let dir = project();
    let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
    fs::write(dir.path().join("bot.src"), &*WELCOME).unwrap();
    let mut dev = typed(dir.path(), &["dev"]);
    dev.type_line("[subscribe]").await;
    dev.line("< 感谢您的关注!").await;

    let config = fs::read_to_string(dir.path().join("aviary.toml")).unwrap();
    write("aviary.toml", &format!("{config}[plugins.bot]\nenv = {{ TEXT = \"${{file:words.txt}}\" }}\n"));
    dev.line("needs the file `words.txt`").await;
    write("words.txt", "欢迎！");
    dev.line("< 欢迎！").await;

    // Where no build looks for a source.
    write("aviary.toml", &format!("include = [\"conf.d/*.toml\"]\n{config}"));
    fs::create_dir(dir.path().join("conf.d")).unwrap();
    write("conf.d/bot.toml", "[plugins.bot]\nenv = { TEXT = \"${file:.words}\" }\n");
    dev.line("needs the file `.words`").await;
    write(".words", "早上好！");
    dev.line("< 早上好！").await;
    write(".words", "晚上好！");
    dev.line("< 晚上好！").await;
    // What was of the settings was no source before it went.
    let count = dev.count("< 感谢您的关注!");
    fs::remove_file(dir.path().join("conf.d/bot.toml")).unwrap();
    dev.lines("< 感谢您的关注!", count + 1).await;
    assert_eq!(dev.count("Built in"), 1);
    assert_eq!(dev.terminate().await, Some(0));
}

#[tokio::test]
async fn edited_settings_of_http_count_at_once_and_one_that_cannot_says_so() {
    let upstream = Upstream::plain(|_| ok("", "晴")).await;
    let dir = project();
    fs::write(dir.path().join("bot.src"), &*FETCHER).unwrap();
    let origin = format!("http://weather.example:{}", upstream.address.port());
    let config = fs::read_to_string(dir.path().join("aviary.toml")).unwrap();
    let config = format!("{config}[plugins.bot.grants]\nhttp = [{{ url = \"{origin}\", private = true }}]\n");
    // A name that is nobody's.
    let resolve = |address: &str| format!("[http]\nresolve = {{ \"weather.example\" = \"{address}\" }}\n");
    fs::write(dir.path().join("aviary.toml"), format!("{config}{}", resolve("127.0.0.1:1"))).unwrap();
    let mut dev = typed(dir.path(), &["dev"]);
    dev.type_line(&format!("ours GET {origin}/")).await;
    dev.line("< Error::").await;

    let engine = "[engine]\nstack_kib = 1024\n";
    fs::write(dir.path().join("aviary.toml"), format!("{config}{}{engine}", resolve(&upstream.address.to_string())))
        .unwrap();
    dev.line("`engine.stack_kib` changed; it counts after a restart").await;
    dev.line("晴").await;
    assert_eq!(dev.terminate().await, Some(0));
}

#[tokio::test]
async fn a_project_that_is_away_for_a_while_is_built_when_it_is_back() {
    let outer = tempfile::tempdir().unwrap();
    let (here, away) = (outer.path().join("bot"), outer.path().join("away"));
    let config = "[accounts.main]\ntoken = \"abc\"\n[watch]\npoll_ms = 100\n";
    fs::create_dir(&here).unwrap();
    fs::write(here.join("aviary.toml"), config).unwrap();
    build_as(&here, "cp bot.src plugins/bot.wasm");
    fs::write(here.join("bot.src"), &*ECHO).unwrap();
    let mut dev = typed(outer.path(), &["dev", "bot"]);
    dev.type_line("你好").await;
    dev.line("< 你好").await;

    fs::rename(&here, &away).unwrap();
    dev.line("bot: No such file or directory (os error 2); nothing is built until that is mended").await;
    // What was said stands after the prompt before it, and the prompt after it.
    dev.type_line("早").await;
    dev.line("> > < 早").await;
    fs::rename(&away, &here).unwrap();
    fs::remove_file(here.join("build.sh")).unwrap();
    dev.line("`[dev] build` does not say how to build").await;
    fs::write(here.join("bot.src"), &*PARROT).unwrap();
    build_as(&here, "cp bot.src ./plugins/bot.wasm");
    dev.line("< 鹦鹉：早").await;
    assert_eq!(dev.count("nothing is built until"), 1);
    assert_eq!(dev.terminate().await, Some(0));
}

#[tokio::test]
async fn a_plugin_that_somebody_cleans_away_is_built_again() {
    let dir = project();
    let mut dev = typed(dir.path(), &["dev"]);
    dev.type_line("你好").await;
    dev.line("< 你好").await;
    fs::remove_dir_all(dir.path().join("plugins")).unwrap();
    dev.lines("< 你好", 2).await;
    fs::remove_file(dir.path().join("plugins/bot.wasm")).unwrap();
    dev.lines("< 你好", 3).await;
    assert_eq!(dev.count("there is no plugin"), 0);
    assert_eq!(dev.terminate().await, Some(0));
}

#[tokio::test]
async fn without_a_plugin_dev_tells_the_author_to_build_one_and_chat_does_not_begin() {
    let dir = project();
    fs::write(dir.path().join("aviary.toml"), "[accounts.main]\ntoken = \"abc\"\n[dev]\nbuild = \"./build.sh\"\n")
        .unwrap();
    let mut dev = typed(dir.path(), &["dev"]);
    let told = "there is no plugin to ask in plugins; the build has to put NAME.wasm there";
    dev.line("The build failed").await;
    dev.line(told).await;
    dev.type_line("你好").await;
    dev.lines(told, 2).await;
    let chat = finish(aviary(dir.path(), &["chat"])).await;
    assert_eq!((chat.code, chat.stdout.as_str()), (Some(2), ""));
    assert!(chat.stderr.contains("there is no plugin to ask in plugins; `aviary dev` builds"), "{}", chat.stderr);

    // A build that works and puts it nowhere.
    build_as(dir.path(), "true");
    dev.lines(told, 3).await;
    build_as(dir.path(), "cp bot.src plugins/bot.wasm");
    dev.line("< 你好").await;
    assert_eq!(dev.count(told), 3, "after the first build, to the line that was typed, and after the second build");
    assert_eq!(dev.terminate().await, Some(0));
}

#[tokio::test]
async fn who_only_tries_a_plugin_changes_no_account() {
    let wechat = FakeWechat::start().await;
    let grants = "[plugins.caller.grants]\ncustomer_service = \"anyone\"\n[dev]\nbuild = \"true\"\n";
    let setup = Setup::new().account(&wechat.account()).settings(grants).plugin("10-caller.wasm", &CALLER);
    let dir = setup.written();
    for command in ["dev", "chat"] {
        let mut tried = typed(dir.path(), &[command]);
        tried.type_line("send me 你好").await;
        tried.line("meets no network here").await;
        tried.kill().await;
    }
    assert!(wechat.calls().is_empty());
}

#[tokio::test]
async fn dev_says_what_it_lacks() {
    let empty = tempfile::tempdir().unwrap();
    let refused = finish(aviary(empty.path(), &["dev"])).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("there is no ./aviary.toml; `aviary new"), "{}", refused.stderr);

    fs::write(empty.path().join("aviary.toml"), "[accounts.main]\ntoken = \"abc\"\n").unwrap();
    let refused = finish(aviary(empty.path(), &["dev"])).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("`[dev] build` does not say how to build"), "{}", refused.stderr);
}

#[tokio::test]
async fn chat_loads_a_file_again_that_was_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bot.wasm");
    fs::write(&file, &*ECHO).unwrap();
    let mut chat = typed(dir.path(), &["chat", "bot.wasm"]);
    chat.type_line("你好").await;
    chat.line("< 你好").await;
    fs::write(&file, &*PARROT).unwrap();
    chat.type_line("再见").await;
    chat.line("< 鹦鹉：再见").await;
    fs::write(&file, "no plugin").unwrap();
    chat.type_line("早").await;
    chat.line("the version before it stays").await;
    chat.line("< 鹦鹉：早").await;
    chat.type_line("晚").await;
    chat.line("< 鹦鹉：晚").await;
    assert_eq!(chat.count("the version before it stays"), 1, "it is tried again when it changes");
    chat.kill().await;
}

#[tokio::test]
async fn a_line_in_another_encoding_is_told_and_the_next_is_answered() {
    let dir = project();
    for command in [&["dev"][..], &["chat", "plugins/bot.wasm"]] {
        let mut talk = typed(dir.path(), command);
        // 你好 in GBK.
        talk.type_bytes(b"\xc4\xe3\xba\xc3\n").await;
        talk.line("this line is not UTF-8").await;
        talk.type_line("你好").await;
        talk.line("< 你好").await;
        talk.kill().await;
    }
}

#[tokio::test]
async fn chat_tries_a_file_again_that_is_not_at_fault() {
    let dir = tempfile::tempdir().unwrap();
    let (file, cache, away) = (dir.path().join("bot.wasm"), dir.path().join("cache"), dir.path().join("away"));
    fs::write(&file, &*ECHO).unwrap();
    let mut chat = aviary(dir.path(), &["chat", "bot.wasm"]);
    chat.env("XDG_CACHE_HOME", &cache).stdin(Stdio::piped());
    let mut chat = Running::start(chat);
    chat.type_line("你好").await;
    chat.line("< 你好").await;
    // As a full disk would have it.
    fs::rename(&cache, &away).unwrap();
    fs::write(&cache, "no directory").unwrap();
    fs::write(&file, &*PARROT).unwrap();
    chat.type_line("早").await;
    chat.line("the version before it stays").await;
    chat.line("< 早").await;
    fs::remove_file(&cache).unwrap();
    fs::rename(&away, &cache).unwrap();
    chat.type_line("晚").await;
    chat.line("< 鹦鹉：晚").await;
    chat.kill().await;
}

#[tokio::test]
async fn a_project_is_written_where_nothing_is_and_only_under_a_plugins_name() {
    let dir = tempfile::tempdir().unwrap();
    let new = |name: &'static str| finish(aviary(dir.path(), &["new", name, "--lang", "c"]));
    let made = new("hello").await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let read = |file: &str| fs::read_to_string(dir.path().join("hello").join(file)).unwrap();
    assert_eq!(read("wit/types.wit"), fs::read_to_string(crate::plugins::workspace().join("wit/types.wit")).unwrap());
    assert!(read("aviary/bot.h").contains("exports_aviary_bot_handler_handle"));
    assert!(!read("README.md").contains("{{"), "{}", read("README.md"));
    assert!(read("README.md").lines().count() <= 14);

    let again = new("hello").await;
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("hello is there already"), "{}", again.stderr);
    for name in ["Hello", "1st", "a--b", "a_b", "-", "你好"] {
        let refused = finish(aviary(dir.path(), &["new", "--lang", "c", "--", name])).await;
        assert_eq!(refused.code, Some(2), "{name}: {}", refused.stderr);
        assert!(!dir.path().join(name).exists(), "{name}");
    }

    // What is to be typed next can be typed.
    let made = new("my bots/it-s").await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(made.stdout.contains("\n  cd 'my bots/it-s'\n"), "{}", made.stdout);
    let refused = new("..").await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("`..` is no name for a plugin"), "{}", refused.stderr);

    // Its conversation would take the place of what pip reads.
    let refused = finish(aviary(dir.path(), &["new", "requirements", "--lang", "python"])).await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("its conversation would be requirements.txt"), "{}", refused.stderr);
}
