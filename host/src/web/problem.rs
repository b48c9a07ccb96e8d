//! Why a visitor does not get what they asked for: one line for the operator, and words for the visitor.

use axum::http::{Method, StatusCode};

use super::language::Language;
use crate::{api::ApiError, foreign::quoted, store::kv};

/// Why. The text is for the operator, with what to do about it; [`Problem::words`] is for the visitor.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("there is no page at `{path}`")]
    Nowhere { path: String },
    #[error("account `{account}` has no domains, and so no pages; `accounts.{account}.oauth.domains` names them")]
    NoDomains { account: String },
    #[error(
        "a page was asked for under a name that is none of `accounts.{account}.oauth.domains`; if it is yours, add it there; \
         the server in front has to pass on the header `Host`"
    )]
    Domain { account: String },
    #[error("the method {method} has no meaning there")]
    Method { method: String, allowed: &'static [Method] },
    #[error("plugin `{plugin}` has pages, but no `pages` grant")]
    NotGranted { plugin: String },

    #[error("a link to a login asks for a scope that there is not; it may be snsapi_base or snsapi_userinfo")]
    Scope,
    #[error(
        "a login was to lead to an address outside `accounts.{account}.oauth.domains`; if it is yours, add its domain there"
    )]
    ReturnUrl { account: String },
    #[error(
        "a login's answer came without the cookie of the browser that it began in; the visitor's browser may keep none"
    )]
    NoBrowser,
    #[error(
        "a login's answer had a `state` that this host did not make for that browser and that address: it was forged, or begun elsewhere"
    )]
    Forged,
    #[error("a login took longer than `oauth.login_s`")]
    Expired,
    #[error("a login's `state` came once more with another code; each is good for one")]
    Used,
    #[error("a visitor did not consent")]
    Denied,
    #[error("WeChat did not take a visitor's code: {0}")]
    Code(ApiError),
    #[error("a visitor looked at a snapshot of the page (快照页), so WeChat gave a virtual user; nobody was signed in")]
    Snapshot,
    #[error("WeChat authorised less than the login asked for; look at the account's rights to 网页授权 in the console")]
    LessScope,
    #[error("WeChat's API did not help to sign a visitor in: {}", error.advised())]
    Api { error: ApiError },
    #[error(
        "`oauth.logins_max` answers to logins are remembered already, and more cannot be; raise it if this is no attack"
    )]
    LoginsFull,
    #[error(
        "`oauth.sessions_max` is {sessions_max}, and so many visitors of account `{account}` are signed in; raise it"
    )]
    SessionsFull { account: String, sessions_max: u64 },
    #[error("the store did not keep or find a session: {0}")]
    Store(kv::Error),
    #[error("a login broke off: see the lines above")]
    Broken,

    #[error("a visitor who is not signed in asked for a profile")]
    SignedOut,
    #[error("WeChat has ended a visitor's authorisation, so the session is over: {0}")]
    Ended(ApiError),
    #[error("a page of another site sent a request in a visitor's name; it was not carried out")]
    CrossSite,
    #[error("a JS-SDK signature was asked for an address outside `accounts.{account}.oauth.domains`")]
    NotOurPage { account: String },

    #[error("a request to a page is larger than `pages.body_bytes_max` ({bytes_max} bytes)")]
    TooLarge { bytes_max: usize },
    #[error("a request to a page broke off, or came too slowly")]
    Body,
    #[error(
        "`pages.answers_max` pages are being made or sent already, or half as many of one plugin; raise it if memory allows"
    )]
    Busy,
    #[error("the plugins are not loaded yet")]
    NotReady,
    #[error("plugin `{plugin}` is left alone for a while, because it kept failing")]
    Quarantined { plugin: String },
    #[error("a visitor asked plugin `{plugin}` more often than its `per_user` allows")]
    PerUser { plugin: String },
    #[error("plugin `{plugin}` made no page; another line says why")]
    Plugin { plugin: String },
}

impl Problem {
    /// There is nothing at a stranger's path.
    pub fn nowhere(path: &str) -> Self {
        Self::Nowhere { path: quoted(path) }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Nowhere { .. } | Self::NoDomains { .. } | Self::NotGranted { .. } => StatusCode::NOT_FOUND,
            Self::Domain { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Scope | Self::ReturnUrl { .. } | Self::NotOurPage { .. } | Self::Body => StatusCode::BAD_REQUEST,
            Self::NoBrowser | Self::Forged | Self::Expired | Self::Used | Self::Code(_) => StatusCode::BAD_REQUEST,
            Self::Denied | Self::Snapshot | Self::LessScope | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::SignedOut | Self::Ended(_) => StatusCode::UNAUTHORIZED,
            Self::Api { error: ApiError::Timeout { .. } | ApiError::Unreachable(_) } => StatusCode::GATEWAY_TIMEOUT,
            Self::Api { error: ApiError::NoTurn } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Api { .. } | Self::Plugin { .. } => StatusCode::BAD_GATEWAY,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::PerUser { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
            Self::LoginsFull | Self::SessionsFull { .. } | Self::Store(_) | Self::Busy => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::NotReady | Self::Quarantined { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// One word for each cause, as the metrics and the JSON have it.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Nowhere { .. } => "no_page",
            Self::NoDomains { .. } => "no_domains",
            Self::Domain { .. } => "domain",
            Self::Method { .. } => "page_method",
            Self::NotGranted { .. } => "not_granted",
            Self::Scope => "scope",
            Self::ReturnUrl { .. } => "return_url",
            Self::NoBrowser => "no_browser",
            Self::Forged => "state_forged",
            Self::Expired => "state_expired",
            Self::Used => "state_used",
            Self::Denied => "denied",
            Self::Code(_) => "code",
            Self::Snapshot => "snapshot",
            Self::LessScope => "less_scope",
            Self::Api { .. } => "api",
            Self::LoginsFull => "logins_full",
            Self::SessionsFull { .. } => "sessions_full",
            Self::Store(_) => "store",
            Self::Broken => "broken",
            Self::SignedOut => "signed_out",
            Self::Ended(_) => "ended",
            Self::CrossSite => "cross_site",
            Self::NotOurPage { .. } => "not_our_page",
            Self::TooLarge { .. } => "page_too_large",
            Self::Body => "page_body",
            Self::Busy => "busy",
            Self::NotReady => "not_ready",
            Self::Quarantined { .. } => "quarantined",
            Self::PerUser { .. } => "per_user",
            Self::Plugin { .. } => "plugin",
        }
    }

    /// Whether it is life as usual, and nobody has to do anything.
    pub fn is_usual(&self) -> bool {
        matches!(
            self,
            Self::Nowhere { .. }
                | Self::Method { .. }
                | Self::Expired
                | Self::Denied
                | Self::Snapshot
                | Self::SignedOut
                | Self::Ended(_)
                | Self::PerUser { .. }
        )
    }

    /// What the visitor reads: a title, and what to do.
    pub fn words(&self, language: Language) -> (&'static str, &'static str) {
        match self {
            Self::Nowhere { .. } | Self::NoDomains { .. } | Self::NotGranted { .. } | Self::Domain { .. } => language
                .choose(
                    ("页面不存在", "请检查链接，或从公众号菜单重新进入。"),
                    ("No such page", "Check the link, or open it again from the account's menu."),
                ),
            Self::Denied => language.choose(
                ("您没有同意授权", "没有授权就无法显示您的资料。如果是误点，可以再试一次。"),
                ("You did not agree", "Without your consent your profile cannot be shown. You can try again."),
            ),
            Self::Expired | Self::Used | Self::Code(_) | Self::Forged | Self::Broken => language.choose(
                ("登录链接已失效", "登录链接只能使用一次，且有时间限制。请重新登录。"),
                ("This sign-in link is over", "Such a link works once and for a short time. Please sign in again."),
            ),
            Self::NoBrowser => language.choose(
                ("无法确认您的浏览器", "请在微信中打开，并允许使用 Cookie，然后重新登录。"),
                ("Your browser was not recognised", "Open this page in WeChat, allow cookies, and sign in again."),
            ),
            Self::Snapshot => language.choose(
                ("当前为快照页", "请点击页面上的“使用完整服务”，然后重新登录。"),
                ("This is a snapshot", "Tap “使用完整服务” (full service) on the page, then sign in again."),
            ),
            Self::LessScope => language.choose(
                ("授权不完整", "微信没有提供您的资料。请重新登录并选择允许。"),
                ("Not all was authorised", "WeChat did not give your profile. Please sign in again and allow it."),
            ),
            // Without a turn, a visitor waited for those before them, and not for WeChat.
            Self::LoginsFull
            | Self::SessionsFull { .. }
            | Self::Store(_)
            | Self::Busy
            | Self::NotReady
            | Self::Api { error: ApiError::NoTurn } => language
                .choose(("服务繁忙", "请稍等片刻，然后再试一次。"), ("Busy", "Please wait a moment and try again.")),
            Self::Api { .. } => language.choose(
                ("微信暂时没有响应", "请稍等片刻，然后再试一次。"),
                ("WeChat does not answer", "Please wait a moment and try again."),
            ),
            Self::SignedOut | Self::Ended(_) => {
                language.choose(("您还没有登录", "请先登录。"), ("You are not signed in", "Please sign in first."))
            }
            Self::Scope | Self::ReturnUrl { .. } | Self::NotOurPage { .. } => language.choose(
                ("链接有误", "这个链接指向的地址不可用。"),
                ("This link is wrong", "It leads to an address that is not allowed."),
            ),
            Self::Method { .. } | Self::CrossSite | Self::Body => language.choose(
                ("请求无效", "请返回上一页，重新操作。"),
                ("That did not work", "Please go back and try again."),
            ),
            Self::TooLarge { .. } => {
                language.choose(("内容太大", "请减少内容后再试。"), ("That is too large", "Please send less."))
            }
            Self::PerUser { .. } => {
                language.choose(("操作太频繁", "请稍后再试。"), ("Too many requests", "Please try again later."))
            }
            Self::Plugin { .. } | Self::Quarantined { .. } => language.choose(
                ("页面暂时无法显示", "这个页面出了问题，请稍后再试。"),
                ("The page cannot be shown", "Something went wrong with it. Please try again later."),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_who_got_no_turn_is_not_told_that_wechat_is_slow() {
        let no_turn = Problem::Api { error: ApiError::NoTurn };
        assert_eq!((no_turn.status(), no_turn.words(Language::English).0), (StatusCode::SERVICE_UNAVAILABLE, "Busy"));
    }
}
