//! `aviary parse`: what a plugin would be given.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use aviary_wechat::{envelope, xml};

use crate::{
    message::{self, Push},
    plugin::bindings::Message,
};

/// How large a file may be: more than any host takes of a push, and than anyone writes of a conversation.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Prints the message that a plugin would be given, as JSON.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A push, as WeChat sends it and after decryption; `-` or nothing is standard input
    file: Option<PathBuf>,
    /// The name of the account that it is taken to be for
    #[arg(long, value_name = "NAME", default_value = "main")]
    account: String,
}

/// Reads a push and prints its message.
///
/// # Errors
///
/// The file cannot be read, or is not a message that a plugin would be asked about.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = args.file.as_deref().unwrap_or(Path::new("-"));
    let message = message_of(&args.account, &read(file)?)?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string_pretty(&message)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a file that must be text; `-` is standard input.
///
/// # Errors
///
/// It cannot be read, is too large, or is not UTF-8.
pub(super) fn read_text(file: &Path) -> anyhow::Result<String> {
    String::from_utf8(read(file)?).with_context(|| format!("`{}` is not UTF-8", file.display()))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let result = match file.to_str() {
        Some("-") => std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes),
        _ => File::open(file).and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)),
    };
    let length = result.with_context(|| format!("cannot read `{}`", file.display()))?;
    ensure!(
        u64::try_from(length).is_ok_and(|length| length <= FILE_BYTES_MAX),
        "`{}` has more than {FILE_BYTES_MAX} bytes, the most that is read",
        file.display()
    );
    Ok(bytes)
}

fn message_of(account: &str, bytes: &[u8]) -> anyhow::Result<Message> {
    let element = xml::parse(bytes).context("not a push")?;
    match message::parse(account, &element) {
        Ok(Push::Message(message)) => Ok(*message),
        Ok(Push::Unanswerable(why)) => bail!("no plugin would be asked: {why}"),
        Err(_) if envelope::ciphertext(&element).is_some() => {
            bail!("the push is encrypted; its plaintext is inside `Encrypt`, and only the host has the key")
        }
        Err(malformed) => Err(malformed).context("not a message"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "<xml><ToUserName>gh_1</ToUserName><FromUserName>o_1</FromUserName><CreateTime>1</CreateTime>\
                        <MsgType>text</MsgType><Content>你好</Content><MsgId>7</MsgId></xml>";

    fn refusal(xml: &str) -> String {
        format!("{:#}", message_of("main", xml.as_bytes()).unwrap_err())
    }

    #[test]
    fn a_push_becomes_the_json_of_its_message() {
        let message = message_of("main", TEXT.as_bytes()).unwrap();
        let json = serde_json::to_value(&message).unwrap();
        assert_eq!(json["account"], "main");
        assert_eq!(json["msg_id"], 7);
        assert_eq!(json["body"]["Text"]["content"], "你好");
    }

    #[test]
    fn what_is_no_message_says_why() {
        assert_eq!(refusal(""), "not a push: the body is empty");
        assert!(refusal("{}").starts_with("not a push: the body is not XML"));
        assert!(refusal("<xml></xml>").starts_with("not a message: `MsgType` is missing"));
        assert!(refusal("<xml><Encrypt>a</Encrypt></xml>").contains("the push is encrypted"));
        assert!(
            refusal("<xml><InfoType>component_verify_ticket</InfoType></xml>").starts_with("no plugin would be asked")
        );
    }

    #[test]
    fn a_file_is_read_up_to_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("push.xml");
        std::fs::write(&file, TEXT).unwrap();
        assert_eq!(read_text(&file).unwrap(), TEXT);
        std::fs::write(&file, vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("more than 1048576 bytes"));
        std::fs::write(&file, b"\xff").unwrap();
        assert!(read_text(&file).unwrap_err().to_string().contains("is not UTF-8"));
        assert!(read(&directory.path().join("none")).unwrap_err().to_string().starts_with("cannot read"));
    }
}
