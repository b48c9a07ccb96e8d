//! What an operator can do about WeChat's error codes.
//! <https://developers.weixin.qq.com/doc/service/guide/dev/error_code.html>

use std::net::IpAddr;

/// What each code that can reach an operator asks for. 40164 names an address, and so stands apart.
#[rustfmt::skip]
const ADVICE: [(&[i64], &str); 31] = [
    (&[-1], "WeChat is busy; try again in a minute"),
    (&[40001], "`app_secret` is not this account's AppSecret, or the access_token is not good any more"),
    (&[40014, 42001], "the access_token is not good any more; try again"),
    (&[40013, 41002], "`app_id` is not this account's AppID; copy it again from the account's page at 微信开发者平台"),
    (&[40125, 41004], "`app_secret` is not this account's AppSecret, or was reset since; only the console's administrator can \
        reset it, and see it once"),
    (&[40003], "this is no openid of this account's: every account knows a user by another one"),
    (&[40004, 40005, 40006], "WeChat takes no such file: see its types and sizes for `media/upload`"),
    (&[40007], "there is no such media; temporary ones are gone after 3 days, and those of another account are unknown"),
    (&[40008], "WeChat knows no such message type"),
    (&[40033], "the JSON is not written in plain UTF-8: `\\u` escapes are refused"),
    (&[40066], "WeChat's API has no such path, or not with this method"),
    (&[40201], "no URL is set for this account; fill WeChat's 服务器配置 form first"),
    (&[40243], "the AppSecret is frozen (已冻结); unfreeze it on the account's page at 微信开发者平台"),
    (&[41001], "the call came without an access_token; a proxy in between may have dropped the query"),
    (&[43004], "the user does not follow the account"),
    (&[43019], "the user is in the account's blacklist (黑名单); take them out in WeChat's console"),
    (&[44002, 44004, 47001], "the body is empty, or not what this call takes; see WeChat's page about it"),
    (&[45001], "the file is too large: pictures may have 10 MB, voice messages 2 MB, videos 10 MB"),
    (&[45002], "the text is too long: a customer-service message has 2048 bytes at most"),
    (&[45008], "a customer-service message takes exactly one article"),
    (&[45009], "the account's calls of today are used up; `aviary api POST /cgi-bin/clear_quota` with the AppID resets \
        them, 10 times a month, or wait for midnight in Beijing"),
    (&[45011], "too many calls in a minute; WeChat takes them again later"),
    (&[45015], "the user said nothing within the last 48 hours, or left; a message reaches them only after their next"),
    (&[45047], "the user got as many messages as WeChat allows after one of theirs; the next one comes through after their next"),
    (&[45072], "WeChat knows the commands `Typing` and `CancelTyping` only"),
    (&[48001, 50004], "this account has no right to this call: customer service, for one, needs a verified account (已认证)"),
    (&[48004, 50007], "WeChat has blocked this for the account; its console says why"),
    (&[48006], "the quota was reset as often as a month allows"),
    (&[61024], "use the access_token of the third-party platform for this account"),
    (&[89501, 89503], "the account's administrator has to confirm this machine's IP address, in the message that WeChat sent them"),
    (&[89506, 89507], "the account's administrator refused this machine's IP address; ask them, and try again later"),
];

/// Returns what to do about a code, if that is known. `message` is what WeChat said with it.
pub(super) fn of(code: i64, message: &str) -> Option<String> {
    if code == 40_164 {
        return Some(whitelist(message));
    }
    ADVICE.iter().find(|(codes, _)| codes.contains(&code)).map(|(_, advice)| (*advice).to_owned())
}

/// Codes that are about the account or this machine, and not about one call: only the operator can do anything.
const ABOUT_ACCOUNT: [i64; 18] = [
    40_013, 40_125, 40_164, 40_243, 41_001, 41_002, 41_004, 45_009, 45_011, 48_001, 48_004, 50_004, 50_007, 61_024,
    89_501, 89_503, 89_506, 89_507,
];

/// Whether a code is the operator's business, whoever made the call.
pub(crate) fn is_about_account(code: i64) -> bool {
    ABOUT_ACCOUNT.contains(&code)
}

/// WeChat says which address it saw, which no machine behind a router knows of itself.
fn whitelist(message: &str) -> String {
    let ip = message.split([' ', ',']).find_map(|word| word.parse::<IpAddr>().ok());
    let ip = ip.map_or_else(|| "this machine's address".to_owned(), |ip| ip.to_string());
    format!("add {ip} to the IP whitelist (IP白名单), on the account's page at 微信开发者平台")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_to_allow_is_the_one_that_wechat_saw() {
        for (message, ip) in [
            ("invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist rid: 6-7", "1.2.3.4"),
            ("invalid ip 2001:db8::1 ipv6 2001:db8::1, not in whitelist", "2001:db8::1"),
            ("not in whitelist", "this machine's address"),
        ] {
            let advice = of(40164, message).unwrap();
            assert!(advice.starts_with(&format!("add {ip} to the IP whitelist")), "{advice}");
        }
    }

    #[test]
    fn a_mistake_comes_with_its_way_out() {
        for (code, part) in [
            (40013, "`app_id`"),
            (40125, "`app_secret`"),
            (40243, "unfreeze"),
            (89503, "administrator"),
            (-1, "busy"),
            (45015, "48 hours"),
            (45047, "as many messages"),
            (45002, "2048 bytes"),
            (43004, "does not follow"),
            (43019, "blacklist"),
            (48001, "verified"),
            (40003, "no openid of this account's"),
            (45008, "one article"),
            (45009, "clear_quota"),
        ] {
            assert!(of(code, "").is_some_and(|advice| advice.contains(part)), "{code}");
        }
        assert_eq!(of(12345, "something new"), None);
    }

    #[test]
    fn each_code_has_one_advice() {
        let mut codes: Vec<i64> = ADVICE.iter().flat_map(|(codes, _)| codes.iter().copied()).collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
        assert!(ABOUT_ACCOUNT.into_iter().all(|code| of(code, "").is_some()));
    }
}
