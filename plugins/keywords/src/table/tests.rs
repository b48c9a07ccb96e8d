use super::*;
use crate::aviary::bot::types::Article;

fn said(table: &str, text: &str) -> Option<String> {
    match Table::read(table).reply_to_text(text) {
        Some(Reply::Text(reply)) => Some(reply),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

fn mistakes(table: &str) -> String {
    Table::read(table).check().expect_err("there is a mistake")
}

#[test]
fn a_table_as_excel_saves_it_is_read() {
    // CSV UTF-8: a mark, line ends of Windows, line breaks in cells, quotes doubled, and a row that was emptied.
    let table =
        "\u{feff}关键词,匹配,回复\r\n价格,,\"第一行\n\"\"第二行\"\", 99 元\"\r\n,,\r\n地址,完全,人民路 1 号\r\n";
    assert_eq!(said(table, "价格").unwrap(), "第一行\n\"第二行\", 99 元");
    assert_eq!(said(table, "地址").unwrap(), "人民路 1 号");
    Table::read(table).check().unwrap();
}

#[test]
fn the_separator_is_that_of_the_first_row() {
    for separator in [",", ";", "\t"] {
        let table = format!("回复{separator}keyword\n99 元{separator}价格\n");
        assert_eq!(said(&table, "价格").unwrap(), "99 元");
    }
}

#[test]
fn several_words_may_share_a_row() {
    let table = "关键词,回复\n价格|多少钱,99 元\n\"地址\n在哪\",人民路\n";
    for (word, reply) in [("价格", "99 元"), ("多少钱", "99 元"), ("在哪", "人民路")] {
        assert_eq!(said(table, word).unwrap(), reply);
    }
    assert_eq!(said(table, "价格|多少钱"), None);
}

#[test]
fn a_row_fits_the_whole_text_its_beginning_or_a_part() {
    let table = "关键词,匹配,回复\n价格,,整句\n查询,开头,开头\n发票,包含,包含\n";
    assert_eq!(said(table, " 价格 ").unwrap(), "整句");
    assert_eq!(said(table, "价格呢"), None);
    assert_eq!(said(table, "查询 1024").unwrap(), "开头");
    assert_eq!(said(table, "我要查询"), None);
    assert_eq!(said(table, "能开发票吗").unwrap(), "包含");
}

#[test]
fn the_closest_fit_comes_first_then_the_upper_row() {
    let table = "关键词,匹配,回复\n票,包含,a\n发,prefix,b\n发票,,c\n发票抬,开头,d\n";
    assert_eq!(said(table, "发票").unwrap(), "c");
    assert_eq!(said(table, "发票抬头").unwrap(), "b");
    assert_eq!(said(table, "开发票").unwrap(), "a");
}

#[test]
fn a_menu_item_is_found_by_a_whole_word_of_any_row() {
    let table = "关键词,匹配,回复\nV1001_PRICE|价格,包含,99 元\n";
    assert_eq!(Table::read(table).reply_to_key("v1001_price"), Some(Reply::Text("99 元".into())));
    assert_eq!(Table::read(table).reply_to_key("V1001_PRICE_2"), None);
}

#[test]
fn a_link_stands_below_its_text() {
    let table = "关键词,类型,回复,标题,链接\n官网,链接,欢迎,点这里,https://example.com/?a=1&b=2\n商城,link,,商城,https://example.com\n";
    assert_eq!(said(table, "官网").unwrap(), "欢迎\n<a href=\"https://example.com/?a=1&b=2\">点这里</a>");
    assert_eq!(said(table, "商城").unwrap(), "<a href=\"https://example.com\">商城</a>");
}

#[test]
fn a_row_with_a_link_is_news_unless_it_says_otherwise() {
    let table = "关键词,回复,标题,链接,图片\n活动,九折,双十一,https://example.com/11,https://example.com/11.jpg\n";
    let article = Article {
        title: "双十一".into(),
        description: Some("九折".into()),
        pic_url: Some("https://example.com/11.jpg".into()),
        url: "https://example.com/11".into(),
    };
    assert_eq!(Table::read(table).reply_to_text("活动"), Some(Reply::News(vec![article])));
}

#[test]
fn a_row_with_a_mistake_leaves_the_others_alone() {
    let table = "关键词,匹配,回复\n价格,模糊,99 元\n地址,,人民路\n";
    assert_eq!(said(table, "价格"), None);
    assert_eq!(said(table, "地址").unwrap(), "人民路");
    assert_eq!(
        mistakes(table),
        "row 2 of the table: `匹配` is `模糊`; it is 完全 (exact), 开头 (prefix) or 包含 (contains)"
    );
}

#[test]
fn a_mistake_is_named_with_its_row_and_where_that_differs_its_line() {
    let table = "关键词,回复\r\n价格,\"a\r\nb\"\r\n\r\n地址,\r\n";
    assert_eq!(mistakes(table), "row 4 of the table (line 5 of the file): `地址` has no `回复`");
}

#[test]
fn every_mistake_says_what_would_be_right() {
    let row = |row: &str| mistakes(&format!("关键词,类型,回复,标题,链接,图片\n{row}\n"));
    assert_eq!(row(",,99 元,,,"), "row 2 of the table: there is no `关键词`");
    assert_eq!(row("|,,99 元,,,"), "row 2 of the table: there is no `关键词`");
    assert_eq!(row("价格,,,,,"), "row 2 of the table: `价格` has no `回复`");
    assert_eq!(
        row("价格,图片,a,,,"),
        "row 2 of the table: `类型` is `图片`; it is 文字 (text), 链接 (link) or 图文 (news)"
    );
    assert_eq!(row("官网,链接,a,,https://a.cn,"), "row 2 of the table: `官网` has no `标题`");
    assert_eq!(row("官网,图文,a,b,,"), "row 2 of the table: `官网` has no `链接`");
    assert_eq!(
        row("官网,,a,b,www.a.cn,"),
        "row 2 of the table: `www.a.cn` is no address; it begins with https:// and has no blanks"
    );
    assert_eq!(
        row("官网,,a,b,https://a.cn,1.jpg"),
        "row 2 of the table: `1.jpg` is no address; it begins with https:// and has no blanks"
    );
    assert_eq!(
        row("价格,,a,,,,b"),
        "row 2 of the table: `b` is right of the last column; a text with a comma needs \"…\""
    );
    assert_eq!(row("价格,,a,,,\n价格|地址,,b,,,"), "row 3 of the table: `价格` is in row 2 already");
}

#[test]
fn a_reply_may_have_any_length_and_lines_that_look_like_rows() {
    let long = "Open Mon, Wed; 9:00\n".repeat(110);
    for header in ["keyword,reply", "keyword;reply;match", "keyword\treply"] {
        let separator = header.chars().find(|char| !char.is_alphabetic()).unwrap();
        assert_eq!(said(&format!("{header}\nhours{separator}\"{long}\"\n"), "hours").as_deref(), Some(long.trim()));
    }
}

#[test]
fn a_row_that_has_taken_in_those_below_it_answers_nothing() {
    let unclosed = "关键词,匹配,回复\n价格,,\"99 元\n地址,,人民路 1 号\n";
    let told = "for want of a `\"` at its end; one within a text is `\"\"`";
    assert_eq!(said(unclosed, "价格"), None);
    assert_eq!(
        mistakes(unclosed),
        format!("row 2 of the table: `99 元 地址,,人民路 1 号 …` goes on for 2 lines, {told}")
    );
    // It ends at the next quote, and the rows below that are read again.
    let longer = format!("{unclosed}电话,,\"138, 139\"\n发票,,请告诉我抬头\n");
    assert_eq!(said(&longer, "发票").unwrap(), "请告诉我抬头");
    assert_eq!(
        mistakes(&longer),
        format!("row 2 of the table: `99 元 地址,,人民路 1 号 电话,…` goes on for 3 lines, {told}")
    );
}

#[test]
fn a_row_answers_those_of_its_words_that_no_row_above_does() {
    let table = "关键词,回复\n价格,99 元\n地址｜价格,人民路 1 号\n地址,南京路 2 号\n";
    assert_eq!(said(table, "价格").unwrap(), "99 元");
    assert_eq!(said(table, "地址").unwrap(), "人民路 1 号");
    assert_eq!(
        mistakes(table),
        "row 3 of the table: `价格` is in row 2 already; row 4 of the table: `地址` is in row 3 already"
    );
    Table::read("关键词,回复\n价格|价格,99 元\n").check().unwrap();
}

#[test]
fn a_table_without_its_columns_is_no_table() {
    assert_eq!(
        mistakes("价格,99 元\n"),
        "row 1 of the table: `价格` names no column; there are `关键词` (keyword), `匹配` (match), `类型` (type), \
         `回复` (reply), `标题` (title), `链接` (url), `图片` (picture)"
    );
    assert_eq!(mistakes("关键词\n价格\n"), "row 1 of the table: there is no column `回复`");
    assert_eq!(mistakes("关键词,回复,回复\n"), "row 1 of the table: there are two columns `回复`");
    assert_eq!(said("价格,99 元\n", "价格"), None);
}

#[test]
fn a_table_of_names_alone_answers_nothing_and_is_right() {
    for table in ["关键词,回复", "\u{feff}关键词;匹配;回复;;\r\n;;;;\r\n"] {
        assert_eq!(said(table, "价格"), None);
        Table::read(table).check().unwrap();
    }
}

#[test]
fn of_many_mistakes_the_first_are_told_and_the_rest_counted() {
    let told = mistakes(&format!("关键词,回复\n{}", "价格,\n".repeat(7)));
    assert!(told.starts_with("row 2 of the table") && told.ends_with("; and 2 more"), "{told}");
}
