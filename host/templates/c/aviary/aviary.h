// Replies in one line each, and short names for the types of wit/ that a bot needs most; bot.h has all of them.
#pragma once

#include "bot.h"

typedef aviary_bot_types_message_t message_t;
typedef aviary_bot_types_reply_t reply_t;

/// What a message is, and what an event is.
enum {
    BODY_TEXT = AVIARY_BOT_TYPES_BODY_TEXT,
    BODY_IMAGE = AVIARY_BOT_TYPES_BODY_IMAGE,
    BODY_VOICE = AVIARY_BOT_TYPES_BODY_VOICE,
    BODY_LOCATION = AVIARY_BOT_TYPES_BODY_LOCATION,
    BODY_EVENT = AVIARY_BOT_TYPES_BODY_EVENT,

    EVENT_SUBSCRIBE = AVIARY_BOT_TYPES_EVENT_SUBSCRIBE,
    EVENT_SCAN = AVIARY_BOT_TYPES_EVENT_SCAN,
    EVENT_CLICK = AVIARY_BOT_TYPES_EVENT_CLICK,
};

/// What came of a message.
typedef enum { PASSED, REPLIED, FAILED } answer_t;

/// The bot.
answer_t handle(const message_t *message, reply_t *reply);

/// Not for this bot: the next plugin is asked.
answer_t pass(void);

/// A failure, and why.
answer_t fail(const char *why);

/// A failure, for what `kv` or `http` says instead of a result.
answer_t fail_kv(const aviary_bot_kv_error_t *error);
answer_t fail_http(const aviary_bot_http_error_t *error);

/// A text; one of over 2,048 bytes comes in parts.
answer_t text(reply_t *reply, const char *content);

/// A text that a message brought.
answer_t text_of(reply_t *reply, bot_string_t content);

/// A picture, by its media id.
answer_t image(reply_t *reply, bot_string_t media_id);

/// An article that opens a page; the description and the picture may be NULL.
answer_t news(reply_t *reply, const char *title, const char *description, const char *picture_url, const char *url);

/// Handled without a word: no other plugin is asked.
answer_t nothing(reply_t *reply);

/// Whether a text of a message, which has no zero at its end, is this.
bool equals(bot_string_t text, const char *other);
