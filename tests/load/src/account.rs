//! The account that every measured server serves.

use aviary_wechat::crypt::AesKey;

/// What signs a push; nobody else uses it.
pub const TOKEN: &str = "tokenOfTheLoadGenerator0123456";

/// What encrypts a push in safe mode.
pub const ENCODING_AES_KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

/// What an encrypted push is bound to.
pub const APP_ID: &str = "wx0123456789abcdef";

/// The account's original id: `ToUserName` of its pushes.
pub const USER_NAME: &str = "gh_0123456789ab";

/// How WeChat and a server talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 明文
    Plain,
    /// 安全
    Safe,
}

/// Returns the key of [`ENCODING_AES_KEY`].
pub fn aes_key() -> AesKey {
    AesKey::parse(ENCODING_AES_KEY).expect("it has 43 letters and digits")
}
