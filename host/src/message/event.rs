//! What happened, by the push's `Event`.

use super::fields::Fields;
use crate::plugin::bindings::{
    Click, Event, KfSession, KfSwitch, MassSend, Pictures, Place, Position, Scan, ScanCode, Subscribe,
    SubscribeMsgChoice, SubscribeMsgSent, TemplateSend, UserAuthorization, View, ViewMiniprogram,
};

/// Reads the event; nothing if there is no `Event`. One that is new, or that lacks what WeChat promises, is
/// `other`, and its leaves stay.
///
/// Source: <https://developers.weixin.qq.com/doc/service/guide/capability/basic-message/receive-event>
pub(super) fn read(fields: &mut Fields<'_>) -> Option<Event> {
    let name = fields.filled("Event")?;
    let event = fields.attempt(|fields| {
        // The wire mixes `CLICK`, `view_miniprogram` and `WifiConnected`.
        Some(match name.to_ascii_lowercase().as_str() {
            "subscribe" => Event::Subscribe(subscribe(fields)),
            "unsubscribe" => Event::Unsubscribe,
            "scan" => Event::Scan(scan(fields)?),
            "location" => Event::Location(position(fields)?),
            "click" => Event::Click(click(fields)?),
            "view" => Event::View(view(fields)?),
            "view_miniprogram" => Event::ViewMiniprogram(view_miniprogram(fields)?),
            "scancode_push" => Event::ScancodePush(scan_code(fields)?),
            "scancode_waitmsg" => Event::ScancodeWaitmsg(scan_code(fields)?),
            "pic_sysphoto" => Event::PicSysphoto(pictures(fields)?),
            "pic_photo_or_album" => Event::PicPhotoOrAlbum(pictures(fields)?),
            "pic_weixin" => Event::PicWeixin(pictures(fields)?),
            "location_select" => Event::LocationSelect(place(fields)?),
            "templatesendjobfinish" => Event::TemplateSendFinished(template_send(fields)?),
            "masssendjobfinish" => Event::MassSendFinished(mass_send(fields)?),
            "kf_create_session" => Event::KfCreateSession(kf_session(fields)?),
            "kf_close_session" => Event::KfCloseSession(kf_session(fields)?),
            "kf_switch_session" => Event::KfSwitchSession(kf_switch(fields)?),
            "subscribe_msg_popup_event" => {
                Event::SubscribeMsgPopup(fields.each("SubscribeMsgPopupEvent/List", subscribe_msg_popup)?)
            }
            "subscribe_msg_change_event" => {
                Event::SubscribeMsgChange(fields.each("SubscribeMsgChangeEvent/List", subscribe_msg_change)?)
            }
            "subscribe_msg_sent_event" => {
                Event::SubscribeMsgSent(fields.each("SubscribeMsgSentEvent/List", subscribe_msg_sent)?)
            }
            "user_info_modified" => Event::UserInfoModified(user_authorization(fields)?),
            "user_authorization_revoke" => Event::UserAuthorizationRevoke(user_authorization(fields)?),
            "user_authorization_cancellation" => Event::UserAuthorizationCancellation(user_authorization(fields)?),
            _ => return None,
        })
    });
    Some(event.unwrap_or(Event::Other(name)))
}

fn subscribe(fields: &mut Fields<'_>) -> Subscribe {
    let mut key = |prefix: &str| fields.read("EventKey", |key| key.strip_prefix(prefix).map(str::to_owned));
    Subscribe { scene: key("qrscene_"), last_trade_no: key("last_trade_no_"), ticket: fields.text("Ticket") }
}

fn scan(fields: &mut Fields<'_>) -> Option<Scan> {
    Some(Scan { scene: fields.text("EventKey")?, ticket: fields.text("Ticket") })
}

fn position(fields: &mut Fields<'_>) -> Option<Position> {
    Some(Position {
        latitude: fields.decimal("Latitude")?,
        longitude: fields.decimal("Longitude")?,
        precision: fields.decimal("Precision")?,
    })
}

fn click(fields: &mut Fields<'_>) -> Option<Click> {
    Some(Click { key: fields.text("EventKey")? })
}

fn view(fields: &mut Fields<'_>) -> Option<View> {
    Some(View { url: fields.text("EventKey")?, menu_id: fields.text("MenuId") })
}

fn view_miniprogram(fields: &mut Fields<'_>) -> Option<ViewMiniprogram> {
    Some(ViewMiniprogram { page_path: fields.text("EventKey")?, menu_id: fields.text("MenuId") })
}

fn scan_code(fields: &mut Fields<'_>) -> Option<ScanCode> {
    Some(ScanCode {
        key: fields.text("EventKey")?,
        scan_type: fields.text("ScanCodeInfo/ScanType")?,
        scan_result: fields.text("ScanCodeInfo/ScanResult")?,
    })
}

fn pictures(fields: &mut Fields<'_>) -> Option<Pictures> {
    Some(Pictures {
        key: fields.text("EventKey")?,
        count: fields.number("SendPicsInfo/Count")?,
        // Several pictures come as several items, or as several lists of one.
        md5_sums: fields.every("SendPicsInfo/PicList/item/PicMd5Sum"),
    })
}

fn place(fields: &mut Fields<'_>) -> Option<Place> {
    Some(Place {
        key: fields.text("EventKey")?,
        latitude: fields.decimal("SendLocationInfo/Location_X")?,
        longitude: fields.decimal("SendLocationInfo/Location_Y")?,
        scale: fields.number("SendLocationInfo/Scale")?,
        label: fields.text("SendLocationInfo/Label")?,
        poi_name: fields.text("SendLocationInfo/Poiname"),
    })
}

fn template_send(fields: &mut Fields<'_>) -> Option<TemplateSend> {
    Some(TemplateSend { msg_id: fields.number("MsgID")?, status: fields.text("Status")? })
}

fn mass_send(fields: &mut Fields<'_>) -> Option<MassSend> {
    Some(MassSend {
        msg_id: fields.number("MsgID")?,
        status: fields.text("Status")?,
        total_count: fields.number("TotalCount")?,
        filter_count: fields.number("FilterCount")?,
        sent_count: fields.number("SentCount")?,
        error_count: fields.number("ErrorCount")?,
    })
}

fn kf_session(fields: &mut Fields<'_>) -> Option<KfSession> {
    Some(KfSession { kf_account: fields.text("KfAccount")? })
}

fn kf_switch(fields: &mut Fields<'_>) -> Option<KfSwitch> {
    Some(KfSwitch { from_kf_account: fields.text("FromKfAccount")?, to_kf_account: fields.text("ToKfAccount")? })
}

fn subscribe_msg_popup(list: &mut Fields<'_>) -> Option<SubscribeMsgChoice> {
    let popup_scene = list.text("PopupScene");
    Some(SubscribeMsgChoice { popup_scene, ..subscribe_msg_change(list)? })
}

fn subscribe_msg_change(list: &mut Fields<'_>) -> Option<SubscribeMsgChoice> {
    Some(SubscribeMsgChoice {
        template_id: list.text("TemplateId")?,
        status: list.text("SubscribeStatusString")?,
        popup_scene: None,
    })
}

fn subscribe_msg_sent(list: &mut Fields<'_>) -> Option<SubscribeMsgSent> {
    Some(SubscribeMsgSent {
        template_id: list.text("TemplateId")?,
        msg_id: list.number("MsgID")?,
        error_code: list.number("ErrorCode")?,
        error_status: list.text("ErrorStatus")?,
    })
}

fn user_authorization(fields: &mut Fields<'_>) -> Option<UserAuthorization> {
    Some(UserAuthorization {
        openid: fields.text("OpenID")?,
        app_id: fields.text("AppID")?,
        revoke_info: fields.text("RevokeInfo"),
        union_id: fields.text("UnionID"),
        plugin_id: fields.text("PluginID"),
        open_pid: fields.text("OpenPID"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::tests::{extra, message},
        plugin::bindings::Body,
    };

    /// Reads an event, and `extra` as `path=value`.
    fn event(name: &str, content: &str) -> (Event, Vec<String>) {
        let message = message(&format!("<MsgType>event</MsgType><Event>{name}</Event>{content}"));
        let extra = extra(&message);
        match message.body {
            Body::Event(event) => (event, extra),
            body => panic!("{name} is no event: {body:?}"),
        }
    }

    fn other(name: &str, extra: &[&str]) -> (Event, Vec<String>) {
        (Event::Other(name.into()), extra.iter().map(|leaf| (*leaf).into()).collect())
    }

    #[test]
    fn a_subscribe_says_where_it_comes_from() {
        let none = Subscribe { scene: None, ticket: None, last_trade_no: None };
        for (content, expected, extra) in [
            ("", none.clone(), vec![]),
            (
                "<EventKey>qrscene_42</EventKey><Ticket>T</Ticket>",
                Subscribe { scene: Some("42".into()), ticket: Some("T".into()), ..none.clone() },
                vec![],
            ),
            (
                "<EventKey>last_trade_no_4200</EventKey>",
                Subscribe { last_trade_no: Some("4200".into()), ..none.clone() },
                vec![],
            ),
            ("<EventKey/>", none.clone(), vec!["EventKey="]),
            ("<EventKey>new_way_1</EventKey>", none.clone(), vec!["EventKey=new_way_1"]),
        ] {
            let expected = (Event::Subscribe(expected), extra.into_iter().map(str::to_owned).collect());
            assert_eq!(event("subscribe", content), expected, "{content}");
        }
    }

    #[test]
    fn case_does_not_matter_to_a_known_event_and_is_kept_of_a_new_one() {
        let click = Event::Click(Click { key: "k".into() });
        for name in ["CLICK", "click", "Click"] {
            assert_eq!(event(name, "<EventKey>k</EventKey>"), (click.clone(), vec![]));
        }
        assert_eq!(event("WifiConnected", "<ShopId>1</ShopId>"), other("WifiConnected", &["ShopId=1"]));
    }

    #[test]
    fn an_event_with_a_part_missing_or_unreadable_is_other_and_keeps_all_its_leaves() {
        for (name, content, extra) in [
            ("CLICK", "", vec![]),
            ("LOCATION", "<Latitude>1</Latitude><Longitude>2</Longitude>", vec!["Latitude=1", "Longitude=2"]),
            (
                "scancode_waitmsg",
                "<EventKey>k</EventKey><ScanCodeInfo><ScanType>qrcode</ScanType></ScanCodeInfo>",
                vec!["EventKey=k", "ScanCodeInfo/ScanType=qrcode"],
            ),
            ("TEMPLATESENDJOBFINISH", "<MsgID>x</MsgID><Status>success</Status>", vec!["MsgID=x", "Status=success"]),
        ] {
            assert_eq!(event(name, content), other(name, &extra));
        }
    }

    #[test]
    fn a_scanned_code_comes_with_its_key() {
        let content = "<EventKey>6</EventKey>\
            <ScanCodeInfo><ScanType>qrcode</ScanType><ScanResult>1</ScanResult></ScanCodeInfo>";
        let code = ScanCode { key: "6".into(), scan_type: "qrcode".into(), scan_result: "1".into() };
        assert_eq!(event("scancode_waitmsg", content), (Event::ScancodeWaitmsg(code), vec![]));
    }

    #[test]
    fn pictures_are_collected_over_lists_and_items() {
        let sum = |sum: &str| format!("<item><PicMd5Sum>{sum}</PicMd5Sum></item>");
        let (a, b, c) = (sum("a"), sum("b"), sum("c"));
        for (lists, md5_sums, extra) in [
            (format!("<PicList>{a}{b}{c}</PicList>"), vec!["a", "b", "c"], vec![]),
            (format!("<PicList>{a}</PicList><PicList>{b}{c}</PicList>"), vec!["a", "b", "c"], vec![]),
            ("<PicList/>".into(), vec![], vec!["SendPicsInfo/PicList="]),
            (String::new(), vec![], vec![]),
        ] {
            let content = format!("<EventKey>6</EventKey><SendPicsInfo><Count>3</Count>{lists}</SendPicsInfo>");
            let md5_sums = md5_sums.into_iter().map(str::to_owned).collect();
            let expected = Event::PicWeixin(Pictures { key: "6".into(), count: 3, md5_sums });
            let extra = extra.into_iter().map(str::to_owned).collect();
            assert_eq!(event("pic_weixin", &content), (expected, extra), "{lists}");
        }
    }

    #[test]
    fn every_choice_of_a_prompt_is_read() {
        let choice = |id: &str, scene: Option<&str>| SubscribeMsgChoice {
            template_id: id.into(),
            status: "accept".into(),
            popup_scene: scene.map(str::to_owned),
        };
        let content = "<SubscribeMsgPopupEvent>\
            <List><TemplateId>1</TemplateId><SubscribeStatusString>accept</SubscribeStatusString>\
            <PopupScene>2</PopupScene></List>\
            <List><TemplateId>3</TemplateId><SubscribeStatusString>accept</SubscribeStatusString>\
            <New>n</New></List></SubscribeMsgPopupEvent>";
        let choices = vec![choice("1", Some("2")), choice("3", None)];
        let extra = vec!["SubscribeMsgPopupEvent/List[2]/New=n".to_owned()];
        assert_eq!(event("subscribe_msg_popup_event", content), (Event::SubscribeMsgPopup(choices), extra));
    }

    #[test]
    fn a_list_with_an_unreadable_entry_is_no_list() {
        let entry = "<List><TemplateId>1</TemplateId><MsgID>2</MsgID><ErrorCode>-3</ErrorCode>\
                     <ErrorStatus>e</ErrorStatus></List>";
        let sent = SubscribeMsgSent { template_id: "1".into(), msg_id: 2, error_code: -3, error_status: "e".into() };
        let name = "subscribe_msg_sent_event";
        let read = |lists: String| event(name, &format!("<SubscribeMsgSentEvent>{lists}</SubscribeMsgSentEvent>"));
        assert_eq!(read(format!("{entry}{entry}")), (Event::SubscribeMsgSent(vec![sent.clone(), sent]), vec![]));
        let whole = [
            "SubscribeMsgSentEvent/List/TemplateId=1",
            "SubscribeMsgSentEvent/List/MsgID=2",
            "SubscribeMsgSentEvent/List/ErrorCode=-3",
            "SubscribeMsgSentEvent/List/ErrorStatus=e",
        ];
        let half = "<List><TemplateId>4</TemplateId></List>";
        let with_half = [&whole[..], &["SubscribeMsgSentEvent/List[2]/TemplateId=4"]].concat();
        assert_eq!(read(format!("{entry}{half}")), other(name, &with_half));
        let with_empty = [&whole[..], &["SubscribeMsgSentEvent/List[2]="]].concat();
        assert_eq!(read(format!("{entry}<List/>")), other(name, &with_empty));
        assert_eq!(read("<List/>".into()), other(name, &["SubscribeMsgSentEvent/List="]));
        assert_eq!(event(name, ""), other(name, &[]));
    }

    #[test]
    fn a_name_that_only_begins_like_the_list_is_not_in_it() {
        let content = "<SubscribeMsgChangeEvent><ListOf><TemplateId>0</TemplateId></ListOf>\
            <List><TemplateId>1</TemplateId><SubscribeStatusString>reject</SubscribeStatusString></List>\
            </SubscribeMsgChangeEvent>";
        let choice = SubscribeMsgChoice { template_id: "1".into(), status: "reject".into(), popup_scene: None };
        let extra = vec!["SubscribeMsgChangeEvent/ListOf/TemplateId=0".to_owned()];
        assert_eq!(event("subscribe_msg_change_event", content), (Event::SubscribeMsgChange(vec![choice]), extra));
    }

    #[test]
    fn a_changed_authorization_names_its_user() {
        let content = "<OpenID>o2</OpenID><AppID>wx1</AppID><RevokeInfo>301</RevokeInfo>\
                       <OpenPID>p</OpenPID>";
        let authorization = UserAuthorization {
            openid: "o2".into(),
            app_id: "wx1".into(),
            revoke_info: Some("301".into()),
            union_id: None,
            plugin_id: None,
            open_pid: Some("p".into()),
        };
        assert_eq!(
            event("user_authorization_revoke", content),
            (Event::UserAuthorizationRevoke(authorization.clone()), vec![])
        );
        assert_eq!(event("user_info_modified", content), (Event::UserInfoModified(authorization), vec![]));
    }

    #[test]
    fn a_customer_service_session_begins_and_ends_with_its_agent() {
        let session = KfSession { kf_account: "a@b".into() };
        let content = "<KfAccount>a@b</KfAccount><CloseType>KF</CloseType>";
        let extra = vec!["CloseType=KF".to_owned()];
        assert_eq!(event("kf_create_session", content), (Event::KfCreateSession(session.clone()), extra.clone()));
        assert_eq!(event("kf_close_session", content), (Event::KfCloseSession(session), extra));
    }
}
