//! The contract in `wit/`: what was published stays, and the host keeps all of it.

use std::fs;

use aviary_host::plugin::{Hash, bindings::COMPONENT_TYPE};

use crate::{
    bot::{Bot, Setup},
    plugins::{MISBEHAVE, workspace},
};

/// The SHA-256 of what `aviary:bot@0.1.0` was published as.
const PUBLISHED: [(&str, &str); 2] = [
    ("types.wit", "3c41e7f79590cd20ab89e541a0739f919ed09b944194d0dc871465be68e1ad78"),
    ("handler.wit", "fe73f740a55eab02843917b652a810f0d54b247bc514e4dfc1d09eabcf028981"),
];

#[test]
fn the_published_text_of_types_and_handler_never_changes() {
    for (file, published) in PUBLISHED {
        let text = fs::read_to_string(workspace().join("wit").join(file)).unwrap();
        // Git may write other line ends.
        let hash = Hash::of(text.replace("\r\n", "\n").as_bytes()).to_string();
        assert_eq!(
            hash, published,
            "wit/{file} is not what was published. Bots that people have built carry this text's types in them, and a \
             record or variant that differs, even by one case at its end, keeps them from loading. Inside 0.1 nothing \
             of `types` and `handler` changes, ever: take the change back, and put what is new into a file of its own \
             (a new interface) or a new version of the package."
        );
    }
}

#[test]
fn the_bindings_were_made_from_the_world_that_is_published() {
    let decoded = wit_component::decode(COMPONENT_TYPE).unwrap();
    let resolve = decoded.resolve();
    let (_, world) = resolve.worlds.iter().find(|(_, world)| world.name == "bot").unwrap();
    let imports: Vec<String> = world.imports.keys().map(|key| resolve.name_world_key(key)).collect();
    let exports: Vec<String> = world.exports.keys().map(|key| resolve.name_world_key(key)).collect();
    for interface in ["types", "http", "kv", "customer-service", "wechat-api", "call-info"] {
        let name = format!("aviary:bot/{interface}@0.1.0");
        assert!(imports.contains(&name), "the bindings lack `{name}`: {imports:?}");
    }
    assert_eq!(exports, ["aviary:bot/handler@0.1.0"]);
}

/// A bot whose plugin imports every interface there is, and has no grants.
async fn ungranted() -> Bot {
    Setup::new().plugin("10-misbehave.wasm", &MISBEHAVE).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_denied_with_the_name_of_the_grant() {
    let bot = ungranted().await;
    for (order, grant) in [
        ("kv visits", "kv"),
        ("my visits", "kv"),
        ("api /cgi-bin/user/info", "wechat_api"),
        ("send 你好", "customer_service"),
    ] {
        let denied = format!("Error::Denied(\"plugin `misbehave` has no `{grant}` grant");
        let said = bot.says(order).await;
        assert!(said.starts_with(&denied), "{order}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_knows_how_long_it_may_take_and_which_attempt_it_is() {
    let bot = ungranted().await;
    let info = bot.says("info").await;
    let [time_left_ms, late_reply, attempt] = info.split(' ').collect::<Vec<_>>()[..] else { panic!("{info}") };
    let time_left_ms: u32 = time_left_ms.parse().unwrap();
    // Three tries hold for 14 s, and the call may go on for two minutes.
    assert!((120_000..=134_000).contains(&time_left_ms), "{info}");
    assert_eq!((late_reply, attempt), ("true", "1"));
}
