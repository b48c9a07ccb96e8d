//! Guests' way out: real plugins, real servers on loopback, and what must not happen between them.

use std::{io::Write, sync::Arc, time::Instant};

use aviary_host::{
    conversation::Conversation,
    egress::Egress,
    plugin::{Plugin, bindings::Reply, question::Question, services::Services},
};
use flate2::{Compression, write::GzEncoder};
use tokio::task::JoinSet;

use crate::{
    bot::{Bot, PATIENCE, Setup, new_header},
    log::Log,
    plugins::FETCHER,
    upstream::{Answer, Upstream, ok},
};

/// Both of the interfaces that a plugin can ask by.
const BOTH: [&str; 2] = ["ours", "wasi"];

/// A bot with the plugin `fetcher`, and with these grants, settings and files.
fn setup(grants: &str, settings: &str) -> Setup {
    Setup::new()
        .plugin("fetcher.wasm", &FETCHER)
        .settings(&format!("{settings}\n[plugins.fetcher.grants]\nhttp = [{grants}]"))
}

async fn bot(grants: &str, settings: &str) -> Bot {
    setup(grants, settings).start().await
}

/// A bot that trusts a server's certificate and finds it by a name.
async fn bot_with_tls(grants: &str, name: &str, upstream: &Upstream) -> Bot {
    let settings = format!("[http]\nca_file = \"ca.pem\"\nresolve = {{ \"{name}\" = \"{}\" }}", upstream.address);
    setup(grants, &settings).file("ca.pem", &upstream.ca_pem).start().await
}

/// Gives the plugin an order, and returns what it says.
async fn fetch(bot: &Bot, order: impl AsRef<str>) -> String {
    let dispatch = bot.asked(order.as_ref()).await;
    match dispatch.reply {
        Some(Reply::Text(said)) => said,
        _ => panic!("{:?} of {}", dispatch.steps, order.as_ref()),
    }
}

/// The first line of what the plugin says: status, length, body.
fn first(said: &str) -> &str {
    said.lines().next().unwrap_or_default()
}

/// Whether the plugin was told that nothing came in time, in any of the ways there are.
fn is_timeout(said: &str) -> bool {
    ["Error::Timeout", "ErrorCode::HttpResponseTimeout", "HTTP response timeout"].contains(&said)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("it is in memory");
    encoder.finish().expect("it is in memory")
}

#[tokio::test]
async fn without_a_grant_nothing_is_reached_and_the_plugin_learns_which_is_missing() {
    let upstream = Upstream::plain(|_| ok("", "never")).await;
    let bot = bot("", "").await;
    let origin = upstream.origin();
    assert_eq!(
        fetch(&bot, format!("ours GET {origin}/v1?key=secret7")).await,
        format!(
            "Error::Denied(\"plugin `fetcher` may not reach `{origin}`; add it to its grants: http = [\\\"{origin}\\\"]\")"
        )
    );
    assert_eq!(
        fetch(&bot, "ours GET https://api.example.com/").await,
        "Error::Denied(\"plugin `fetcher` may not reach `https://api.example.com`; add it to its grants: \
         http = [\\\"api.example.com\\\"]\")"
    );
    assert_eq!(fetch(&bot, format!("wasi GET {origin}/")).await, "ErrorCode::HttpRequestDenied");
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_granted_host_is_reached_by_both_interfaces() {
    let upstream = Upstream::tls("api.example.com", |_| ok("x-city: beijing\r\nkeep-alive: 5\r\n", "晴")).await;
    let bot = bot_with_tls("\"api.example.com\"", "api.example.com", &upstream).await;
    for by in BOTH {
        let said = fetch(&bot, format!("{by} POST https://API.example.com./v1?city=北京 x-a=1 | 你好")).await;
        assert_eq!(said, "200 3 晴\ncontent-length: 3\nx-city: beijing", "{by}");
        let request = upstream.requests().pop().unwrap();
        assert!(request.starts_with("POST /v1?city=%E5%8C%97%E4%BA%AC HTTP/1.1\r\n"), "{request}");
        for line in
            ["host: api.example.com\r\n", "x-a: 1\r\n", "accept-encoding: gzip, deflate\r\n", "user-agent: aviary/"]
        {
            assert_eq!(request.matches(line).count(), 1, "{line} in {request}");
        }
        assert!(request.contains("你好"), "{request}");
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let upstream = Upstream::tls("api.example.com", |_| ok("", "never")).await;
    let resolve = format!("[http]\nresolve = {{ \"api.example.com\" = \"{}\" }}", upstream.address);
    let bot = bot("\"api.example.com\"", &resolve).await;
    let said = fetch(&bot, "ours GET https://api.example.com/?secret7").await;
    assert!(said.starts_with("Error::Unreachable(\"cannot reach https://api.example.com: invalid peer cert"), "{said}");
    let said = fetch(&bot, "wasi GET https://api.example.com/").await;
    assert!(said.contains("InternalError") && said.contains("invalid peer cert"), "{said}");
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let upstream = Upstream::tls("other.example.com", |_| ok("", "never")).await;
    let bot = bot_with_tls("\"api.example.com\"", "api.example.com", &upstream).await;
    let said = fetch(&bot, "ours GET https://api.example.com/").await;
    assert!(said.starts_with("Error::Unreachable("), "{said}");
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_granted_key_cannot_be_read_in_parts() {
    let upstream = Upstream::plain(|request| ok("", request)).await;
    let url = upstream.origin();
    let grant = format!("{{ url = \"{url}\", headers = {{ authorization = \"Bearer sk-secret7\" }} }}");
    let (keyed, plain) = (bot(&grant, "").await, bot(&format!("\"{url}\""), "").await);
    for by in BOTH {
        let order = format!("{by} GET {url}/ range=bytes=0-3 if-range=x");
        let said = fetch(&keyed, &order).await;
        assert!(said.starts_with("200 ") && !said.contains("range:"), "{said}");
        let said = fetch(&plain, &order).await;
        assert!(said.contains("\nrange: bytes=0-3") && said.contains("\nif-range: x"), "{said}");
    }
}

#[tokio::test]
async fn a_granted_key_is_added_on_the_way_out_and_removed_on_the_way_back() {
    let upstream = Upstream::plain(|request| match request.contains("packed") {
        true => ok("content-encoding: gzip\r\n", gzip(request.as_bytes())),
        false => ok("x-echo: Bearer sk-secret7\r\n", request),
    })
    .await;
    let url = upstream.origin();
    let grant = format!("{{ url = \"{url}\", headers = {{ authorization = \"Bearer sk-secret7\" }} }}");
    let bot = bot(&grant, "").await;
    for (by, path) in BOTH.into_iter().flat_map(|by| [(by, "/"), (by, "/packed")]) {
        let said = fetch(&bot, format!("{by} GET {url}{path} authorization=guess accept-encoding=br")).await;
        assert!(said.starts_with("200 ") && said.contains("authorization: [redacted]"), "{said}");
        assert!(!said.contains("secret7") && !said.contains("guess") && !said.contains("content-encoding"), "{said}");
        assert!(path == "/packed" || said.contains("x-echo: [redacted]"), "{said}");
        let request = upstream.requests().pop().unwrap();
        assert!(request.contains("authorization: Bearer sk-secret7\r\n") && !request.contains("guess"), "{request}");
    }
}

#[tokio::test]
async fn a_key_is_not_given_away_by_an_answer_packed_in_an_unknown_way() {
    let upstream = Upstream::plain(|_| ok("content-encoding: br\r\n", "key: sk-secret7")).await;
    let url = upstream.origin();
    let grant = format!("{{ url = \"{url}\", headers = {{ x-api-key = \"sk-secret7\" }} }}");
    let bot = bot(&grant, "").await;
    for by in BOTH {
        let said = fetch(&bot, format!("{by} GET {url}/")).await;
        assert!(said.contains("cannot be found and removed") && !said.contains("secret7"), "{said}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_its_goal_is_no_nearer() {
    let goal = "http://169.254.169.254/latest/meta-data/";
    let upstream = Upstream::plain(move |_| {
        Answer::Bytes(format!("HTTP/1.1 302 Found\r\nlocation: {goal}\r\ncontent-length: 0\r\n\r\n").into_bytes())
    })
    .await;
    let url = upstream.origin();
    let bot = bot(&format!("\"{url}\""), "").await;
    for by in BOTH {
        let said = fetch(&bot, format!("{by} GET {url}/")).await;
        assert_eq!(said, format!("302 0 \ncontent-length: 0\nlocation: {goal}"));
        assert!(fetch(&bot, format!("{by} GET {goal}")).await.contains("Denied"));
    }
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_name_that_leads_into_the_own_network_is_refused_unless_the_grant_says_so() {
    let upstream = Upstream::plain(|_| ok("", "inside")).await;
    let url = format!("http://localhost:{}", upstream.address.port());
    let open = bot(&format!("\"{url}\""), "").await;
    assert_eq!(
        fetch(&open, format!("ours GET {url}/")).await,
        format!(
            "Error::Denied(\"plugin `fetcher` may not reach `{url}`: the name leads to a private address; if that is \
             meant, grant it as {{ url = \\\"{url}\\\", private = true }}\")"
        )
    );
    assert_eq!(fetch(&open, format!("wasi GET {url}/")).await, "ErrorCode::HttpRequestDenied");
    assert_eq!(upstream.connections(), 0);

    let private = bot(&format!("{{ url = \"{url}\", private = true }}"), "").await;
    for by in BOTH {
        assert_eq!(first(&fetch(&private, format!("{by} GET {url}/")).await), "200 6 inside");
    }
}

#[tokio::test]
async fn an_address_is_reached_by_a_grant_of_that_address_only() {
    let upstream = Upstream::plain(|_| ok("", "inside")).await;
    let (url, port) = (upstream.origin(), upstream.address.port());
    let bot = bot(&format!("\"{url}\""), "").await;
    assert_eq!(first(&fetch(&bot, format!("ours GET {url}/")).await), "200 6 inside");
    for other in ["0x7f.1", "2130706433", "127.1", "127.0.0.2", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0"] {
        for by in BOTH {
            let said = fetch(&bot, format!("{by} GET http://{other}:{port}/")).await;
            assert!(["Denied", "Invalid"].iter().any(|refused| said.contains(refused)), "{by} {other}: {said}");
        }
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_url_that_looks_like_another_leads_nowhere() {
    let evil = Upstream::plain(|_| ok("", "evil")).await;
    let good = Upstream::plain(|_| ok("", "good")).await;
    let (allowed, denied) = (good.address, evil.address);
    let bot = bot(&format!("\"http://{allowed}\""), "").await;
    for by in BOTH {
        for url in [
            format!("http://{allowed}@{denied}/"),
            format!("http://{allowed}\\@{denied}/"),
            format!("http://user:{allowed}@{denied}/"),
            format!("http:///{denied}/"),
            format!("http://{allowed}.{denied}/"),
            format!("https://{allowed}/"),
            format!("ftp://{allowed}/"),
            format!("http://{allowed}\t/"),
        ] {
            let said = fetch(&bot, format!("{by} GET {url}")).await;
            assert!(!said.starts_with("200"), "{by} {url}: {said}");
        }
        for order in [
            format!("{by} CONNECT http://{allowed}/"),
            format!("{by} get http://{allowed}/"),
            format!("{by} GET http://{allowed}/ host={denied}"),
            format!("{by} GET http://{allowed}/ Connection=close"),
            format!("{by} GET http://{allowed}/ transfer-encoding=chunked"),
            format!("{by} GET http://{allowed}/ expect=100-continue"),
        ] {
            let said = fetch(&bot, &order).await;
            assert!(!said.starts_with("200"), "{order}: {said}");
        }
    }
    assert_eq!((evil.connections(), good.connections()), (0, 0));
}

#[tokio::test]
async fn a_length_that_the_body_does_not_have_never_frames_a_request() {
    let upstream = Upstream::plain(|_| ok("", "ok")).await;
    let url = upstream.origin();
    let bot = bot(&format!("\"{url}\""), "").await;
    let said = fetch(&bot, format!("ours POST {url}/ content-length=1 | abc")).await;
    assert_eq!(said, "Error::Invalid(\"the header `content-length` is the host's to write\")");
    assert_eq!(first(&fetch(&bot, format!("wasi POST {url}/ content-length=3 | abc")).await), "200 2 ok");
    for (length, sent) in [("1", &["\r\n\r\na"][..]), ("9", &[]), ("+3", &[])] {
        let before = upstream.requests().len();
        fetch(&bot, format!("wasi POST {url}/ content-length={length} | abc")).await;
        let requests = upstream.requests().split_off(before);
        assert!(
            requests.len() == sent.len() && requests.iter().zip(sent).all(|(is, end)| is.ends_with(end)),
            "{requests:?}"
        );
    }
    // Nobody gets a connection on which it is open where a request ends.
    assert_eq!(first(&fetch(&bot, format!("wasi POST {url}/ | abc")).await), "200 2 ok");
    assert!(upstream.requests().last().is_some_and(|request| request.ends_with("3\r\nabc\r\n0\r\n\r\n")));
}

#[tokio::test]
async fn a_body_that_drips_ends_with_the_time() {
    let upstream =
        Upstream::plain(|_| Answer::Drip(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nx".to_vec())).await;
    let url = upstream.origin();
    let bot = bot(&format!("\"{url}\""), "[plugins.fetcher.limits]\ntimeout_ms = 1500").await;
    assert_eq!(fetch(&bot, format!("ours GET {url}/ timeout=300")).await, "Error::Timeout");
    // Without a time of its own the exchange ends with the call, if the guest is quick enough just before.
    for by in BOTH {
        match bot.asked(&format!("{by} GET {url}/")).await.reply {
            Some(Reply::Text(said)) => assert!(is_timeout(&said), "{said}"),
            other => assert!(other.is_none(), "{other:?}"),
        }
    }
    upstream.all_closed().await;
}

#[tokio::test]
async fn a_server_that_says_nothing_ends_with_the_guests_time() {
    for said in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"] {
        let upstream = Upstream::plain(move |_| Answer::Stop(said.to_vec())).await;
        let url = upstream.origin();
        let bot = bot(&format!("\"{url}\""), "").await;
        assert_eq!(fetch(&bot, format!("ours GET {url}/ timeout=200")).await, "Error::Timeout");
        let said_of_it = fetch(&bot, format!("wasi GET {url}/ timeout=200")).await;
        assert!(is_timeout(&said_of_it), "{said_of_it}");
        upstream.all_closed().await;
    }
}

#[tokio::test]
async fn a_body_or_header_over_its_bound_ends_the_exchange() {
    let large = vec![b'x'; (1 << 20) + 1];
    let bomb = gzip(&vec![0; 100 << 20]);
    assert!(bomb.len() < 1 << 20);
    let upstream = Upstream::plain(move |request| match request.split(' ').nth(1) {
        Some("/known") => ok("", &large),
        Some("/unknown") => Answer::Close([b"HTTP/1.1 200 OK\r\n\r\n", &large[..]].concat()),
        Some("/bomb") => ok("content-encoding: gzip\r\n", &bomb),
        Some("/fits") => ok("", &large[1..]),
        Some("/packed") => ok("content-encoding: gzip\r\n", gzip(b"hello")),
        Some("/cut") => ok("content-encoding: gzip\r\n", &gzip(b"hello")[..9]),
        _ => ok(&format!("x-long: {}\r\n", "x".repeat(9_000)), ""),
    })
    .await;
    let url = upstream.origin();
    let settings = "[http]\nbody_mib_max = 1\nheader_bytes_max = 8192\n[limits]\nhost_data_mib = 16";
    let bot = bot(&format!("\"{url}\""), settings).await;
    for path in ["/known", "/unknown", "/bomb"] {
        assert_eq!(fetch(&bot, format!("ours GET {url}{path}")).await, "Error::TooLarge(1048576)", "{path}");
        let said = fetch(&bot, format!("wasi GET {url}{path}")).await;
        // wasmtime names what goes wrong in mid-body otherwise than before it.
        assert!(
            said.contains("HttpResponseBodySize(Some(1048576))") || said.contains("1048576 bytes"),
            "{path}: {said}"
        );
    }
    for by in BOTH {
        assert!(fetch(&bot, format!("{by} GET {url}/fits")).await.starts_with("200 1048576 "));
        assert_eq!(fetch(&bot, format!("{by} GET {url}/packed")).await, "200 5 hello");
        assert!(fetch(&bot, format!("{by} GET {url}/cut")).await.contains("not packed as its header says"));
        let said = fetch(&bot, format!("{by} GET {url}/header")).await;
        assert!(said.contains("broke off: message head is too large"), "{said}");
        let before = upstream.requests().len();
        let said = fetch(&bot, format!("{by} POST {url}/fits | 2MB")).await;
        assert!(!said.starts_with("200"), "{said}");
        assert_eq!(upstream.requests().len(), before);
    }
    upstream.all_closed().await;
}

#[tokio::test]
async fn a_connection_serves_again_under_the_same_policy() {
    let upstream = Upstream::plain(|request| match request.contains("/last") {
        true => Answer::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()),
        false => ok("", "ok"),
    })
    .await;
    let port = upstream.address.port();
    let url = format!("http://localhost:{port}");
    let bot = setup(&format!("{{ url = \"{url}\", private = true }}"), "")
        .plugin("other.wasm", &FETCHER)
        .settings(&format!(
            "[plugins.fetcher]\nmatch = [{{ contains = \"/\" }}]\n[plugins.other]\nmatch = [{{ contains = \"//localhost\" }}]\n\
             [plugins.other.grants]\nhttp = [\"{url}\"]"
        ))
        .start()
        .await;
    for order in ["ours GET", "wasi GET", "ours POST", "wasi GET"] {
        assert_eq!(first(&fetch(&bot, format!("{order} {url}/")).await), "200 2 ok");
    }
    assert_eq!(upstream.connections(), 1);
    // What the other side closes is replaced, and nobody notices.
    for path in ["/last", "/", "/last", "/"] {
        assert_eq!(first(&fetch(&bot, format!("ours GET {url}{path}")).await), "200 2 ok");
    }
    assert_eq!(upstream.connections(), 3);
    // An open connection does not lend its policy: this plugin may not have it.
    let chain = bot.app.live().named("main").expect("it is there").chain.clone();
    let other = chain.plugins.iter().find(|plugin| &*plugin.name == "other").expect("it is loaded");
    let answer = call(other, &format!("ours GET {url}/")).await;
    assert!(answer.contains("leads to a private address"), "{answer}");
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_after_a_while() {
    for idle_timeout_ms in [0, 100] {
        let upstream = Upstream::plain(|_| ok("", "ok")).await;
        let url = upstream.origin();
        let bot = bot(&format!("\"{url}\""), &format!("[http]\nidle_timeout_ms = {idle_timeout_ms}")).await;
        assert_eq!(first(&fetch(&bot, format!("ours GET {url}/")).await), "200 2 ok");
        upstream.all_closed().await;
    }
}

#[tokio::test]
async fn no_log_has_a_query_or_a_granted_key() {
    let log = Log::capture();
    let upstream = Upstream::plain(|request| ok("", request)).await;
    let url = upstream.origin();
    let bot = bot(&format!("{{ url = \"{url}\", headers = {{ x-key = \"sk-secret7\" }} }}"), "").await;
    for by in BOTH {
        for target in [&*url, "http://127.0.0.1:1", "http://user:secret7@evil", "https://evil.example.com"] {
            fetch(&bot, format!("{by} GET {target}/secret7?secret7 authorization=secret7 | secret7")).await;
        }
    }
    assert_eq!(log.lines("Plugin `fetcher` may not reach `http://127.0.0.1:1`; add it to its grants").len(), 1);
    assert_eq!(log.lines("secret7"), [""; 0]);
}

#[tokio::test]
async fn requests_to_one_host_wait_for_their_turn() {
    let upstream = Upstream::plain(|request| match request.contains("/stuck") {
        true => Answer::Stop(Vec::new()),
        false => ok("", "ok"),
    })
    .await;
    let url = upstream.origin();
    let bot = bot(&format!("\"{url}\""), "[http]\nconnections_per_host_max = 1").await;
    let stuck = fetch(&bot, format!("ours GET {url}/stuck timeout=3000"));
    let waiting = async {
        while upstream.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        fetch(&bot, format!("ours GET {url}/ timeout=100")).await
    };
    let (stuck, waiting) = tokio::join!(stuck, waiting);
    assert_eq!((&*stuck, &*waiting), ("Error::Timeout", "Error::Timeout"));
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(first(&fetch(&bot, format!("ours GET {url}/")).await), "200 2 ok");
}

/// A bot whose `POST` orders go to another plugin than its other orders, both with a grant for these servers.
fn setup_of_two(upstreams: [&Upstream; 2], http: &str) -> Setup {
    let [one, other] = upstreams.map(Upstream::origin);
    setup(&format!("\"{one}\", \"{other}\""), &format!("[http]\n{http}")).plugin("10-other.wasm", &FETCHER).settings(
        &format!(
            "[plugins.other]\nmatch = [{{ type = \"text\", starts_with = \"ours POST\" }}]\n\
             grants = {{ http = [\"{one}\", \"{other}\"] }}"
        ),
    )
}

/// Lets the first plugin wait for a server that says nothing, and meanwhile something else happen.
async fn while_one_is_stuck(bot: &Bot, upstream: &Upstream, meanwhile: impl Future<Output = ()>) {
    let meanwhile = async {
        while upstream.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        meanwhile.await;
    };
    tokio::select! {
        said = fetch(bot, format!("ours GET {}/stuck", upstream.origin())) => panic!("it is stuck: {said}"),
        () = meanwhile => (),
    }
}

#[tokio::test]
async fn all_requests_together_wait_for_their_turn() {
    let stuck = Upstream::plain(|_| Answer::Stop(Vec::new())).await;
    let other = Upstream::plain(|_| ok("", "ok")).await;
    let bot = setup_of_two([&stuck, &other], "connections_max = 1").start().await;
    while_one_is_stuck(&bot, &stuck, async {
        let said = fetch(&bot, format!("ours POST {}/ timeout=100", other.origin())).await;
        assert_eq!(said, "Error::Timeout");
        assert!(other.requests().is_empty());
    })
    .await;
    assert_eq!(first(&fetch(&bot, format!("ours POST {}/", other.origin())).await), "200 2 ok");
}

#[tokio::test]
async fn a_plugin_with_half_of_the_connections_waits_for_itself_and_leaves_the_others_theirs() {
    let log = Log::capture();
    let stuck = Upstream::plain(|_| Answer::Stop(Vec::new())).await;
    let other = Upstream::plain(|_| ok("", "ok")).await;
    let bot = setup_of_two([&stuck, &other], "connections_max = 2").start().await;
    while_one_is_stuck(&bot, &stuck, async {
        assert_eq!(fetch(&bot, format!("ours GET {}/ timeout=100", other.origin())).await, "Error::Timeout");
        assert!(other.requests().is_empty());
        assert_eq!(first(&fetch(&bot, format!("ours POST {}/", other.origin())).await), "200 2 ok");
    })
    .await;
    let told = log.lines("Plugin `fetcher` of account `main` has as many requests on their way as one plugin may");
    assert_eq!(told.len(), 1);
}

/// 4 MiB of which the last byte never comes.
fn nearly_4_mib() -> Answer {
    let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 4194304\r\n\r\n".to_vec();
    bytes.resize(bytes.len() + 4_194_303, b'x');
    Answer::Stop(bytes)
}

#[tokio::test]
async fn a_plugin_whose_answers_take_half_of_the_room_gets_no_more_and_leaves_the_others_theirs() {
    let stuck = Upstream::plain(|_| nearly_4_mib()).await;
    let other = Upstream::plain(|_| ok("", vec![b'x'; 4_194_304])).await;
    let bot = Arc::new(setup_of_two([&stuck, &other], "answers_mib_max = 64").start().await);
    let mut waiting = JoinSet::new();
    for _ in 0..9 {
        let (bot, order) = (bot.clone(), format!("ours GET {}/", stuck.origin()));
        waiting.spawn(async move { fetch(&bot, order).await });
    }
    // Eight have room for all that came of their answers.
    let said = waiting.join_next().await.unwrap().unwrap();
    assert!(
        said.starts_with("Error::Unreachable(\"the answers to this plugin take half of `http.answers_mib_max`"),
        "{said}"
    );
    let said = fetch(&bot, format!("ours POST {}/", other.origin())).await;
    assert!(said.starts_with("200 4194304 x"), "{}", first(&said));
}

#[tokio::test]
async fn answers_that_the_host_has_no_room_for_are_cut_off() {
    let stuck = Upstream::plain(|_| nearly_4_mib()).await;
    let other = Upstream::plain(|_| ok("", "never")).await;
    // With such bodies, half of the room would be too little for one plugin.
    let room = "answers_mib_max = 64\nbody_mib_max = 64";
    let bot = Arc::new(setup_of_two([&stuck, &other], room).start().await);
    let mut waiting = JoinSet::new();
    for order in ["ours GET", "ours POST"].iter().cycle().take(17) {
        let (bot, order) = (bot.clone(), format!("{order} {}/", stuck.origin()));
        waiting.spawn(async move { fetch(&bot, order).await });
    }
    let said = waiting.join_next().await.unwrap().unwrap();
    assert!(said.starts_with("Error::Unreachable(\"the host holds too many answers at the moment"), "{said}");
}

#[tokio::test]
async fn a_proxy_passes_public_names_on_and_nothing_else() {
    let upstream = Upstream::tls("api.example.com", |_| ok("", "behind")).await;
    let inside = Upstream::plain(|_| ok("", "inside")).await;
    let tunnel_to = upstream.address;
    let proxy = Upstream::plain(move |request| match request {
        tls if tls.starts_with("CONNECT api.example.com:443 HTTP/1.1\r\n") => Answer::Tunnel(tunnel_to),
        plain if plain.starts_with("GET http://plain.example.com/v1?a HTTP/1.1\r\n") => ok("", "plain"),
        _ => Answer::Close(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_vec()),
    })
    .await;
    let (inside_url, port) = (inside.origin(), inside.address.port());
    let grants = format!(
        "\"*.example.com\", \"http://plain.example.com\", \"{inside_url}\", \"http://localhost:{port}\", \
         \"http://metadata.internal\""
    );
    let settings = format!("[http]\nproxy = \"http://user:pass%20word7@{}\"\nca_file = \"ca.pem\"", proxy.address);
    let bot = setup(&grants, &settings).file("ca.pem", &upstream.ca_pem).start().await;
    for by in BOTH {
        assert_eq!(first(&fetch(&bot, format!("{by} GET https://api.example.com/")).await), "200 6 behind");
        assert_eq!(first(&fetch(&bot, format!("{by} GET http://plain.example.com/v1?a")).await), "200 5 plain");
        assert_eq!(first(&fetch(&bot, format!("{by} GET {inside_url}/")).await), "200 6 inside");
        let said = fetch(&bot, format!("{by} GET https://other.example.com/")).await;
        assert!(said.contains("the proxy (`http.proxy`): it answered \\\"403\\\" to CONNECT"), "{said}");
        for local in [format!("http://localhost:{port}/"), "http://metadata.internal/".to_owned()] {
            assert!(fetch(&bot, format!("{by} GET {local}")).await.contains("Denied"));
        }
    }
    let requests = proxy.requests();
    assert!(requests.iter().all(|request| !request.contains("localhost") && !request.contains("internal")));
    assert!(
        requests
            .iter()
            .all(|request| request.to_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnzihdvcmq3"))
    );
    assert!(upstream.requests().iter().all(|request| !request.to_lowercase().contains("proxy")));
}

#[tokio::test]
async fn changed_settings_count_for_the_next_request() {
    let (one, two) = (Upstream::plain(|_| ok("", "one")).await, Upstream::plain(|_| ok("", "two")).await);
    let resolve =
        |upstream: &Upstream| format!("[http]\nresolve = {{ \"a.example.com\" = \"{}\" }}\n", upstream.address);
    let bot = bot("\"http://a.example.com\"", &resolve(&one)).await;
    assert_eq!(first(&fetch(&bot, "ours GET http://a.example.com/").await), "200 3 one");
    let file = bot.dir().join("aviary.toml");
    let toml = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, toml.replace(&one.address.to_string(), &two.address.to_string())).unwrap();
    assert!(bot.app.reload().await.changed);
    assert_eq!(first(&fetch(&bot, "ours GET http://a.example.com/").await), "200 3 two");
}

#[tokio::test]
async fn a_conversation_file_is_the_network_of_those_who_play_it() {
    let upstream = Upstream::plain(|_| ok("", "real")).await;
    let url = upstream.origin();
    let bot = bot(&format!("\"{url}\""), "").await;
    let chain = bot.app.live().named("main").expect("it is there").chain.clone();
    let plugin = &chain.plugins[0];
    let file = "! GET https://api.example.com/v1?a=b -> 201 {\"city\":\"北京\"} after 10ms\n";
    let exchanges = Conversation::parse(file).expect("it is in the notation").exchanges;
    let played = Plugin {
        name: plugin.name.clone(),
        account: plugin.account.clone(),
        file: plugin.file.clone(),
        code: plugin.code.clone(),
        settings: plugin.settings.clone(),
        lanes: plugin.lanes.clone(),
        api: None,
        services: Services { egress: Egress::played(exchanges), ..Services::clone(&plugin.services) }.into(),
        record: aviary_host::plugin::record::Record::default(),
    };
    for by in BOTH {
        let said = call(&played, &format!("{by} GET https://api.example.com/v1?a=b")).await;
        assert_eq!(said, "201 17 {\"city\":\"北京\"}\ncontent-type: application/json");
        assert!(call(&played, &format!("{by} GET {url}/")).await.contains("Denied"));
    }
    let said = call(&played, "ours POST https://api.example.com/v1").await;
    assert!(said.contains("`! POST https://api.example.com/v1 -> 200 …`"), "{said}");
    assert_eq!(upstream.connections(), 0);
}

/// Gives one plugin an order, without a chain around it.
async fn call(plugin: &Plugin, order: &str) -> String {
    let said = aviary_host::conversation::Said::parse(order).expect("it is in the notation");
    let question = Question::read("main", said.to_xml(&new_header())).expect("the notation writes messages");
    match plugin.call(&question, Instant::now() + PATIENCE).await.answer {
        Ok(Some(Reply::Text(said))) => said,
        other => panic!("{other:?}"),
    }
}
