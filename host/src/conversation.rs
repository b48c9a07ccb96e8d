//! Conversations with a bot, written down: one notation for `chat --replay`, the tests and every example; and WeChat's
//! side of them over HTTP ([`Simulator`]).
//!
//! ```text
//! # A comment. Settings stand before the first turn.
//! ! env CITY=北京
//! ! POST https://api.example.com/v1 -> 200 {"answer":"晴"} after 8s
//!
//! > [subscribe qrscene_42]
//! < 感谢您的关注!
//! 小明> 第一行
//!     | 第二行
//! < 北京：*
//! <~ 晴
//! > [unsubscribe]
//! <
//! ```
//!
//! | a line | means |
//! |---|---|
//! | `> …` | the user says or does something; a user without a name is [`DEFAULT_USER`] |
//! | `小明> …` | another user does |
//! | `< …` | the reply: text as it is, or a word in brackets with its values |
//! | `<` | silence: the host answers `success` |
//! | `<~ …` | a reply that comes late, after `success` |
//! | `    \| …` | a further line of the text, setting or body above; under a word that is said, `Path=value` sets or adds an element |
//! | `! env NAME=value` | a setting that plugins see in their environment |
//! | `! METHOD URL -> STATUS BODY after 8s` | an HTTP exchange that plugins may have; any other is refused. WeChat's API is at `https://api.weixin.qq.com`, without a token |
//! | `# …`, blank | nothing |
//!
//! One space after the mark belongs to the mark, and white space at the end of a line does not count. A turn without
//! `<` expects nothing in particular: whatever the bot does is right.
//!
//! # What is said
//!
//! | written | is |
//! |---|---|
//! | `[image]`, `[CLICK key]`, … | one of WeChat's own words, a `MsgType` or an `Event`, in any case ([`Said::words`] lists them) |
//! | `[location …]`, `[LOCATION …]` | the message and the event: the only two that differ in nothing but case |
//! | `[event NAME key]` | an event of any name, known or not |
//! | `[type NAME]` | a message of any type, known or not |
//! | `[微笑]`, `[Smile]`, `[anything else]` | text, as WeChat's faces are; nearly one of the words is a mistake, not text |
//! | `\[image]` | text that looks like a word |
//!
//! A word takes its values at white space, the last one what is left; or at ` | `, where a value has blanks.
//!
//! # What is expected
//!
//! | written | fits |
//! |---|---|
//! | `你好` | that text |
//! | `北京：*` | `*` stands for anything, also nothing, also several lines; `\*` is a star |
//! | `/^北京.*度$/` | an [expression](https://docs.rs/regex) found in the text; `^` and `$` are the ends of all of it |
//! | `[image] MEDIA_ID`, `[voice] MEDIA_ID` | that picture, that voice message |
//! | `[video] MEDIA_ID \| title \| description` | that video |
//! | `[music] title \| description \| url \| high-quality url \| THUMB_MEDIA_ID` | that music |
//! | `[news] title \| url \| description \| picture` | that article; each further one on a line of its own |
//! | `[transfer_customer_service] account` | the hand-over to a person |
//! | `[type NAME] Path=value \| …` | any other reply |
//! | `\[image] hi` | a text that looks like one of these |
//!
//! In values, `\|` is a bar, `\n` a line break and `\\` a backslash. Values missing at the end are left out.
//! `*` and `/…/` never fit silence. A file has at most 10,000 lines, and 1,000 replies written with these; what stands in `/…/` has
//! at most 8 KiB in all.

mod expected;
mod playback;
mod said;
mod settings;
mod shown;
mod simulator;
pub(crate) mod words;

use std::fmt;

use anyhow::{Context, anyhow, bail, ensure};

use expected::expression_of;
pub use expected::{Expected, difference};
pub use playback::{Header, Playback};
pub use said::Said;
pub use settings::Exchange;
pub use shown::shown;
pub use simulator::{Answer, Encryption, NoAnswer, Signed, Simulator, TRIES_MAX, UrlCheck};

/// Who speaks where no name is written.
pub const DEFAULT_USER: &str = "user";

/// How long a user's name may be.
const USER_CHARS_MAX: usize = 64;

/// How many lines a conversation may have, how many of its replies may be written with `*` or as `/…/`, and in how many bytes the
/// latter. It may be a stranger's, and each of those is compiled to see whether it is one: of a thousand bytes, some tenths of a
/// second of work can be made, which nobody can end.
const LINES_MAX: usize = 10_000;
const EXPRESSIONS_MAX: usize = 1_000;
const EXPRESSIONS_BYTES_MAX: usize = 8 << 10;

/// How a line goes on in the next one.
const FOLD: &str = "\n    | ";

/// A conversation, and what the bot should be given to hold it.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// `! env`, in the order of the file.
    pub env: Vec<(String, String)>,
    /// HTTP that plugins may meet, in the order of the file.
    pub exchanges: Vec<Exchange>,
    pub turns: Vec<Turn>,
}

/// One thing said, and what should come of it.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Where it stands in the file, from 1.
    pub line: usize,
    /// Who says it.
    pub user: String,
    /// As it stands in the file, after `>`.
    pub written: String,
    pub said: Said,
    /// What should come of it, in the order of the file; empty if it does not matter.
    pub expected: Vec<Expected>,
}

/// Why a text is not a conversation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// Where, from 1.
    pub line: usize,
    /// What is wrong there, and what would be right.
    pub problem: String,
}

/// As it stands in the file.
impl fmt::Display for Turn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.user == DEFAULT_USER { "" } else { &self.user };
        write!(formatter, "{user}> {}", folded(&self.written))
    }
}

impl Conversation {
    /// Reads a conversation file.
    ///
    /// # Errors
    ///
    /// The first line that is not in the notation.
    pub fn parse(text: &str) -> Result<Conversation, ParseError> {
        let mut reader = Reader::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            if index == LINES_MAX {
                return Err(at(index + 1)(anyhow!("a conversation has at most {LINES_MAX} lines; make two of it")));
            }
            reader.read(index + 1, line.trim_end())?;
        }
        reader.end_block()?;
        Ok(reader.conversation)
    }
}

/// A conversation as far as it is read.
#[derive(Default)]
struct Reader {
    conversation: Conversation,
    /// How many replies were expressions so far, and how many bytes were written as `/…/`.
    expressions: usize,
    expressions_bytes: usize,
    block: Option<Block>,
}

/// Something set, said or expected that may go on in the next line.
struct Block {
    line: usize,
    mark: Mark,
    written: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Mark {
    Setting,
    Said { user: String },
    Expected { late: bool },
}

impl Reader {
    fn read(&mut self, line: usize, text: &str) -> Result<(), ParseError> {
        if let Some(more) = text.trim_start().strip_prefix('|') {
            return self.go_on(more).map_err(at(line));
        }
        self.end_block()?;
        if text.is_empty() || text.starts_with('#') {
            return Ok(());
        }
        if let Some(setting) = text.strip_prefix('!') {
            self.block = Some(Block { line, mark: Mark::Setting, written: setting.trim().to_owned() });
            return Ok(());
        }
        let (mark, written) = marked(text).map_err(at(line))?;
        let written = written.strip_prefix(' ').unwrap_or(written).to_owned();
        self.block = Some(Block { line, mark, written });
        Ok(())
    }

    fn go_on(&mut self, more: &str) -> anyhow::Result<()> {
        let block =
            self.block.as_mut().context("`|` goes on with the line above, but there is nothing to go on with")?;
        block.written.push('\n');
        block.written.push_str(more.strip_prefix(' ').unwrap_or(more));
        Ok(())
    }

    fn set(&mut self, setting: &str) -> anyhow::Result<()> {
        ensure!(self.conversation.turns.is_empty(), "settings stand before the first `>`");
        match setting.strip_prefix("env ") {
            Some(variable) => self.conversation.env.push(settings::variable(variable)?),
            None => self.conversation.exchanges.push(settings::exchange(setting)?),
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), ParseError> {
        let Some(Block { line, mark, written }) = self.block.take() else {
            return Ok(());
        };
        let turns = &mut self.conversation.turns;
        match mark {
            Mark::Setting => self.set(&written).map_err(at(line))?,
            Mark::Said { user } => {
                let said = Said::parse(&written).map_err(at(line))?;
                turns.push(Turn { line, user, written, said, expected: Vec::new() });
            }
            Mark::Expected { late } => {
                let turn = turns.last_mut().context("a reply to nothing; what a user says begins with `>`");
                self.expressions_bytes += expression_of(&written).map_or(0, str::len);
                if self.expressions_bytes > EXPRESSIONS_BYTES_MAX {
                    return Err(at(line)(anyhow!(
                        "the replies of a conversation that are written as `/…/` have at most {EXPRESSIONS_BYTES_MAX} bytes \
                         together; write some with `*`, or make two conversations of it"
                    )));
                }
                let expected = Expected::parse(line, late, &written).map_err(at(line))?;
                self.expressions += usize::from(expected.is_expression());
                if self.expressions > EXPRESSIONS_MAX {
                    return Err(at(line)(anyhow!(
                        "at most {EXPRESSIONS_MAX} replies of a conversation are written with `*` or as `/…/`; write out the \
                         others, or make two conversations of it"
                    )));
                }
                turn.map_err(at(line))?.expected.push(expected);
            }
        }
        Ok(())
    }
}

/// Splits a line after its mark.
fn marked(text: &str) -> anyhow::Result<(Mark, &str)> {
    if let Some(written) = text.strip_prefix("<~") {
        return Ok((Mark::Expected { late: true }, written));
    }
    if let Some(written) = text.strip_prefix('<') {
        return Ok((Mark::Expected { late: false }, written));
    }
    let Some((user, written)) = text.split_once('>') else {
        bail!("a line begins with `>`, `NAME>`, `<`, `<~`, `|`, `!` or `#`, but this one is `{}`", excerpt(text));
    };
    ensure!(
        !user.contains(char::is_whitespace) && user.chars().count() <= USER_CHARS_MAX,
        "a user's name has no blanks and at most {USER_CHARS_MAX} characters, so `{}` is none",
        excerpt(user)
    );
    let user = if user.is_empty() { DEFAULT_USER } else { user }.to_owned();
    Ok((Mark::Said { user }, written))
}

fn at<E: fmt::Display>(line: usize) -> impl Fn(E) -> ParseError
where
    anyhow::Error: From<E>,
{
    move |error| ParseError { line, problem: format!("{error:#}") }
}

/// Enough of a line to find it by.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Puts a text with line breaks into the notation.
fn folded(text: &str) -> String {
    text.replace('\n', FOLD)
}

/// Takes a text with line breaks out of the notation.
fn unfolded(written: &str) -> String {
    written.replace(FOLD, "\n")
}

/// Marks a text that could be taken for a word in brackets, or for one so marked.
fn escaped(text: &str) -> String {
    let brackets = text.trim_start_matches('\\');
    let is_marked = brackets.len() < text.len() && brackets.starts_with('[');
    if is_marked || looks_like_reply(text) { format!("\\{text}") } else { text.to_owned() }
}

/// The opposite of [`escaped`]: drops one backslash of those before a bracket at the beginning.
fn unescaped(written: &str) -> &str {
    match written.strip_prefix('\\') {
        Some(text) if text.trim_start_matches('\\').starts_with('[') => text,
        _ => written,
    }
}

fn looks_like_reply(text: &str) -> bool {
    let words = ["text]", "image]", "voice]", "video]", "music]", "news]", "transfer_customer_service]", "type "];
    let inside = text.strip_prefix('[');
    inside.is_some_and(|inside| words.iter().any(|word| inside.starts_with(word)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn problem(text: &str) -> String {
        Conversation::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_example_of_the_design_is_a_conversation() {
        let conversation = Conversation::parse(
            r#"
# HTTP that plugins may meet in this conversation; anything else is refused. Then settings.
! POST https://api.deepseek.com/chat/completions -> 200 {"choices":[{"message":{"content":"晴"}}]} after 8s
! env CITY=北京
> [subscribe qrscene_42]
< 感谢您的关注!
> 你好
< 你好
小明> 第一行
    | 第二行
< 北京：*
> [image]
< 无法识别该消息!
< [news] 标题 | https://…
<~ 晴
> [unsubscribe]
<
"#,
        )
        .unwrap();

        assert_eq!(conversation.env, [("CITY".into(), "北京".into())]);
        let exchange = &conversation.exchanges[0];
        assert_eq!(exchange.body, r#"{"choices":[{"message":{"content":"晴"}}]}"#);
        assert_eq!(exchange.after, Duration::from_secs(8));

        let [follow, hello, lines, image, leave] = conversation.turns.as_slice() else {
            panic!("{conversation:#?}");
        };
        assert_eq!((follow.line, follow.user.as_str()), (5, DEFAULT_USER));
        assert_eq!(follow.said.fields[1].value, "qrscene_42");
        assert!(follow.expected[0].fits("感谢您的关注!"));
        assert_eq!(hello.said, Said::text("你好"));
        assert_eq!((lines.user.as_str(), &lines.said), ("小明", &Said::text("第一行\n第二行")));
        assert!(lines.expected[0].fits("北京：晴"));
        let late: Vec<bool> = image.expected.iter().map(|expected| expected.late).collect();
        assert_eq!(late, [false, false, true]);
        assert!(image.expected[1].fits("[news] 标题 | https://…"));
        assert!(leave.expected[0].fits(""));
    }

    #[test]
    fn a_setting_and_a_body_may_have_several_lines() {
        let text = "! env TABLE=a,b\n    | c,d\n! GET https://a/ -> 200 data: 1\n    |\n    | data: 2\n> hi\n";
        let Conversation { env, exchanges, .. } = Conversation::parse(text).unwrap();
        assert_eq!(env, [("TABLE".into(), "a,b\nc,d".into())]);
        assert_eq!(exchanges[0].body, "data: 1\n\ndata: 2");
    }

    #[test]
    fn a_turn_without_a_reply_expects_nothing_in_particular() {
        let conversation = Conversation::parse("> a\n> b\n<\n").unwrap();
        assert!(conversation.turns[0].expected.is_empty());
        assert_eq!(conversation.turns[1].expected.len(), 1);
    }

    #[test]
    fn a_file_from_windows_is_read_like_any_other() {
        let conversation = Conversation::parse("\u{feff}> 第一行 \r\n    | 第二行\r\n< a\r\n    | \r\n").unwrap();
        assert_eq!(conversation.turns[0].said, Said::text("第一行\n第二行"));
        assert_eq!(conversation.turns[0].expected[0].written, "a\n");
    }

    #[test]
    fn blanks_before_a_text_are_the_users() {
        let conversation = Conversation::parse(">   hi\n>hi\n> # hi\n> a > b\n").unwrap();
        let texts: Vec<&str> = conversation.turns.iter().map(|turn| turn.written.as_str()).collect();
        assert_eq!(texts, ["  hi", "hi", "# hi", "a > b"]);
    }

    #[test]
    fn a_turn_is_written_as_it_was_read() {
        let text = "小明> 第一行\n    | 第二行\n> [event a_new_one]\n    | A/B=1\n";
        let turns = Conversation::parse(text).unwrap().turns;
        assert_eq!(turns.iter().map(|turn| format!("{turn}\n")).collect::<String>(), text);
    }

    #[test]
    fn the_lines_under_a_word_are_its_elements() {
        let conversation = Conversation::parse("> [event a_new_one]\n    | A/B=1\n    | C=\n").unwrap();
        let set = &conversation.turns[0].said.set;
        assert_eq!((set[0].path.as_str(), set[0].value.as_str()), ("A/B", "1"));
        assert_eq!((set[1].path.as_str(), set[1].value.as_str()), ("C", ""));
    }

    #[test]
    fn a_conversation_has_so_many_lines_and_expressions_and_no_more() {
        let lines = "#\n".repeat(LINES_MAX);
        assert!(Conversation::parse(&lines).is_ok());
        assert!(problem(&(lines + ">")).starts_with("line 10001: a conversation has at most 10000 lines"));

        let turns = "> a\n< *\n".repeat(EXPRESSIONS_MAX);
        assert!(Conversation::parse(&turns).is_ok());
        assert!(problem(&(turns + "< /b/")).starts_with("line 2001: at most 1000 replies"));

        let expressions = format!("> a\n< /{}/\n", "b".repeat(EXPRESSIONS_BYTES_MAX - 1));
        assert!(Conversation::parse(&format!("{expressions}< /c/\n")).is_ok());
        let problem = problem(&format!("{expressions}< /cc/\n"));
        assert!(
            problem
                .starts_with("line 3: the replies of a conversation that are written as `/…/` have at most 8192 bytes")
        );
    }

    #[test]
    fn an_empty_file_is_an_empty_conversation() {
        assert!(Conversation::parse("").unwrap().turns.is_empty());
        assert!(Conversation::parse("# nothing\n\n").unwrap().turns.is_empty());
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        assert_eq!(
            problem("> a\n\nhello"),
            "line 3: a line begins with `>`, `NAME>`, `<`, `<~`, `|`, `!` or `#`, but this one is `hello`"
        );
        assert_eq!(problem("< a"), "line 1: a reply to nothing; what a user says begins with `>`");
        assert!(problem("> a\n\n    | b").starts_with("line 3: `|` goes on with the line above"));
        assert!(problem("> a\n! env A=b").starts_with("line 2: settings stand before"));
        assert!(problem("xiao ming> a").starts_with("line 1: a user's name has no blanks"));
        assert!(problem("> ok\n>\n> ok").starts_with("line 2: a user cannot send an empty text"));
        assert!(problem("> [CLICK]").starts_with("line 1: `[CLICK]` needs its KEY"));
        assert!(problem("> [image]\n    | x").starts_with("line 1: `x` is not `Path=value`"));
        assert!(problem("> a\n< /(/").starts_with("line 2: `/(/` is no expression: "));
        assert!(problem("> a\n<~").starts_with("line 2: a late reply says something"));
    }

    #[test]
    fn marking_a_text_can_be_undone() {
        for text in ["a", "[image]", r"\[image]", r"\\[x]", "[微笑]", r"\", r"\n", "[type a]", ""] {
            assert_eq!(unescaped(&escaped(text)), text);
        }
    }
}
