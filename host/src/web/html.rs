//! The host's own pages: their frame, and the headers that keep them from being read, kept or framed by others.
//!
//! `maud` escapes all that is put into a page.

use std::sync::LazyLock;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::language::Language;

/// What all of the host's own pages look like.
const STYLE: &str = include_str!("page.css");

/// What a page does that a browser keeps: it hides when it is left, and asks anew when it is come back to.
const VEIL: &str = "addEventListener('pagehide',()=>{document.body.hidden=true});\
                    addEventListener('pageshow',event=>{if(event.persisted)location.reload()})";

/// Nothing but our style, pictures of WeChat's users, and forms that come back to us.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| policy(""));

/// The same, and the one script of a private page.
static PRIVATE_POLICY: LazyLock<HeaderValue> =
    LazyLock::new(|| policy(&format!("script-src 'sha256-{}'; ", STANDARD.encode(Sha256::digest(VEIL)))));

fn policy(scripts: &str) -> HeaderValue {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; {scripts}style-src 'sha256-{hash}'; img-src https://*.qlogo.cn; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'"
    );
    HeaderValue::try_from(policy).expect("it is ASCII")
}

/// A page of the host's own.
pub fn page(status: StatusCode, language: Language, title: &str, content: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang=(language.tag()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { div.card { (content) } } }
        }
    };
    let mut response = with_type(status, "text/html; charset=utf-8", page.into_string());
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    response.headers_mut().insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
    response
}

/// JSON for pages of this origin.
pub fn json(status: StatusCode, value: &Value) -> Response {
    with_type(status, "application/json", value.to_string())
}

/// A text.
pub fn text(text: String) -> Response {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", text)
}

/// Sends the visitor on.
pub fn redirect(status: StatusCode, url: &str) -> Response {
    let mut response = with_type(status, "text/plain; charset=utf-8", String::new());
    let url = HeaderValue::try_from(url).expect("a URL that was parsed and written out is ASCII");
    response.headers_mut().insert(header::LOCATION, url);
    response
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // An address may have a code of WeChat's in it.
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    guard(response.headers_mut());
    response
}

/// What every page has, a plugin's as well: it is what it says it is, stands in no frame, and belongs to one visitor.
pub fn guard(headers: &mut HeaderMap) {
    const GUARDS: [(HeaderName, &str); 5] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // A policy does not reach the names that a browser looks up for links nobody has tapped: a name can tell who looks.
        (header::X_DNS_PREFETCH_CONTROL, "off"),
    ];
    for (name, value) in GUARDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.append(header::VARY, HeaderValue::from_static("Cookie"));
}

/// Keeps a page from whoever comes after the visitor: a browser shows it again by its back button, however much it is `no-store`.
/// Its forms say where they come from: with `no-referrer` a browser calls that `null`.
pub fn private(mut response: Response) -> Response {
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, PRIVATE_POLICY.clone());
    response
}

/// The script of a private page.
pub fn veil() -> Markup {
    html! { script { (PreEscaped(VEIL)) } }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn what_is_put_into_a_page_is_text() {
        let title = "<script>alert(1)</script>";
        let response = page(StatusCode::OK, Language::English, title, &html! { p title="\"><b>" { "<i>" (title) } });
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = str::from_utf8(&body).unwrap();
        assert!(!body.contains("<script") && !body.contains("<b>") && !body.contains("<i>"), "{body}");
        assert!(body.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{body}");
    }
}
