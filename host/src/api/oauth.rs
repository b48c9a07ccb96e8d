//! Web authorisation (网页授权): what a visitor's code is worth, and who the visitor is.
//!
//! These tokens belong to one visitor, and have nothing to do with the account's [`AccessToken`](super::AccessToken).
//! <https://developers.weixin.qq.com/doc/service/guide/h5/auth.html>

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Api, ApiError, exchange::Request};
use crate::secret::Secret;

/// The longest openid or unionid that is taken for one. WeChat's have 28 characters.
const ID_BYTES_MAX: usize = 128;

/// The longest text of a profile that is kept, in characters. Nicknames have some ten.
const TEXT_CHARS_MAX: usize = 512;

/// How many privileges of a profile are kept.
const PRIVILEGES_MAX: usize = 32;

/// What a code or a refresh_token is exchanged for.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// The visitor.
    pub openid: String,
    /// The visitor in all accounts that are bound to one open platform account.
    pub union_id: Option<String>,
    /// What was authorised, with commas between: `snsapi_base`, `snsapi_userinfo`.
    pub scope: String,
    pub access_token: Secret,
    /// How long the access_token is good.
    pub expires_in: Duration,
    /// Gives another access_token, for 30 days.
    pub refresh_token: Secret,
    /// Whether the visitor is a virtual one: WeChat shows a snapshot of the page (快照页), and nobody has consented.
    pub is_snapshot: bool,
}

/// What WeChat says of a visitor who consented. Older replies fill what newer ones leave empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub nickname: String,
    /// 1 male, 2 female, 0 unknown.
    pub sex: u8,
    pub province: String,
    pub city: String,
    pub country: String,
    /// `headimgurl`: the address of the picture; empty if there is none.
    pub headimgurl: String,
    /// `privilege`, such as `chinaunicom`.
    pub privilege: Vec<String>,
    pub unionid: Option<String>,
}

#[derive(Deserialize)]
struct Exchanged {
    access_token: String,
    expires_in: u64,
    refresh_token: String,
    openid: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    is_snapshotuser: u8,
    unionid: Option<String>,
}

#[derive(Deserialize)]
struct JsapiTicket {
    ticket: String,
    expires_in: u64,
}

impl Api {
    /// Exchanges a visitor's code. WeChat takes each code once, so nothing is tried again.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: a refusal with 40029, 40163, 41008 or 42003 is about the code.
    pub async fn exchange_code(&self, code: &Secret, deadline: Instant) -> Result<Authorization, ApiError> {
        let (app_id, app_secret) = self.credentials()?;
        let query = [
            ("appid", app_id),
            ("secret", app_secret.expose()),
            ("code", code.expose()),
            ("grant_type", "authorization_code"),
        ];
        authorization(self.sns("/sns/oauth2/access_token", &query, &[code, app_secret], deadline).await?)
    }

    /// Fetches another access_token for a visitor.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: a refusal with 40030 or 42002 means that the visitor has to sign in again.
    pub async fn refresh_authorization(
        &self,
        refresh_token: &Secret,
        deadline: Instant,
    ) -> Result<Authorization, ApiError> {
        let (app_id, _) = self.credentials()?;
        let query = [("appid", app_id), ("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        authorization(self.sns("/sns/oauth2/refresh_token", &query, &[refresh_token], deadline).await?)
    }

    /// Asks whether a visitor's access_token is still good.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: any refusal means that it is not.
    pub async fn check_authorization(
        &self,
        access_token: &Secret,
        openid: &str,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let query = [("access_token", access_token.expose()), ("openid", openid)];
        self.sns("/sns/auth", &query, &[access_token], deadline).await.map(drop)
    }

    /// Fetches a visitor's profile, with names of places in a language: `zh_CN` or `en`.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: a refusal with 48001 means that the visitor did not authorise it.
    pub async fn profile(
        &self,
        access_token: &Secret,
        openid: &str,
        language: &str,
        deadline: Instant,
    ) -> Result<Profile, ApiError> {
        let query = [("access_token", access_token.expose()), ("openid", openid), ("lang", language)];
        Ok(Profile::of(&self.sns("/sns/userinfo", &query, &[access_token], deadline).await?))
    }

    /// Fetches the ticket that signs pages for the JS-SDK, and how long it is good.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn jsapi_ticket(&self, deadline: Instant) -> Result<(Secret, Duration), ApiError> {
        let query = [("type".to_owned(), "jsapi".to_owned())];
        let answer = self.request(&Request::get("/cgi-bin/ticket/getticket", &query), deadline).await?;
        let JsapiTicket { ticket, expires_in } = answer.parsed()?;
        Ok((ticket.into(), Duration::from_secs(expires_in)))
    }

    /// Where exchanges are played there is no account, and nobody signs in.
    fn credentials(&self) -> Result<(&str, &Secret), ApiError> {
        let (source, _) = self.0.token.as_ref().ok_or_else(|| ApiError::Invalid("nobody signs in here".to_owned()))?;
        Ok((&source.app_id, &source.app_secret))
    }

    async fn sns(
        &self,
        path: &str,
        query: &[(&str, &str)],
        secrets: &[&Secret],
        deadline: Instant,
    ) -> Result<Value, ApiError> {
        let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let _turn = match &self.0.turns {
            Some(turns) => Some(turns.take_for_visitor(deadline).await?),
            None => None,
        };
        // A refresh_token comes back as it went out, and has to: only refusals are kept free of what was sent.
        let answer = self.0.endpoint.send(&Request::get(path, &query), None, &[], deadline).await;
        let answer = answer.map_err(|error| match error {
            ApiError::Refused { code, message } => ApiError::refused(code, &message, secrets.iter().copied()),
            error => error,
        });
        answer?.parsed()
    }
}

fn authorization(json: Value) -> Result<Authorization, ApiError> {
    let exchanged: Exchanged = serde_json::from_value(json).map_err(|_| ApiError::Unexpected)?;
    if !is_id(&exchanged.openid) {
        return Err(ApiError::Unexpected);
    }
    Ok(Authorization {
        openid: exchanged.openid,
        union_id: exchanged.unionid.filter(|id| is_id(id)),
        scope: exchanged.scope,
        access_token: exchanged.access_token.into(),
        expires_in: Duration::from_secs(exchanged.expires_in),
        refresh_token: exchanged.refresh_token.into(),
        is_snapshot: exchanged.is_snapshotuser == 1,
    })
}

/// Whether a text can be an openid or a unionid: it becomes a header of what plugins are asked.
fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

impl Profile {
    /// Takes what is there: which fields a reply has, and whether a number is one, has changed over the years.
    fn of(json: &Value) -> Self {
        let text = |key: &str| shortened(json[key].as_str().unwrap_or_default());
        let sex = json["sex"].as_u64().or_else(|| json["sex"].as_str()?.parse().ok()).unwrap_or_default();
        let privileges = json["privilege"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            nickname: text("nickname"),
            sex: u8::try_from(sex).ok().filter(|sex| *sex <= 2).unwrap_or_default(),
            province: text("province"),
            city: text("city"),
            country: text("country"),
            headimgurl: text("headimgurl"),
            privilege: privileges.iter().filter_map(Value::as_str).take(PRIVILEGES_MAX).map(shortened).collect(),
            unionid: json["unionid"].as_str().filter(|id| is_id(id)).map(str::to_owned),
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_authorization_is_read_with_and_without_what_newer_replies_add() {
        let old = json!({ "access_token": "A", "expires_in": 7200, "refresh_token": "R", "openid": "oA-_1", "scope": "snsapi_base" });
        let read = authorization(old.clone()).unwrap();
        assert_eq!((read.openid.as_str(), read.scope.as_str(), read.is_snapshot), ("oA-_1", "snsapi_base", false));
        assert_eq!((read.union_id, read.expires_in), (None, Duration::from_secs(7_200)));
        let mut new = old;
        new["is_snapshotuser"] = json!(1);
        new["unionid"] = json!("o6_b");
        let read = authorization(new).unwrap();
        assert_eq!((read.union_id.as_deref(), read.is_snapshot), (Some("o6_b"), true));
    }

    #[test]
    fn an_openid_that_could_break_a_header_is_none() {
        for openid in ["", "o A", "o\r\nx: y", "o'", &"o".repeat(129)] {
            let json = json!({ "access_token": "A", "expires_in": 7200, "refresh_token": "R", "openid": openid });
            assert!(matches!(authorization(json), Err(ApiError::Unexpected)), "{openid:?}");
        }
    }

    /// Source: `tokens_oauth.json`, `oauth.userinfo_ok`: the customary sample of WeChat's documentation.
    #[test]
    fn a_profile_is_read_from_older_and_newer_replies() {
        let older = Profile::of(&json!({
            "openid": "OPENID", "nickname": "NICKNAME", "sex": "1", "province": "PROVINCE", "city": "CITY",
            "country": "COUNTRY", "headimgurl": "https://thirdwx.qlogo.cn/mmopen/g3Mon/46",
            "privilege": ["PRIVILEGE1", "PRIVILEGE2"], "unionid": "o6_bmasdasdsad6_2sgVt7hMZOPfL",
        }));
        assert_eq!((older.nickname.as_str(), older.sex, older.city.as_str()), ("NICKNAME", 1, "CITY"));
        assert_eq!(older.privilege, ["PRIVILEGE1", "PRIVILEGE2"]);
        assert_eq!(older.unionid.as_deref(), Some("o6_bmasdasdsad6_2sgVt7hMZOPfL"));
        let newer = Profile::of(&json!({ "openid": "OPENID", "nickname": "微信用户", "sex": 0, "privilege": [] }));
        assert_eq!(newer, Profile { nickname: "微信用户".into(), ..Profile::default() });
    }

    #[test]
    fn what_a_profile_says_has_bounds() {
        let profile = Profile::of(&json!({
            "nickname": "微".repeat(9_999), "sex": 7, "city": "a\u{0}b", "privilege": vec!["p"; 99], "unionid": "a b",
        }));
        assert_eq!(profile.nickname.chars().count(), TEXT_CHARS_MAX);
        assert_eq!((profile.sex, profile.city.as_str(), profile.privilege.len()), (0, "ab", PRIVILEGES_MAX));
        assert_eq!(profile.unionid, None);
    }
}
