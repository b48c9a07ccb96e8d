//! The conversation files in `conversations/`: what the bundled bots promise, over real HTTP and in `chat --replay`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aviary_host::conversation::{Conversation, Playback, Said, difference, shown};

use crate::{
    bot::{Bot, Setup},
    plugins::{ECHO, FALLBACK, KEYWORDS, WELCOME, workspace},
    process::{Finished, aviary, finish},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_conversation_file_goes_as_written_over_http() {
    let mut faults = Vec::new();
    for file in files() {
        let name = name(&file);
        let conversation = read(&file);
        let bot = bundled(&conversation).await;
        faults.extend(replayed(&bot, &conversation).await.into_iter().map(|fault| format!("{name}: {fault}")));
        bot.stop().await;
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_replays_every_conversation_file() {
    for file in files() {
        let output = chat_replay(&file).await;
        let name = name(&file);
        assert_eq!(output.code, Some(0), "{name}: {}", output.stderr);
        let count: usize = read(&file).turns.iter().map(|turn| turn.expected.len()).sum();
        assert!(output.stdout.ends_with(&format!("All {count} expected replies came.\n")), "{name}");
    }
}

#[tokio::test]
async fn the_bundled_echo_keeps_what_every_echo_promises() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("20-echo.wasm"), &*ECHO).unwrap();
    let promises = workspace().join("examples/echo.txt");
    let promises = promises.to_str().expect("the workspace has a readable path");
    let output = finish(aviary(dir.path(), &["chat", "20-echo.wasm", "--replay", promises])).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

#[tokio::test]
async fn chat_shows_the_difference_where_a_replay_goes_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.txt");
    fs::write(&file, "> 你好\n< 你好\n小明> 第一行\n    | 第二行\n< 再见\n> 不再说了\n").unwrap();
    let output = chat_replay(&file).await;
    assert_eq!(output.code, Some(1));
    let difference =
        "\nline 5: another reply than expected\n  expected: 再见\n  got:      第一行\n              | 第二行\n";
    assert!(output.stderr.ends_with(difference), "{}", output.stderr);
    let said = &output.stdout;
    assert!(said.contains("小明> 第一行\n    | 第二行\n< 第一行\n    | 第二行\n"), "{said}");
    assert!(!said.contains("不再说了"), "it ends at the first difference: {said}");
}

#[tokio::test]
async fn chat_names_the_line_where_a_file_is_no_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.txt");
    fs::write(&file, "> 你好\n\n你好\n").unwrap();
    let output = chat_replay(&file).await;
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("wrong.txt: line 3: a line begins with"), "{}", output.stderr);
}

#[test]
fn the_conversation_files_say_every_word_that_wechat_has() {
    let all: String = files().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let words = Said::words();
    let names = words.lines().filter_map(|line| line.trim().strip_prefix('[')?.split([' ', ']']).next());
    let unsaid: Vec<&str> = names.filter(|name| !all.contains(&format!("> [{name}"))).collect();
    assert!(unsaid.is_empty(), "no file says {unsaid:?}");
}

/// The conversation files, in the order of their names. That there is none is a fault of its own.
fn files() -> Vec<PathBuf> {
    let dir = workspace().join("tests/conversations");
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(!files.is_empty(), "there are no conversation files in {}", dir.display());
    files
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(file: &Path) -> Conversation {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", name(file)));
    let conversation = Conversation::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", name(file)));
    assert!(!conversation.turns.is_empty(), "{} says nothing", name(file));
    conversation
}

/// A bot with the bundled plugins, which all have the conversation's settings.
async fn bundled(conversation: &Conversation) -> Bot {
    let env: Vec<String> = conversation.env.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
    let env = env.join(", ");
    let tables =
        ["welcome", "keywords", "echo", "fallback"].map(|name| format!("[plugins.{name}]\nenv = {{ {env} }}\n"));
    let setup = Setup::new().settings(&tables.concat());
    let setup = setup.plugin("10-welcome.wasm", &WELCOME).plugin("15-keywords.wasm", &KEYWORDS);
    setup.plugin("20-echo.wasm", &ECHO).plugin("90-fallback.wasm", &FALLBACK).start().await
}

/// Holds a bot to a conversation, and returns where it did otherwise.
async fn replayed(bot: &Bot, conversation: &Conversation) -> Vec<String> {
    let mut faults = Vec::new();
    for (turn, push) in Playback::default().turns(conversation) {
        let reply = match bot.simulator.push(&push).await {
            Ok(answer) if answer.status == 200 => bot.simulator.reply(&answer),
            Ok(answer) => Err(anyhow::anyhow!("status {}", answer.status)),
            Err(error) => Err(error),
        };
        match reply {
            Err(error) => faults.push(format!("line {}: {error:#}", turn.line)),
            Ok(reply) => {
                let reply = shown(reply.as_ref());
                let others = turn.expected.iter().filter(|expected| !expected.fits(&reply));
                faults.extend(others.map(|expected| difference(expected, &reply)));
            }
        }
    }
    faults
}

/// Runs `aviary chat --replay` with the bundled plugins.
async fn chat_replay(file: &Path) -> Finished {
    let elsewhere = tempfile::tempdir().unwrap();
    let file = file.to_str().expect("the workspace has a readable path");
    finish(aviary(elsewhere.path(), &["chat", "--replay", file])).await
}
