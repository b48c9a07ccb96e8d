//! Quarantine: a plugin that keeps failing is not asked for a while, so that it costs no message its time. After the
//! back-off one call, the probe, finds out whether it works again. No user alone keeps it out: who has probed lets the
//! others go first, and a probe that hangs is soon joined by another's.
//!
//! A plugin is judged in each account by itself, and with its code: other code of the same name starts clean. While all
//! is well, a call costs a few atomic operations here.

mod tally;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use self::tally::{Tally, Users};
use super::{Failure, Hash};
use crate::config;

/// How long a probe is alone: as long as WeChat waits for an answer. One that hangs is not to hold up all the others.
const ALONE: Duration = Duration::from_secs(5);

/// The standing of every plugin that serves. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Quarantine {
    standings: Arc<Mutex<BTreeMap<Key, Arc<Standing>>>>,
}

/// What is judged: this code, under this name, in this account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub account: Arc<str>,
    pub plugin: Arc<str>,
    pub code: Hash,
    pub part: Part,
}

/// The parts of a plugin, each judged by itself: a page is asked by anybody, and whoever makes it fail must not take the bot away
/// from the account's followers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    #[default]
    Bot,
    Pages,
}

impl Part {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Bot, Self::Pages];

    /// The word for it in the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bot => "bot",
            Self::Pages => "pages",
        }
    }
}

/// A plugin that is out of its chain, for people to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    pub account: String,
    pub plugin: String,
    /// Which part of it.
    #[serde(default)]
    pub part: Part,
    /// The SHA-256 of its file.
    pub code: String,
    /// Why it went out, or did not come back.
    pub why: String,
    /// How long it has been out, in s.
    pub out_s: u64,
    /// In how many seconds a call tries it again; 0: the next one that comes.
    pub probe_in_s: u64,
    /// The same for users who have tried it since it went out.
    #[serde(default)]
    pub again_in_s: u64,
    /// Whether a call is trying it right now.
    #[serde(default)]
    pub probing: bool,
    /// How many probes failed.
    pub probes_failed: u32,
}

impl Quarantine {
    /// Finds the standing of a plugin. Code that is known keeps its own, under thresholds that may be new.
    pub fn standing(&self, key: Key, thresholds: &config::Quarantine) -> Arc<Standing> {
        let mut standings = lock(&self.standings);
        let standing = standings.entry(key).or_default();
        standing.judge_by(thresholds);
        standing.clone()
    }

    /// Forgets all plugins but these.
    pub fn retain(&self, serving: &HashSet<Key>) {
        lock(&self.standings).retain(|key, _| serving.contains(key));
    }

    /// Tells which plugins are out of their chains now.
    pub fn overview(&self, now: Instant) -> Vec<Quarantined> {
        let standings = lock(&self.standings);
        standings.iter().filter_map(|(key, standing)| standing.shown(key, now)).collect()
    }
}

/// How a plugin has done lately.
#[derive(Debug, Default)]
pub struct Standing {
    /// Whether it is out. A call looks at nothing else while it is not.
    out: AtomicBool,
    /// Failures since the last call that went well.
    row: AtomicU64,
    /// Calls since the half of the window that is being counted began.
    calls: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    thresholds: config::Quarantine,
    tally: Tally,
    /// Whose calls failed since one went well.
    row_users: Users,
    out: Option<Out>,
    /// When it last came back, and how long it had been left alone before.
    back: Option<(Instant, Duration)>,
}

/// A plugin that is out.
#[derive(Debug)]
struct Out {
    since: Instant,
    until: Instant,
    back_off: Duration,
    why: String,
    /// Whose calls have tried it.
    probed: Users,
    /// When one of theirs may do so again. Later than `until`, so that the others come first.
    again: Instant,
    /// Since when the latest probe has been trying it, if it still is.
    probing: Option<Instant>,
    probes_failed: u32,
}

/// A call that tries a plugin which is out.
#[derive(Clone, Copy, Debug)]
struct Probe {
    since: Instant,
    /// Whether its user has tried it before.
    is_repeated: bool,
}

impl Out {
    /// Lets a user's call try it, if it is its turn.
    fn probe(&mut self, user: &str, now: Instant) -> Option<Probe> {
        let is_repeated = self.probed.contains(user);
        let from = if is_repeated { self.again } else { self.until };
        if now < from || self.probing.is_some_and(|since| now < since + ALONE) {
            return None;
        }
        if is_repeated || self.probed.is_full() {
            // The others are new again: who keeps trying does not keep them waiting.
            self.probed = Users::default();
        }
        self.probed.add(user);
        // Also one without a verdict leaves the others as much time.
        self.again = now + ALONE + self.back_off;
        self.probing = Some(now);
        Some(Probe { since: now, is_repeated })
    }

    /// Draws the conclusions from a probe that failed.
    fn failed(&mut self, probe: Probe, failure: &str, thresholds: &config::Quarantine, now: Instant) -> Option<Change> {
        self.end(probe);
        if probe.since < self.until {
            // Another one, which failed while this one was under way, has decided already.
            return None;
        }
        self.probes_failed += 1;
        self.why = format!("when it was tried again, it {failure}");
        if probe.is_repeated {
            // What fails for the same user once more must not cost the others anything.
            return None;
        }
        self.back_off = longer(self.back_off, thresholds);
        self.until = now + self.back_off;
        self.again = self.until + self.back_off;
        Some(Change::StaysOut { why: self.why.clone(), back_off: self.back_off })
    }

    fn end(&mut self, probe: Probe) {
        if self.probing == Some(probe.since) {
            self.probing = None;
        }
    }
}

/// What became of a plugin's place in its chain. Reads on after "Plugin `x` ".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is left alone now.
    Out { why: String, back_off: Duration },
    /// The probe failed.
    StaysOut { why: String, back_off: Duration },
    /// The probe went well.
    Back { after: Duration },
}

/// The right to call a plugin once. Given back without a verdict, it is as if it had not been asked.
#[derive(Debug)]
pub struct Admission<'a> {
    standing: &'a Standing,
    probe: Option<Probe>,
}

impl Standing {
    /// Admits a user's call, unless the plugin is out; then one call may probe it, once the back-off is over. Who has no
    /// openid is an empty user.
    pub fn admit(&self, user: &str, now: Instant) -> Option<Admission<'_>> {
        if !self.out.load(Ordering::Acquire) {
            return Some(Admission { standing: self, probe: None });
        }
        match &mut self.lock().out {
            None => Some(Admission { standing: self, probe: None }),
            Some(out) => out.probe(user, now).map(|probe| Admission { standing: self, probe: Some(probe) }),
        }
    }

    fn judge_by(&self, thresholds: &config::Quarantine) {
        let mut state = self.lock();
        state.thresholds = thresholds.clone();
        if thresholds.is_off() {
            self.come_back(&mut state);
        }
    }

    fn worked(&self, probe: Option<Probe>, now: Instant) -> Option<Change> {
        let Some(probe) = probe else {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if self.row.load(Ordering::Relaxed) != 0 {
                self.row.store(0, Ordering::Relaxed);
            }
            return None;
        };
        let mut state = self.lock();
        // Another may have brought it back, and it may be out for something new.
        if state.out.as_ref().is_none_or(|out| probe.since < out.since) {
            return None;
        }
        let out = self.come_back(&mut state)?;
        state.back = Some((now, out.back_off));
        Some(Change::Back { after: now.saturating_duration_since(out.since) })
    }

    /// `failure` is what the log says of it.
    fn failed(&self, probe: Option<Probe>, user: &str, failure: &str, now: Instant) -> Option<Change> {
        let mut state = self.lock();
        let State { thresholds, tally, row_users, out, back } = &mut *state;
        if let Some(probe) = probe {
            return out.as_mut().and_then(|out| out.failed(probe, failure, thresholds, now));
        }
        if out.is_some() {
            // Only a probe decides; what was asked before it went out tells nothing new.
            return None;
        }
        let row = self.row.fetch_add(1, Ordering::Relaxed) + 1;
        self.calls.fetch_add(1, Ordering::Relaxed);
        if row == 1 {
            row_users.clear();
        }
        row_users.add(user);
        let (failures, calls) = tally.failed(&self.calls, user, thresholds.window, now);
        let is_row = row >= thresholds.failures && row_users.count() >= thresholds.users_min;
        let is_share = calls >= thresholds.calls_min
            && failures * 100 >= calls * thresholds.share_percent
            && tally.users() >= thresholds.users_min;
        let why = if thresholds.failures > 0 && is_row {
            format!("it failed {row} times in a row; the last time it {failure}")
        } else if thresholds.share_percent > 0 && is_share {
            let window_s = thresholds.window.as_secs();
            format!("{failures} of its last {calls} calls within {window_s} s failed; the last time it {failure}")
        } else {
            return None;
        };
        // One that was well for less time than it had been left alone has not recovered.
        let back_off = match back {
            Some((at, before)) if now.saturating_duration_since(*at) < *before => longer(*before, thresholds),
            _ => thresholds.back_off,
        };
        let until = now + back_off;
        *out = Some(Out {
            since: now,
            until,
            back_off,
            why: why.clone(),
            probed: Users::default(),
            again: until,
            probing: None,
            probes_failed: 0,
        });
        self.out.store(true, Ordering::Release);
        Some(Change::Out { why, back_off })
    }

    /// Lets calls through again, and forgets what was before.
    fn come_back(&self, state: &mut State) -> Option<Out> {
        self.row.store(0, Ordering::Relaxed);
        self.calls.store(0, Ordering::Relaxed);
        self.out.store(false, Ordering::Release);
        state.tally = Tally::default();
        state.out.take()
    }

    fn shown(&self, key: &Key, now: Instant) -> Option<Quarantined> {
        let state = self.lock();
        let out = state.out.as_ref()?;
        Some(Quarantined {
            account: key.account.to_string(),
            plugin: key.plugin.to_string(),
            part: key.part,
            code: key.code.to_string(),
            why: out.why.clone(),
            out_s: now.saturating_duration_since(out.since).as_secs(),
            probe_in_s: out.until.saturating_duration_since(now).as_secs(),
            again_in_s: out.again.saturating_duration_since(now).as_secs(),
            probing: out.probing.is_some(),
            probes_failed: out.probes_failed,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Every change leaves what is behind the lock whole, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn longer(back_off: Duration, thresholds: &config::Quarantine) -> Duration {
    back_off.saturating_mul(2).min(thresholds.back_off_max.max(thresholds.back_off))
}

impl Admission<'_> {
    /// The plugin replied or passed.
    pub fn worked(mut self, now: Instant) -> Option<Change> {
        let probe = self.probe.take();
        self.standing.worked(probe, now)
    }

    /// The plugin failed when this user asked, and it was its fault. `failure` is what the log says: "it …".
    pub fn failed(mut self, user: &str, failure: &str, now: Instant) -> Option<Change> {
        let probe = self.probe.take();
        self.standing.failed(probe, user, failure, now)
    }
}

/// Without a verdict the next user's call may probe.
impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if let Some(probe) = self.probe
            && let Some(out) = &mut self.standing.lock().out
        {
            out.end(probe);
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Out { why, back_off } => write!(
                formatter,
                "is not asked for {} s: {why}; put another version in its place, which is asked at once, or look at \
                 `[quarantine]`",
                back_off.as_secs()
            ),
            Self::StaysOut { why, back_off } => {
                write!(formatter, "is not asked for another {} s: {why}", back_off.as_secs())
            }
            Self::Back { after } => {
                write!(formatter, "works again and is asked as before, after {} s", after.as_secs())
            }
        }
    }
}

/// Whether a failure is the plugin's fault. `given` is the time that it had, `expected` what it may count on.
pub fn is_its_fault(failure: &Failure, given: Duration, expected: Duration) -> bool {
    match failure {
        // The host had no room.
        Failure::Busy(_) => false,
        // The plugins before it may have used up the message's window. With half of it left, it could have answered.
        Failure::Timeout { .. } => given * 2 >= expected,
        // An error that it tells counts as well: a plugin that works replies or passes.
        Failure::Cpu { .. }
        | Failure::Memory { .. }
        | Failure::Stack
        | Failure::Trap(_)
        | Failure::Guest(_)
        | Failure::Refused(_)
        | Failure::Page(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::turns::Busy;

    const SECOND: Duration = Duration::from_secs(1);

    /// Three in a row, or half of at least ten within 60 s, whoever asks; 10 s, doubled to 35 s at most.
    fn thresholds() -> config::Quarantine {
        config::Quarantine {
            failures: 3,
            share_percent: 50,
            calls_min: 10,
            users_min: 1,
            window: 60 * SECOND,
            back_off: 10 * SECOND,
            back_off_max: 35 * SECOND,
        }
    }

    fn key(code: u8) -> Key {
        Key { account: "main".into(), plugin: "weather".into(), code: Hash([code; 32]), part: Part::Bot }
    }

    fn standing(thresholds: &config::Quarantine) -> Arc<Standing> {
        Quarantine::default().standing(key(1), thresholds)
    }

    fn fail(standing: &Standing, now: Instant) -> Option<Change> {
        fail_for("oA", standing, now)
    }

    fn fail_for(user: &str, standing: &Standing, now: Instant) -> Option<Change> {
        standing.admit(user, now).expect("it is asked").failed(user, "trapped", now)
    }

    fn work(standing: &Standing, now: Instant) -> Option<Change> {
        work_for("oA", standing, now)
    }

    fn work_for(user: &str, standing: &Standing, now: Instant) -> Option<Change> {
        standing.admit(user, now).expect("it is asked").worked(now)
    }

    fn back_off(change: Option<Change>) -> u64 {
        match change {
            Some(Change::Out { back_off, .. } | Change::StaysOut { back_off, .. }) => back_off.as_secs(),
            other => panic!("it did not go out: {other:?}"),
        }
    }

    /// Fails until it is out.
    fn out(standing: &Standing, now: Instant) -> u64 {
        assert_eq!((fail(standing, now), fail(standing, now)), (None, None));
        back_off(fail(standing, now))
    }

    #[test]
    fn failures_in_a_row_take_a_plugin_out_and_a_success_between_them_does_not_let_them() {
        let (standing, now) = (standing(&config::Quarantine { share_percent: 0, ..thresholds() }), Instant::now());
        for _ in 0..10 {
            assert_eq!((fail(&standing, now), fail(&standing, now), work(&standing, now)), (None, None, None));
        }
        assert_eq!(out(&standing, now), 10);
        assert!(standing.admit("oA", now + 9 * SECOND).is_none());
    }

    #[test]
    fn a_share_of_failures_within_the_window_takes_a_plugin_out() {
        let (standing, now) = (standing(&config::Quarantine { failures: 0, ..thresholds() }), Instant::now());
        for second in 0..5 {
            assert_eq!(fail(&standing, now + second * SECOND), None, "these are too few calls");
            assert_eq!(work(&standing, now + second * SECOND), None);
        }
        let change = fail(&standing, now + 5 * SECOND).expect("more than half failed");
        assert!(change.to_string().contains("6 of its last 11 calls within 60 s failed"), "{change}");
    }

    #[test]
    fn one_user_alone_takes_a_plugin_away_from_nobody() {
        let by_row = config::Quarantine { users_min: 3, share_percent: 0, ..thresholds() };
        let by_share = config::Quarantine { users_min: 3, failures: 0, ..thresholds() };
        for thresholds in [by_row, by_share] {
            let (standing, now) = (standing(&thresholds), Instant::now());
            (0..1_000).for_each(|_| assert_eq!(fail_for("oA", &standing, now), None));
            assert_eq!(fail_for("oB", &standing, now), None);
            assert!(fail_for("oC", &standing, now).is_some(), "{thresholds:?}");
        }
    }

    #[test]
    fn whom_it_failed_before_it_worked_or_before_the_window_does_not_count() {
        let in_a_row = standing(&config::Quarantine { users_min: 2, share_percent: 0, ..thresholds() });
        let now = Instant::now();
        for user in ["oA", "oB", "oC"] {
            (0..10).for_each(|_| assert_eq!(fail_for(user, &in_a_row, now), None));
            assert_eq!(work(&in_a_row, now), None);
        }
        let by_share = standing(&config::Quarantine { users_min: 2, failures: 0, ..thresholds() });
        for (minute, user) in ["oA", "oB", "oC"].into_iter().enumerate() {
            let later = now + Duration::from_secs(61) * u32::try_from(minute).unwrap();
            (0..10).for_each(|_| assert_eq!(fail_for(user, &by_share, later), None));
        }
        // The half of the window before this one counts.
        assert!(fail_for("oD", &by_share, now + 161 * SECOND).is_some());
    }

    #[test]
    fn a_share_does_not_remember_what_was_before_the_window() {
        let (standing, now) = (standing(&config::Quarantine { failures: 0, ..thresholds() }), Instant::now());
        for minute in 0..100 {
            // One failure a minute, and a thousand calls that go well long before the next.
            assert_eq!(fail(&standing, now + 61 * minute * SECOND), None);
        }
        let later = now + 61 * 100 * SECOND;
        (0..1_000).for_each(|_| assert_eq!(work(&standing, later), None));
        // A day later it breaks: the thousand do not weigh any more.
        let broken = later + 86_400 * SECOND;
        let changes: Vec<_> = (0..10).map(|_| fail(&standing, broken)).collect();
        assert!(changes[..9].iter().all(Option::is_none) && changes[9].is_some(), "{changes:?}");
    }

    #[test]
    fn after_the_back_off_one_call_probes_and_the_others_wait_for_its_verdict() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        out(&standing, now);
        let later = now + 10 * SECOND;
        let probe = standing.admit("oA", later).expect("the back-off is over");
        assert!(standing.admit("oB", later).is_none() && standing.admit("oB", later + 4 * SECOND).is_none());
        assert_eq!(probe.worked(later), Some(Change::Back { after: 10 * SECOND }));
        assert_eq!((work(&standing, later), fail(&standing, later)), (None, None), "it starts clean");
    }

    #[test]
    fn each_probe_that_fails_doubles_the_back_off_up_to_its_bound() {
        let (standing, mut now) = (standing(&thresholds()), Instant::now());
        let mut wait = out(&standing, now);
        for (user, expected) in [("oA", 20), ("oB", 35), ("oC", 35)] {
            now += Duration::from_secs(wait);
            assert!(standing.admit(user, now - SECOND).is_none());
            wait = back_off(fail_for(user, &standing, now));
            assert_eq!(wait, expected);
        }
    }

    #[test]
    fn a_plugin_that_fails_again_soon_after_it_came_back_has_not_recovered() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        assert_eq!(out(&standing, now), 10);
        work(&standing, now + 10 * SECOND);
        assert_eq!(out(&standing, now + 19 * SECOND), 20);
        work(&standing, now + 39 * SECOND);
        assert_eq!(out(&standing, now + 60 * SECOND), 10, "it was well for as long as it had been left alone");
    }

    #[test]
    fn a_probe_without_a_verdict_leaves_its_place_to_the_next() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        out(&standing, now);
        let later = now + 10 * SECOND;
        drop(standing.admit("oA", later).expect("the back-off is over"));
        assert!(standing.admit("oA", later).is_none(), "the next is another's");
        assert!(matches!(work_for("oB", &standing, later), Some(Change::Back { .. })));
    }

    #[test]
    fn who_has_tried_it_lets_the_others_go_first() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        out(&standing, now);
        assert_eq!(back_off(fail_for("evil", &standing, now + 10 * SECOND)), 20);
        for second in 10..50 {
            assert!(standing.admit("evil", now + second * SECOND).is_none(), "{second}");
        }
        assert!(matches!(work_for("oA", &standing, now + 30 * SECOND), Some(Change::Back { .. })));
    }

    #[test]
    fn who_tries_it_again_in_vain_costs_the_others_nothing() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        out(&standing, now);
        fail_for("evil", &standing, now + 10 * SECOND);
        let mut tries = 0;
        for second in 10..1_000 {
            let at = now + second * SECOND;
            if let Some(admission) = standing.admit("evil", at) {
                assert_eq!(admission.failed("evil", "trapped", at), None, "the back-off is what it was");
                tries += 1;
            }
        }
        assert_eq!(tries, 38, "one in 25 s, from the 50th second on");
        assert_eq!(back_off(fail_for("oA", &standing, now + 1_000 * SECOND)), 35, "it is asked at once");
    }

    #[test]
    fn a_single_user_gets_the_plugin_back_only_later() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        out(&standing, now);
        fail(&standing, now + 10 * SECOND);
        assert!(standing.admit("oA", now + 49 * SECOND).is_none());
        assert_eq!(work(&standing, now + 50 * SECOND), Some(Change::Back { after: 50 * SECOND }));
    }

    #[test]
    fn a_probe_that_hangs_holds_up_the_others_for_five_seconds_and_its_failure_decides_nothing_later() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        out(&standing, now);
        let hanging = standing.admit("evil", now + 10 * SECOND).expect("the back-off is over");
        assert!(standing.admit("oA", now + 14 * SECOND).is_none());
        assert!(standing.admit("evil", now + 24 * SECOND).is_none(), "it does not hang on for another five");
        assert_eq!(back_off(fail_for("oA", &standing, now + 25 * SECOND)), 20);
        assert_eq!(hanging.failed("evil", "ran too long", now + 44 * SECOND), None);
        assert_eq!(work_for("oB", &standing, now + 45 * SECOND), Some(Change::Back { after: 45 * SECOND }));
    }

    #[test]
    fn any_probe_that_goes_well_brings_the_plugin_back() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        out(&standing, now);
        let slow = standing.admit("oA", now + 10 * SECOND).expect("the back-off is over");
        fail_for("oB", &standing, now + 15 * SECOND);
        assert_eq!(slow.worked(now + 16 * SECOND), Some(Change::Back { after: 16 * SECOND }));
    }

    #[test]
    fn probes_of_an_outage_that_is_over_decide_nothing() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        out(&standing, now);
        let [slow, slower, slowest] = [10, 15, 20].map(|second| {
            let user = format!("oSlow{second}");
            standing.admit(&user, now + second * SECOND).expect("five seconds are over")
        });
        work(&standing, now + 25 * SECOND);
        assert_eq!((fail(&standing, now + 26 * SECOND), fail(&standing, now + 26 * SECOND)), (None, None));
        assert_eq!(slow.failed("oSlow10", "trapped", now + 26 * SECOND), None, "it is no third in a row");
        assert!(fail(&standing, now + 26 * SECOND).is_some());
        assert_eq!(slower.worked(now + 27 * SECOND), None);
        assert_eq!(slowest.failed("oSlow20", "trapped", now + 27 * SECOND), None);
        assert!(standing.admit("oB", now + 45 * SECOND).is_none() && standing.admit("oB", now + 46 * SECOND).is_some());
    }

    #[test]
    fn a_probe_without_a_verdict_does_not_end_the_time_of_a_later_one() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        out(&standing, now);
        let first = standing.admit("oA", now + 10 * SECOND).expect("the back-off is over");
        let second = standing.admit("oB", now + 15 * SECOND).expect("five seconds are over");
        drop(first);
        assert!(standing.admit("oC", now + 16 * SECOND).is_none());
        drop(second);
        assert!(standing.admit("oC", now + 16 * SECOND).is_some());
    }

    #[test]
    fn among_more_users_than_are_remembered_nobody_may_try_it_time_and_again() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        out(&standing, now);
        let later = now + 10 * SECOND;
        (0..250).for_each(|user| drop(standing.admit(&format!("o{user}"), later).expect("it is a new user")));
        drop(standing.admit("evil", later).expect("it is a new user"));
        assert!(standing.admit("evil", later).is_none());
    }

    #[test]
    fn calls_from_before_it_went_out_decide_nothing() {
        let (standing, now) = (standing(&thresholds()), Instant::now());
        let (slow, slower) = (standing.admit("oA", now).unwrap(), standing.admit("oA", now).unwrap());
        out(&standing, now);
        assert_eq!((slow.worked(now), slower.failed("oA", "trapped", now)), (None, None));
        assert!(standing.admit("oA", now + 9 * SECOND).is_none());
        assert!(standing.admit("oA", now + 10 * SECOND).is_some());
    }

    #[test]
    fn known_code_keeps_its_standing_new_code_and_a_plugin_that_was_gone_start_clean() {
        let (quarantine, now) = (Quarantine::default(), Instant::now());
        out(&quarantine.standing(key(1), &thresholds()), now);
        assert!(quarantine.standing(key(1), &thresholds()).admit("oA", now).is_none());
        assert!(quarantine.standing(key(2), &thresholds()).admit("oA", now).is_some());
        quarantine.retain(&HashSet::from([key(2)]));
        assert!(quarantine.standing(key(1), &thresholds()).admit("oA", now).is_some());
    }

    #[test]
    fn thresholds_that_are_turned_off_bring_a_plugin_back() {
        let (quarantine, now) = (Quarantine::default(), Instant::now());
        out(&quarantine.standing(key(1), &thresholds()), now);
        let off = config::Quarantine { failures: 0, share_percent: 0, ..thresholds() };
        let standing = quarantine.standing(key(1), &off);
        (0..100).for_each(|_| assert_eq!(fail(&standing, now), None));
    }

    #[test]
    fn the_overview_has_what_is_out_and_for_how_long() {
        let (quarantine, now) = (Quarantine::default(), Instant::now());
        quarantine.standing(key(2), &thresholds());
        out(&quarantine.standing(key(1), &thresholds()), now);
        let overview = quarantine.overview(now + 4 * SECOND);
        assert_eq!(overview.len(), 1);
        assert_eq!((&*overview[0].account, &*overview[0].plugin), ("main", "weather"));
        assert_eq!((overview[0].out_s, overview[0].probe_in_s, overview[0].again_in_s), (4, 6, 6));
        assert_eq!((overview[0].probes_failed, overview[0].probing), (0, false));
        assert_eq!(overview[0].why, "it failed 3 times in a row; the last time it trapped");
    }

    #[test]
    fn the_overview_tells_when_it_is_being_tried_and_when_who_tried_it_may_again() {
        let (quarantine, now) = (Quarantine::default(), Instant::now());
        let standing = quarantine.standing(key(1), &thresholds());
        out(&standing, now);
        let probe = standing.admit("oA", now + 10 * SECOND).expect("the back-off is over");
        assert!(quarantine.overview(now + 12 * SECOND)[0].probing);
        probe.failed("oA", "trapped", now + 12 * SECOND);
        let [out] = &quarantine.overview(now + 12 * SECOND)[..] else { panic!("it is out") };
        assert_eq!((out.probing, out.probe_in_s, out.again_in_s, out.probes_failed), (false, 20, 40, 1));
    }

    #[test]
    fn what_the_host_or_other_plugins_cost_is_not_the_plugins_fault() {
        let timeout = Failure::Timeout { limit_ms: 2_000 };
        let busy = Failure::from(Busy::Host { wait_ms: 4_500 });
        assert!(!is_its_fault(&busy, 4 * SECOND, 4 * SECOND));
        assert!(!is_its_fault(&timeout, 2 * SECOND, 5 * SECOND), "the plugins before it used up the window");
        assert!(is_its_fault(&timeout, 2 * SECOND, 2 * SECOND), "it had its own `timeout_ms`");
        assert!(is_its_fault(&Failure::Stack, Duration::ZERO, 5 * SECOND));
        assert!(is_its_fault(&Failure::Guest("no key".into()), SECOND, 5 * SECOND));
    }
}
