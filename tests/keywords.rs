//! The bundled `keywords`: a table that an operator keeps with a spreadsheet program.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::{
    bot::{Bot, Setup},
    plugins::{ECHO, KEYWORDS},
    process::{Finished, Running, aviary, finish},
};

/// What `aviary init` writes about it.
const SETTINGS: &str = r#"
[plugins.keywords]
match = [{ type = "text" }, { event = "CLICK" }, { event = "aviary_check" }]
env = { TABLE = "${file:keywords.csv}" }
"#;

/// As Excel saves it.
fn saved(rows: &str) -> String {
    format!("\u{feff}关键词,匹配,回复\n{rows}\n").replace('\n', "\r\n")
}

fn setup(rows: &str) -> Setup {
    let setup = Setup::new().settings(SETTINGS).file("keywords.csv", saved(rows));
    setup.plugin("15-keywords.wasm", &KEYWORDS).plugin("20-echo.wasm", &ECHO)
}

/// Saves the table while the bot runs, and waits until it counts.
async fn save(bot: &Bot, table: impl AsRef<[u8]>) {
    fs::write(bot.dir().join("keywords.csv"), table).unwrap();
    bot.app.reload().await;
}

/// A bot directory as `aviary init` makes it.
async fn init() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = finish(aviary(dir.path(), &["init", "bot", "--sandbox"])).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    dir
}

async fn check(dir: &Path) -> Finished {
    finish(aviary(dir, &["check", "bot"])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_counts_as_soon_as_it_is_saved() {
    let bot = setup("价格,,99 元").start().await;
    assert_eq!(bot.says("价格").await, "99 元");
    save(&bot, saved("价格,,\"89 元\n送到家\"\n发票,包含,请告诉我抬头")).await;
    assert_eq!(bot.says("价格").await, "89 元\n    | 送到家");
    assert_eq!(bot.says("[CLICK 价格]").await, "89 元\n    | 送到家");
    assert_eq!(bot.says("能开发票吗？").await, "请告诉我抬头");
    assert_eq!(bot.says("地址").await, "地址", "the next plugin is asked");
    bot.stop().await;
}

#[tokio::test]
async fn a_mistake_is_told_when_it_is_saved_and_the_other_rows_answer() {
    let dir = init().await;
    let (file, table) = (dir.path().join("bot/aviary.toml"), dir.path().join("bot/keywords.csv"));
    let config = fs::read_to_string(&file).unwrap().replacen("127.0.0.1:8000", "127.0.0.1:0", 1);
    fs::write(&file, format!("admin_listen = \"\"\n{config}")).unwrap();
    let mut serve = Running::start(aviary(dir.path(), &["serve", "bot"]));
    let line = serve.line("Account `main` listens on http://").await;
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    serve.line("Ready after ").await;

    fs::write(&table, saved("价格,模糊,99 元\n地址,,人民路 1 号")).unwrap();
    let told = serve.line("Plugin `keywords` has wrong settings: ").await;
    assert!(
        told.contains("WARN") && told.contains("row 2 of the table: `匹配` is `模糊`; it is 完全 (exact)"),
        "{told}"
    );
    let push = async |text| {
        let args = ["push", &url, "--config", "bot/aviary.toml", "--text", text];
        finish(aviary(dir.path(), &args)).await.stdout
    };
    assert!(push("地址").await.contains("人民路 1 号"));
    assert!(
        push("价格").await.contains("价格"),
        "the row with the mistake is as if it was not there: the echo answers"
    );
    assert_eq!(serve.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_row_of_the_largest_table_is_found_within_the_limits() {
    let mut rows: String =
        (0..15_000).map(|number| format!("关键词{number},,这是第 {number} 行的回复，有几个字\n")).collect();
    rows += "价格,,99 元";
    let bot = setup(&rows).start().await;
    assert_eq!(bot.says("价格").await, "99 元");
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_gbk_is_read_as_one_in_utf_8_is() {
    let bot = setup("价格,,99 元").start().await;
    // 关键词,回复 and 价格,88元 in GBK: what Excel calls just CSV on a Chinese system.
    save(&bot, b"\xb9\xd8\xbc\xfc\xb4\xca,\xbb\xd8\xb8\xb4\r\n\xbc\xdb\xb8\xf1,88\xd4\xaa\r\n").await;
    assert_eq!(bot.says("价格").await, "88元");
    // With semicolons, and with a character that only all of GB18030 has: 𠮷.
    save(&bot, b"\xb9\xd8\xbc\xfc\xb4\xca;\xbb\xd8\xb8\xb4\n\xbc\xdb\xb8\xf1;\"1;\x95\x34\xb2\x35\"\n").await;
    assert_eq!(bot.says("价格").await, "1;𠮷");
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_no_encoding_that_is_known_is_refused_and_the_one_before_stays() {
    let bot = setup("价格,,99 元").start().await;
    save(&bot, b"keyword,reply\nprice,88 \xff\n").await;
    let told = bot.app.troubles().await.settings.pop().expect("the settings are refused");
    let why = "`plugins.keywords.env.TABLE` needs the file `keywords.csv`, which cannot be read: it is neither UTF-8 (from line 2 \
               on) nor certainly GBK text; save it as “CSV UTF-8”, Excel's other kind of CSV";
    assert!(told.contains(why), "{told}");
    assert_eq!(bot.says("价格").await, "99 元");

    // Western Excel's plain CSV; as GBK it would be `cr鑝e`.
    save(&bot, b"keyword,reply\ncr\xe8me,br\xfbler\n").await;
    let told = bot.app.troubles().await.settings.pop().expect("the settings are refused");
    assert!(told.contains("nor certainly GBK text; save it as"), "{told}");
    assert_eq!(bot.says("价格").await, "99 元");

    // A file that may just be read, and would be half as large again in UTF-8.
    let long =
        [b"\xb9\xd8\xbc\xfc\xb4\xca,\xbb\xd8\xb8\xb4\n\xbc\xdb\xb8\xf1,".as_slice(), &b"\xd4\xaa".repeat(520_000)]
            .concat();
    save(&bot, long).await;
    let told = bot.app.troubles().await.settings.pop().expect("the settings are refused");
    assert!(told.contains("bytes in UTF-8, more than 1048576"), "{told}");
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_longer_than_a_message_comes_in_parts() {
    let bot = setup(&format!("价格,,{}", "长".repeat(700))).start().await;
    let first = bot.says("价格").await;
    assert!(first.starts_with("长长") && first.ends_with("（未完，回复“继续”看下文）"), "{first}");
    assert!(bot.says("继续").await.starts_with("长"));
    bot.stop().await;
}

#[tokio::test]
async fn a_new_bot_has_an_empty_table_and_check_tells_the_mistakes_in_it() {
    let dir = init().await;
    let checked = check(dir.path()).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);

    let file = dir.path().join("bot/keywords.csv");
    let empty = fs::read_to_string(&file).unwrap();
    assert!(empty.starts_with("\u{feff}关键词,"), "spreadsheet programs know by the mark that it is UTF-8");
    fs::write(&file, format!("{empty}价格,,,,,,\r\n")).unwrap();
    let checked = check(dir.path()).await;
    assert_eq!(checked.code, Some(1));
    let wrong = "wrong: its settings in account `main`: row 2 of the table: `价格` has no `回复`";
    assert!(checked.stdout.contains(wrong), "{}", checked.stdout);
}

#[tokio::test]
async fn a_plugin_that_no_rule_asks_about_its_settings_is_not_bothered() {
    let dir = init().await;
    let file = dir.path().join("bot/aviary.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, config.replace(", { event = \"aviary_check\" }", "")).unwrap();
    fs::write(dir.path().join("bot/keywords.csv"), "价格\n").unwrap();
    let checked = check(dir.path()).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
}
