//! `aviary init`: a new bot directory.

use std::{path::PathBuf, process::ExitCode};

use super::bot::{Bot, CONFIG_FILE, LISTEN, new_encoding_aes_key, new_token};
use crate::{config, shell::word};

/// Makes a bot directory with fresh secrets and the bundled plugins, and prints what to fill into WeChat's form.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory to make
    dir: PathBuf,
    /// For a test account (测试号), which has a URL and a token only
    #[arg(long)]
    sandbox: bool,
    /// The account's 开发者ID (AppID), `wx…`; it can be filled into aviary.toml later
    #[arg(
        long,
        value_name = "APPID",
        hide_default_value = true,
        default_value = "",
        value_parser = app_id,
        conflicts_with = "sandbox"
    )]
    app_id: String,
}

/// Writes the directory and prints the form.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let encoding_aes_key = if args.sandbox { None } else { Some(new_encoding_aes_key()?) };
    let bot = Bot { token: new_token()?, encoding_aes_key, app_id: args.app_id, listen: LISTEN.into() };
    bot.write(&args.dir)?;
    let (dir, token) = (args.dir.display(), &bot.token);
    println!("{dir}/{CONFIG_FILE} and {dir}/plugins/ are there.\n");
    let form = if args.sandbox {
        "接口配置信息 of the test account"
    } else {
        "微信开发者平台 › 公众号 › 消息与事件推送"
    };
    println!("WeChat's form (服务器配置; {form}):\n");
    println!("  URL                https://你的域名/");
    println!("  Token              {token}");
    if let Some(key) = &bot.encoding_aes_key {
        println!("  EncodingAESKey     {key}");
        println!("  消息加解密方式     安全模式\n");
        if bot.app_id.is_empty() {
            println!("First write the account's AppID, from the same page, into `app_id` of {dir}/{CONFIG_FILE}.");
        }
    } else {
        println!();
    }
    println!("Then run `aviary serve {}`, and save the form: WeChat checks the URL as you do.", word(&args.dir));
    Ok(ExitCode::SUCCESS)
}

/// Holds an AppID to what the settings take: a bot that would not start is not made.
fn app_id(text: &str) -> Result<String, String> {
    Ok(config::app_id(text)?.unwrap_or_default())
}
