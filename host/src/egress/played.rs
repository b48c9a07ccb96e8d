//! A network that is written down: the exchanges of a conversation file.

use std::sync::{Mutex, PoisonError};

use hyper::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use tokio::time::{sleep, timeout_at};

use super::{Answer, NoAnswer, Request, Waits, target::Target};
use crate::conversation::Exchange;

/// How large headers may be where no setting says it.
pub(super) const HEADER_BYTES_MAX: usize = 65_536;

/// Exchanges, each played once in the order of the file; the last of the same request again and again.
#[derive(Debug)]
pub struct Played {
    exchanges: Vec<(Target, Exchange)>,
    /// Which were played.
    played: Mutex<Vec<bool>>,
}

impl Played {
    pub(super) fn new(exchanges: Vec<Exchange>) -> Self {
        // A URL that is none is asked for by nobody.
        let exchanges =
            exchanges.into_iter().filter_map(|exchange| Some((Target::parse(&exchange.url).ok()?, exchange)));
        let exchanges: Vec<_> = exchanges.collect();
        Self { played: Mutex::new(vec![false; exchanges.len()]), exchanges }
    }

    /// Finds the exchange that a request is the beginning of.
    pub(super) fn find(&self, request: &Request) -> Result<&Exchange, NoAnswer> {
        self.next(request).ok_or_else(|| {
            let (method, url) = (&request.method, request.target.origin());
            NoAnswer::Denied(format!(
                "meets no network here, only what is written down: a line `! {method} {url}{} -> 200 …` in the \
                 conversation file",
                request.target.path_and_query
            ))
        })
    }

    /// Gives an exchange's answer, after its time.
    pub(super) async fn answer(exchange: &Exchange, waits: Waits) -> Result<Answer, NoAnswer> {
        let wait = timeout_at(waits.deadline.into(), sleep(exchange.after)).await;
        wait.map_err(|_| NoAnswer::Timeout)?;
        let status = StatusCode::from_u16(exchange.status).map_err(|error| NoAnswer::Invalid(error.to_string()))?;
        let is_json = exchange.body.starts_with(['{', '[']);
        let content_type = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Ok(Answer::here(status, headers, exchange.body.clone().into(), waits))
    }

    fn next(&self, request: &Request) -> Option<&Exchange> {
        let mut played = self.played.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(target, exchange): &(Target, Exchange)| {
            *target == request.target && exchange.method == request.method.as_str()
        };
        let fitting: Vec<usize> =
            self.exchanges.iter().enumerate().filter(|(_, exchange)| fits(exchange)).map(|(index, _)| index).collect();
        let index = fitting.iter().find(|index| !played[**index]).or(fitting.last()).copied()?;
        played[index] = true;
        Some(&self.exchanges[index].1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{
        conversation::Conversation,
        egress::{Egress, request},
    };

    async fn ask(egress: &Egress, method: &str, url: &str, time: Duration) -> Result<String, NoAnswer> {
        let request = Request::new(method, url, HeaderMap::new(), request::whole(None))?;
        let waits = Waits::of_call(Instant::now() + time, None);
        let answer = egress.send(None, &[], request, waits).await?;
        let status = answer.status.as_u16();
        Ok(format!("{status} {}", String::from_utf8_lossy(&answer.body.whole().await?.bytes)))
    }

    #[tokio::test]
    async fn what_is_written_down_is_played_without_a_grant_and_nothing_else() {
        let file = "! GET https://A.example.com/x?y -> 200 {\"a\":1}\n! POST http://b -> 500\n\
                    ! GET https://c/ -> 200 one\n! GET https://c/ -> 404 two\n! GET https://d/ -> 200 x after 50ms\n! GET https://e/ -> 200 x after 600s\n";
        let egress = Egress::played(Conversation::parse(file).unwrap().exchanges);
        let minute = Duration::from_secs(60);
        assert_eq!(ask(&egress, "GET", "https://a.example.com/x?y", minute).await.unwrap(), "200 {\"a\":1}");
        assert_eq!(ask(&egress, "POST", "http://b/", minute).await.unwrap(), "500 ");
        for expected in ["200 one", "404 two", "404 two"] {
            assert_eq!(ask(&egress, "GET", "https://c", minute).await.unwrap(), expected);
        }
        assert_eq!(ask(&egress, "GET", "https://d", minute).await.unwrap(), "200 x");
        assert!(matches!(ask(&egress, "GET", "https://e", Duration::from_millis(50)).await, Err(NoAnswer::Timeout)));
        for (method, url) in [("GET", "http://b/"), ("GET", "https://a.example.com/x"), ("GET", "https://evil/")] {
            let Err(NoAnswer::Denied(reason)) = ask(&egress, method, url, minute).await else { panic!("{url}") };
            assert!(reason.contains(&format!("`! {method} {url} -> 200 …`")), "{reason}");
        }
    }
}
