//! WeChat's own words: the message types and events that a conversation can name in brackets, each with the elements
//! that WeChat sends, in its order and spelling.
//!
//! From the tables of
//! <https://developers.weixin.qq.com/doc/service/guide/capability/basic-message/receive-message> and
//! <https://developers.weixin.qq.com/doc/service/guide/capability/basic-message/receive-event>.

use std::fmt::Write as _;

use Value::{Given, Is, Needed, Or};

/// One word: `[NAME VALUE VALUE…]`.
#[derive(Debug)]
pub(super) struct Word {
    /// As WeChat spells it on the wire.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Paths below the header, in WeChat's order, and what stands there.
    pub(super) fields: &'static [(&'static str, Value)],
}

/// Whether a word is a `MsgType` or an `Event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Message,
    Event,
}

/// Where an element's text comes from.
#[derive(Debug)]
pub(super) enum Value {
    /// Always this.
    Is(&'static str),
    /// The word's next value, or this: what it is called, and what it is when it is left out.
    Or(&'static str, &'static str),
    /// The word's next value, which cannot be left out.
    Needed(&'static str),
    /// The word's next value; without it there is no such element.
    Given(&'static str),
}

impl Value {
    /// What the conversation's author may write here; nothing if it is fixed.
    pub(super) fn what(&self) -> Option<&'static str> {
        match self {
            Is(_) => None,
            Or(what, _) | Needed(what) | Given(what) => Some(what),
        }
    }
}

impl Word {
    /// How the word is written, such as `[CLICK KEY]`; a value with `?` can be left out.
    pub(super) fn usage(&self) -> String {
        let mut usage = format!("[{}", self.name);
        for (_, value) in self.fields {
            let optional = if matches!(value, Needed(_)) { "" } else { "?" };
            if let Some(what) = value.what() {
                let _ = write!(usage, " {what}{optional}");
            }
        }
        usage.push(']');
        usage
    }
}

/// Finds a word: as WeChat spells it, or else in any case. Only `[location]` (a message) and `[LOCATION]` (an event)
/// differ in nothing else.
pub(super) fn find(name: &str) -> Option<&'static Word> {
    let exact = WORDS.iter().find(|word| word.name == name);
    exact.or_else(|| WORDS.iter().find(|word| word.name.eq_ignore_ascii_case(name)))
}

/// Finds a word of one kind, in any case.
pub(super) fn find_kind(kind: Kind, name: &str) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.kind == kind && word.name.eq_ignore_ascii_case(name))
}

/// Names the words of one kind, as WeChat spells them.
pub(crate) fn names(kind: Kind) -> impl Iterator<Item = &'static str> {
    WORDS.iter().filter(move |word| word.kind == kind).map(|word| word.name)
}

/// Returns the word that `name` was probably meant to be.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    nearest_of(WORDS.iter().map(|word| word.name), name)
}

/// What is longer is no slip of the pen, and the work to see that grows with its length.
const NAME_BYTES_MAX: usize = 64;

/// Returns which of these `name` was probably meant to be.
pub(crate) fn nearest_of<'a>(known: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let name = name.to_ascii_lowercase();
    // A face such as `[Smile]` is short: one slip there, two in a longer word.
    let slips_max = if name.len() < 6 { 1 } else { 2 };
    let slips = |known: &str| strsim::damerau_levenshtein(&known.to_ascii_lowercase(), &name);
    let (slips, near) = known.map(|known| (slips(known), known)).min_by_key(|pair| pair.0)?;
    (slips <= slips_max).then_some(near)
}

/// Returns every word with its values, one to a line, for `--help`.
pub(super) fn list() -> String {
    let mut list = String::new();
    for (kind, title) in [(Kind::Message, "Messages"), (Kind::Event, "Events")] {
        let _ = writeln!(list, "{title} (a value with ? may be left out):");
        for word in WORDS.iter().filter(|word| word.kind == kind) {
            let _ = writeln!(list, "  {}", word.usage());
        }
        let any = if kind == Kind::Message { "[type NAME]" } else { "[event NAME KEY?]" };
        let _ = writeln!(list, "  {any}, of any other name");
    }
    list
}

/// The elements that WeChat writes without CDATA.
pub(super) fn is_number(path: &str) -> bool {
    NUMBERS.contains(&path)
}

const NUMBERS: &[&str] = &[
    "CreateTime",
    "MsgId",
    "MsgID",
    "MsgDataId",
    "Idx",
    "Location_X",
    "Location_Y",
    "Scale",
    "Latitude",
    "Longitude",
    "Precision",
    "MenuId",
    "FileTotalLen",
    "OpType",
    "SendPicsInfo/Count",
    "TotalCount",
    "FilterCount",
    "SentCount",
    "ErrorCount",
    "PublishEventInfo/publish_id",
    "PublishEventInfo/publish_status",
    "SubscribeMsgSentEvent/List/MsgID",
    "SubscribeMsgSentEvent/List/ErrorCode",
    "ExpiredTime",
    "FailTime",
    "IsGiveByFriend",
    "IsRestoreMemberCard",
    "IsReturnBack",
    "IsChatRoom",
    "OrderStatus",
];

const fn message(name: &'static str, fields: &'static [(&'static str, Value)]) -> Word {
    Word { name, kind: Kind::Message, fields }
}

const fn event(name: &'static str, fields: &'static [(&'static str, Value)]) -> Word {
    Word { name, kind: Kind::Event, fields }
}

const CARD: &[(&str, Value)] = &[("CardId", Or("CARD_ID", "card_id")), ("UserCardCode", Or("CODE", "12312312"))];
const DEVICE: &[(&str, Value)] = &[
    ("DeviceType", Is("gh_device")),
    ("DeviceID", Or("DEVICE_ID", "device_id")),
    ("Content", Or("BASE64", "")),
    ("SessionID", Is("1")),
    ("OpenID", Is("openid")),
];
const DEVICE_EVENT: &[(&str, Value)] = &[
    ("Event", Or("bind|unbind", "bind")),
    ("DeviceType", Is("gh_device")),
    ("DeviceID", Or("DEVICE_ID", "device_id")),
    ("Content", Is("")),
    ("SessionID", Is("1")),
    ("OpenID", Is("openid")),
];
const DEVICE_STATUS: &[(&str, Value)] = &[
    ("DeviceType", Is("gh_device")),
    ("DeviceID", Or("DEVICE_ID", "device_id")),
    ("OpType", Or("0|1", "1")),
    ("OpenID", Is("openid")),
];
const EXPIRY: &[(&str, Value)] = &[("ExpiredTime", Or("TIME", "1442401156"))];
const FAILURE: &[(&str, Value)] = &[("FailTime", Is("1442401122")), ("FailReason", Or("REASON", "by time"))];
const GIFT_CARD: &[(&str, Value)] = &[("PageId", Or("PAGE_ID", "page_id")), ("OrderId", Or("ORDER_ID", "order_id"))];
const KF_SESSION: &[(&str, Value)] = &[("KfAccount", Or("ACCOUNT", "test1@test"))];
const PICTURES: &[(&str, Value)] = &[
    ("EventKey", Or("KEY", "key")),
    ("SendPicsInfo/Count", Or("COUNT", "1")),
    ("SendPicsInfo/PicList/item/PicMd5Sum", Is("1b5f7c23b5bf75682a53e7b6d163e185")),
];
const SCAN_CODE: &[(&str, Value)] = &[
    ("EventKey", Or("KEY", "key")),
    ("ScanCodeInfo/ScanType", Is("qrcode")),
    ("ScanCodeInfo/ScanResult", Or("RESULT", "1")),
];
const STORE_AUDIT: &[(&str, Value)] =
    &[("audit_id", Is("11111")), ("status", Or("STATUS", "3")), ("reason", Or("REASON", ""))];
const USER_AUTHORIZATION: &[(&str, Value)] =
    &[("OpenID", Or("OPENID", "openid")), ("AppID", Is("wx13974bf780d3dc89")), ("RevokeInfo", Given("REVOKE_INFO"))];
const VIDEO: &[(&str, Value)] = &[("MediaId", Or("MEDIA_ID", "media_id")), ("ThumbMediaId", Is("thumb_media_id"))];

const WORDS: &[Word] = &[
    message("text", &[("Content", Needed("CONTENT"))]),
    message(
        "image",
        &[("PicUrl", Is("http://mmbiz.qpic.cn/mmbiz_jpg/picture/0")), ("MediaId", Or("MEDIA_ID", "media_id"))],
    ),
    message("voice", &[("MediaId", Is("media_id")), ("Format", Is("amr")), ("Recognition", Given("TRANSCRIPT"))]),
    message("video", VIDEO),
    message("shortvideo", VIDEO),
    message(
        "location",
        &[
            ("Location_X", Or("LATITUDE", "23.134521")),
            ("Location_Y", Or("LONGITUDE", "113.358803")),
            ("Scale", Is("20")),
            ("Label", Or("LABEL", "位置信息")),
        ],
    ),
    message(
        "link",
        &[
            ("Title", Or("TITLE", "公众平台官网链接")),
            ("Description", Is("")),
            ("Url", Or("URL", "https://mp.weixin.qq.com/")),
        ],
    ),
    message(
        "file",
        &[
            ("Title", Or("TITLE", "file.pdf")),
            ("Description", Is("")),
            ("FileKey", Is("file_key")),
            ("FileMd5", Is("1b5f7c23b5bf75682a53e7b6d163e185")),
            ("FileTotalLen", Or("BYTES", "1024")),
        ],
    ),
    message(
        "miniprogrampage",
        &[
            ("Title", Or("TITLE", "标题")),
            ("AppId", Is("wx13974bf780d3dc89")),
            ("PagePath", Or("PAGE", "pages/index/index")),
            ("ThumbUrl", Is("http://mmbiz.qpic.cn/mmbiz_jpg/picture/0")),
            ("ThumbMediaId", Is("thumb_media_id")),
        ],
    ),
    message("device_text", DEVICE),
    message("device_event", DEVICE_EVENT),
    message("device_status", DEVICE_STATUS),
    // A follow. `Ticket` is added where the key is a code's scene.
    event("subscribe", &[("EventKey", Given("qrscene_SCENE|last_trade_no_ID"))]),
    event("unsubscribe", &[("EventKey", Given("KEY"))]),
    event("SCAN", &[("EventKey", Needed("SCENE")), ("Ticket", Is("TICKET"))]),
    event(
        "LOCATION",
        &[
            ("Latitude", Or("LATITUDE", "23.137466")),
            ("Longitude", Or("LONGITUDE", "113.352425")),
            ("Precision", Or("PRECISION", "119.385040")),
        ],
    ),
    event("CLICK", &[("EventKey", Needed("KEY"))]),
    event("VIEW", &[("EventKey", Needed("URL")), ("MenuId", Given("MENU_ID"))]),
    event("view_miniprogram", &[("EventKey", Or("PAGE", "pages/index/index")), ("MenuId", Or("MENU_ID", "1"))]),
    event("scancode_push", SCAN_CODE),
    event("scancode_waitmsg", SCAN_CODE),
    event("pic_sysphoto", PICTURES),
    event("pic_photo_or_album", PICTURES),
    event("pic_weixin", PICTURES),
    event(
        "location_select",
        &[
            ("EventKey", Or("KEY", "key")),
            ("SendLocationInfo/Location_X", Or("LATITUDE", "23")),
            ("SendLocationInfo/Location_Y", Or("LONGITUDE", "113")),
            ("SendLocationInfo/Scale", Is("15")),
            ("SendLocationInfo/Label", Or("LABEL", "广州市海珠区客村艺苑路 106号")),
            ("SendLocationInfo/Poiname", Is("")),
        ],
    ),
    event("TEMPLATESENDJOBFINISH", &[("MsgID", Is("200163836")), ("Status", Or("STATUS", "success"))]),
    event(
        "MASSSENDJOBFINISH",
        &[
            ("MsgID", Is("1000001625")),
            ("Status", Or("STATUS", "send success")),
            ("TotalCount", Is("100")),
            ("FilterCount", Is("80")),
            ("SentCount", Is("75")),
            ("ErrorCount", Is("5")),
        ],
    ),
    event(
        "PUBLISHJOBFINISH",
        &[
            ("PublishEventInfo/publish_id", Is("2247503051")),
            ("PublishEventInfo/publish_status", Or("STATUS", "0")),
            ("PublishEventInfo/article_id", Is("article_id")),
        ],
    ),
    event("kf_create_session", KF_SESSION),
    event("kf_close_session", KF_SESSION),
    event("kf_switch_session", &[("FromKfAccount", Or("FROM", "test1@test")), ("ToKfAccount", Or("TO", "test2@test"))]),
    event(
        "subscribe_msg_popup_event",
        &[
            ("SubscribeMsgPopupEvent/List/TemplateId", Or("TEMPLATE_ID", "template_id")),
            ("SubscribeMsgPopupEvent/List/SubscribeStatusString", Or("accept|reject", "accept")),
            ("SubscribeMsgPopupEvent/List/PopupScene", Or("SCENE", "2")),
        ],
    ),
    event(
        "subscribe_msg_change_event",
        &[
            ("SubscribeMsgChangeEvent/List/TemplateId", Or("TEMPLATE_ID", "template_id")),
            ("SubscribeMsgChangeEvent/List/SubscribeStatusString", Or("accept|reject", "reject")),
        ],
    ),
    event(
        "subscribe_msg_sent_event",
        &[
            ("SubscribeMsgSentEvent/List/TemplateId", Or("TEMPLATE_ID", "template_id")),
            ("SubscribeMsgSentEvent/List/MsgID", Is("1700827132819554304")),
            ("SubscribeMsgSentEvent/List/ErrorCode", Or("CODE", "0")),
            ("SubscribeMsgSentEvent/List/ErrorStatus", Or("STATUS", "success")),
        ],
    ),
    event("user_info_modified", USER_AUTHORIZATION),
    event("user_authorization_revoke", USER_AUTHORIZATION),
    event("user_authorization_cancellation", USER_AUTHORIZATION),
    event("qualification_verify_success", EXPIRY),
    event("qualification_verify_fail", FAILURE),
    event("naming_verify_success", EXPIRY),
    event("naming_verify_fail", FAILURE),
    event("annual_renew", EXPIRY),
    event("verify_expired", EXPIRY),
    event("card_pass_check", &[("CardId", Or("CARD_ID", "card_id"))]),
    event("card_not_pass_check", &[("CardId", Or("CARD_ID", "card_id")), ("RefuseReason", Or("REASON", "非法代制"))]),
    event(
        "user_get_card",
        &[
            ("CardId", Or("CARD_ID", "card_id")),
            ("IsGiveByFriend", Is("0")),
            ("UserCardCode", Or("CODE", "12312312")),
            ("OuterStr", Or("OUTER_STR", "")),
            ("IsRestoreMemberCard", Is("0")),
        ],
    ),
    event(
        "user_gifting_card",
        &[
            ("CardId", Or("CARD_ID", "card_id")),
            ("UserCardCode", Or("CODE", "12312312")),
            ("IsReturnBack", Is("0")),
            ("FriendUserName", Or("FRIEND", "friend")),
            ("IsChatRoom", Is("0")),
        ],
    ),
    event("user_del_card", CARD),
    event(
        "user_consume_card",
        &[
            ("CardId", Or("CARD_ID", "card_id")),
            ("UserCardCode", Or("CODE", "12312312")),
            ("ConsumeSource", Is("FROM_API")),
        ],
    ),
    event("user_pay_from_pay_cell", CARD),
    event("user_view_card", CARD),
    event("user_enter_session_from_card", CARD),
    event("update_member_card", CARD),
    event("submit_membercard_user_info", CARD),
    event("card_sku_remind", &[("CardId", Or("CARD_ID", "card_id")), ("Detail", Or("DETAIL", ""))]),
    event(
        "card_pay_order",
        &[("OrderId", Or("ORDER_ID", "order_id")), ("Status", Or("STATUS", "ORDER_STATUS_FINANCE_SUCC"))],
    ),
    event("giftcard_pay_done", GIFT_CARD),
    event("giftcard_send_to_friend", GIFT_CARD),
    event("giftcard_user_accept", GIFT_CARD),
    event(
        "user_authorize_invoice",
        &[
            ("SuccOrderId", Or("ORDER_ID", "order_id")),
            ("FailOrderId", Is("")),
            ("AuthorizeAppId", Is("wx13974bf780d3dc89")),
            ("Source", Is("web")),
        ],
    ),
    event(
        "update_invoice_status",
        &[("Status", Or("STATUS", "INVOICE_REIMBURSE_INIT")), ("CardId", Is("card_id")), ("Code", Or("CODE", "code"))],
    ),
    event("submit_invoice_title", &[("title", Or("TITLE", "发票抬头"))]),
    event(
        "poi_check_notify",
        &[
            ("UniqId", Or("UNIQ_ID", "123adb")),
            ("PoiId", Is("123123")),
            ("Result", Or("succ|fail", "succ")),
            ("Msg", Or("MSG", "")),
        ],
    ),
    event(
        "WifiConnected",
        &[
            ("ConnectTime", Is("0")),
            ("ExpireTime", Is("0")),
            ("VendorId", Is("3001224419")),
            ("ShopId", Or("SHOP_ID", "1")),
            ("DeviceNo", Is("DeviceNo")),
        ],
    ),
    event(
        "ShakearoundUserShake",
        &[
            ("ChosenBeacon/Uuid", Or("UUID", "uuid")),
            ("ChosenBeacon/Major", Is("1")),
            ("ChosenBeacon/Minor", Is("1")),
            ("ChosenBeacon/Distance", Is("0.057")),
        ],
    ),
    event(
        "merchant_order",
        &[
            ("OrderId", Or("ORDER_ID", "order_id")),
            ("OrderStatus", Is("2")),
            ("ProductId", Is("product_id")),
            ("SkuInfo", Is("10001:1000012")),
        ],
    ),
    event(
        "user_scan_product",
        &[("KeyStandard", Is("ean13")), ("KeyStr", Or("CODE", "6901481811083")), ("ExtInfo", Or("EXT_INFO", ""))],
    ),
    event(
        "user_scan_product_enter_session",
        &[("KeyStandard", Is("ean13")), ("KeyStr", Or("CODE", "6901481811083")), ("ExtInfo", Or("EXT_INFO", ""))],
    ),
    event(
        "user_scan_product_verify_action",
        &[
            ("KeyStandard", Is("ean13")),
            ("KeyStr", Or("CODE", "6901481811083")),
            ("Result", Or("RESULT", "verify_ok")),
            ("ReasonMsg", Or("REASON", "")),
        ],
    ),
    event(
        "wxa_media_check",
        &[("isrisky", Or("0|1", "0")), ("appid", Is("wx13974bf780d3dc89")), ("trace_id", Is("trace_id"))],
    ),
    event("guide_qrcode_scan_event", &[("EventKey", Given("KEY"))]),
    event("apply_merchant_audit_info", STORE_AUDIT),
    event("create_map_poi_audit_info", STORE_AUDIT),
    event("add_store_audit_info", STORE_AUDIT),
    event("modify_store_audit_info", STORE_AUDIT),
    event("weapp_audit_success", &[("SuccTime", Is("1442401156"))]),
    event("weapp_audit_fail", &[("Reason", Or("REASON", "")), ("FailTime", Is("1442401122"))]),
    event("weapp_audit_delay", &[("Reason", Or("REASON", "")), ("DelayTime", Is("1442401122"))]),
    event("debug_demo", &[("debug_str", Or("TEXT", ""))]),
];
