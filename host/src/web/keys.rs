//! The keys that sign what a browser keeps for us. They live in `data_dir/keys`, which is ours alone, and outlive restarts.

use std::{
    io::{self, Read},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context, anyhow};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tracing::{info, warn};

use super::now_s;
use crate::{plugin::aside, private_dir::PrivateDir, secret::Secret};

/// The file in the directory: a line for each key, the newest first.
const FILE: &str = "web";

/// When a key is old enough for another to sign.
const SIGNS_FOR: Duration = Duration::from_secs(30 * 86_400);

/// How long a key that signs no more still verifies: longer than anything that it signed is good.
const VERIFIES_FOR: Duration = Duration::from_secs(2 * 30 * 86_400 + 86_400);

/// The file is a few lines; a larger one is not ours.
const FILE_BYTES_MAX: u64 = 4_096;

/// What a signature is about: what is signed for one is worth nothing for another.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// That a login began here.
    State,
    /// That a session was opened here.
    Session,
}

/// Signs and verifies. Cheap to clone: all clones have the same keys.
#[derive(Clone, Debug)]
pub struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PrivateDir,
    /// The newest first; never empty.
    kept: RwLock<Vec<Key>>,
    rotation: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Key {
    made_s: u64,
    /// 64 hexadecimal digits.
    secret: Secret,
}

impl Keys {
    /// Opens the keys of a directory, or makes the first one.
    ///
    /// # Errors
    /// When they cannot be read or written, or are somebody else's to read.
    pub fn open(dir: PrivateDir) -> anyhow::Result<Self> {
        let path = dir.file(FILE);
        let read = read(&dir)
            .with_context(|| format!("cannot read {}; without it all visitors sign in again", path.display()))?;
        let kept = rotated(read, now_s());
        write(&dir, &kept).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(Arc::new(Inner { dir, kept: RwLock::new(kept), rotation: tokio::sync::Mutex::default() })))
    }

    /// Signs parts, so that no other parts have the same signature: 64 hexadecimal digits.
    pub fn sign(&self, purpose: Purpose, parts: &[&str]) -> String {
        let kept = self.kept();
        hex(&mac(&kept[0], purpose, parts).finalize().into_bytes())
    }

    /// Whether one of the keys signed these parts, in constant time for each.
    pub fn verify(&self, purpose: Purpose, parts: &[&str], signature: &str) -> bool {
        let Some(signature) = unhex::<32>(signature) else { return false };
        self.kept().iter().any(|key| mac(key, purpose, parts).verify_slice(&signature).is_ok())
    }

    /// Lets a new key sign if it is time. One that cannot be written does not sign: it would be forgotten.
    pub async fn rotate(&self) {
        let now_s = now_s();
        if !is_due(&self.kept(), now_s) {
            return;
        }
        let _rotating = self.0.rotation.lock().await;
        let kept = self.kept().clone();
        if !is_due(&kept, now_s) {
            return;
        }
        let (new, dir) = (rotated(kept, now_s), self.0.dir.clone());
        let written = new.clone();
        match aside(move || write(&dir, &written)).await {
            Ok(()) => {
                *self.0.kept.write().unwrap_or_else(PoisonError::into_inner) = new;
                info!("A new key signs the visitors' cookies; the one before it is still good");
            }
            Err(error) => warn!("The key that signs the visitors' cookies stays, though it is old: {error}"),
        }
    }

    fn kept(&self) -> std::sync::RwLockReadGuard<'_, Vec<Key>> {
        // It is only ever replaced as a whole.
        self.0.kept.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_due(kept: &[Key], now_s: u64) -> bool {
    kept.first().is_none_or(|newest| now_s.saturating_sub(newest.made_s) >= SIGNS_FOR.as_secs())
}

/// Puts a new key in front if it is time, and leaves out those whose time is over.
fn rotated(mut kept: Vec<Key>, now_s: u64) -> Vec<Key> {
    if is_due(&kept, now_s) {
        kept.insert(0, Key { made_s: now_s, secret: hex(&random::<32>()).into() });
    }
    kept.retain(|key| now_s.saturating_sub(key.made_s) < VERIFIES_FOR.as_secs());
    kept
}

fn read(dir: &PrivateDir) -> anyhow::Result<Vec<Key>> {
    let Some(file) = dir.open_file(FILE)? else { return Ok(Vec::new()) };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    let key = |line: &str| {
        let (made_s, secret) = line.split_once(' ')?;
        unhex::<32>(secret)?;
        Some(Key { made_s: made_s.parse().ok()?, secret: secret.into() })
    };
    text.lines().map(|line| key(line).ok_or_else(|| anyhow!("it is damaged; remove it"))).collect()
}

fn write(dir: &PrivateDir, kept: &[Key]) -> io::Result<()> {
    let lines: String = kept.iter().map(|key| format!("{} {}\n", key.made_s, key.secret.expose())).collect();
    dir.write(FILE, &[lines.as_bytes()]).map(drop)
}

fn mac(key: &Key, purpose: Purpose, parts: &[&str]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.secret.expose().as_bytes()).expect("a key of any length will do");
    mac.update(&[purpose as u8]);
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac
}

/// Random bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system's random numbers are always there once it has booted");
    bytes
}

/// Writes bytes as hexadecimal digits in lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads exactly so many bytes from hexadecimal digits in lower case: each value has one form.
pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 2 * N || !text.bytes().all(is_lower_hex) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..2 * N).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn directory() -> (tempfile::TempDir, PrivateDir) {
        let parent = tempfile::tempdir().unwrap();
        let dir = PrivateDir::open(parent.path().join("keys")).unwrap();
        (parent, dir)
    }

    #[test]
    fn what_was_signed_is_known_after_a_restart_and_nothing_else_is() {
        let (_parent, dir) = directory();
        let signature = Keys::open(dir.clone()).unwrap().sign(Purpose::State, &["a", "bc"]);
        let keys = Keys::open(dir).unwrap();
        assert!(keys.verify(Purpose::State, &["a", "bc"], &signature));
        assert!(!keys.verify(Purpose::Session, &["a", "bc"], &signature));
        assert!(!keys.verify(Purpose::State, &["ab", "c"], &signature));
        assert!(!keys.verify(Purpose::State, &["a", "bc"], &signature.to_uppercase()));
        for other in ["", "00", &"0".repeat(64), &signature[..62], &format!("{signature}00")] {
            assert!(!keys.verify(Purpose::State, &["a", "bc"], other), "{other}");
        }
        let (_parent, other) = directory();
        assert!(!Keys::open(other).unwrap().verify(Purpose::State, &["a", "bc"], &signature));
    }

    #[test]
    fn the_keys_are_for_us_alone() {
        let (_parent, dir) = directory();
        let keys = Keys::open(dir.clone()).unwrap();
        let mode = fs::metadata(dir.file(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let line = fs::read_to_string(dir.file(FILE)).unwrap();
        let secret = line.trim().split_once(' ').unwrap().1;
        assert!(!format!("{keys:?}").contains(secret));
        fs::set_permissions(dir.file(FILE), fs::Permissions::from_mode(0o644)).unwrap();
        let error = format!("{:#}", Keys::open(dir).unwrap_err());
        assert!(error.contains("not a file of this user's alone"), "{error}");
    }

    #[test]
    fn damaged_keys_are_not_replaced_in_silence() {
        let (_parent, dir) = directory();
        dir.write(FILE, &[b"1 x\n"]).unwrap();
        let error = format!("{:#}", Keys::open(dir).unwrap_err());
        assert!(error.contains("damaged; remove it"), "{error}");
    }

    #[tokio::test]
    async fn a_key_that_is_old_signs_no_more_and_verifies_for_as_long_as_what_it_signed_is_good() {
        let (_parent, dir) = directory();
        let age = |days: u64| now_s() - days * 86_400;
        let line = |made_s: u64, digit: &str| format!("{made_s} {}\n", digit.repeat(64));
        let signature = {
            dir.write(FILE, &[line(age(31), "a").as_bytes()]).unwrap();
            let key = read(&dir).unwrap().remove(0);
            hex(&mac(&key, Purpose::Session, &["x"]).finalize().into_bytes())
        };
        let keys = Keys::open(dir.clone()).unwrap();
        assert!(keys.verify(Purpose::Session, &["x"], &signature));
        assert_ne!(keys.sign(Purpose::Session, &["x"]), signature);
        dir.write(FILE, &[line(age(1), "b").as_bytes(), line(age(62), "a").as_bytes()]).unwrap();
        assert!(!Keys::open(dir).unwrap().verify(Purpose::Session, &["x"], &signature));
    }

    #[tokio::test]
    async fn a_host_that_runs_on_gets_a_new_key_in_time() {
        let (_parent, dir) = directory();
        let keys = Keys::open(dir.clone()).unwrap();
        let signature = keys.sign(Purpose::Session, &["x"]);
        keys.rotate().await;
        assert_eq!(keys.sign(Purpose::Session, &["x"]), signature);
        keys.0.kept.write().unwrap()[0].made_s -= SIGNS_FOR.as_secs();
        keys.rotate().await;
        assert_ne!(keys.sign(Purpose::Session, &["x"]), signature);
        assert!(keys.verify(Purpose::Session, &["x"], &signature));
        assert_eq!(read(&dir).unwrap().len(), 2);
    }
}
