//! What a send that WeChat refused means for the message.

use crate::{
    api::{ApiError, is_about_account},
    late::NO_RIGHT,
};

/// What is to become of a message that was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent again: WeChat may take it, or the operator can see to it that it does.
    Later,
    /// Its user cannot be sent to now, but can ask.
    Keep,
    /// Nobody can send it: something is wrong with the message, or its user is gone.
    Never,
}

/// The user said nothing for too long, or got as much as WeChat allows.
const NOT_TO_THIS_USER_NOW: [i64; 2] = [45_015, 45_047];

pub(super) fn verdict(error: &ApiError) -> Verdict {
    match error {
        ApiError::Refused { code: NO_RIGHT, .. } => Verdict::Keep,
        ApiError::Refused { code, .. } if NOT_TO_THIS_USER_NOW.contains(code) => Verdict::Keep,
        ApiError::Refused { code, .. } if is_about_account(*code) => Verdict::Later,
        // Whoever answers so in place of WeChat is in the way of every message.
        ApiError::Status(_) | ApiError::Unexpected => Verdict::Later,
        error if error.may_pass() => Verdict::Later,
        _ => Verdict::Never,
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    fn of(code: i64) -> Verdict {
        verdict(&ApiError::Refused { code, message: String::new() })
    }

    #[test]
    fn what_is_wrong_with_the_account_or_the_way_there_is_no_reason_to_give_a_message_up() {
        for code in [-1, 40_001, 40_013, 40_125, 40_164, 40_243, 41_001, 42_001, 45_009, 45_011, 89_501, 89_503, 89_507]
        {
            assert_eq!(of(code), Verdict::Later, "{code}");
        }
        let in_the_way = [ApiError::Status(StatusCode::FORBIDDEN), ApiError::Status(StatusCode::BAD_GATEWAY)];
        for error in in_the_way.into_iter().chain([ApiError::NotJson, ApiError::Unexpected, ApiError::NoTurn]) {
            assert_eq!(verdict(&error), Verdict::Later, "{error}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_message_or_its_user_is_for_good() {
        for code in [40_003, 40_007, 40_008, 43_004, 43_019, 45_002, 45_008, 47_001, 12_345] {
            assert_eq!(of(code), Verdict::Never, "{code}");
        }
        assert_eq!(verdict(&ApiError::TooLarge(7)), Verdict::Never);
    }

    #[test]
    fn a_user_who_cannot_be_sent_to_can_still_ask() {
        assert_eq!([45_015, 45_047, 48_001].map(of), [Verdict::Keep; 3]);
    }
}
