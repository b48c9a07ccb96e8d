#include "aviary.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// The generated code asks for an object with the component's type. The host takes a module without one for a bot.
void __component_type_object_force_link_bot(void) {}

/// Why the message failed.
static bot_string_t failure;

/// No kind of reply: what a bot has not set.
#define UNSET UINT8_MAX

/// Every line that is printed goes to the log at once: after a trap nothing would send what is still in a buffer.
__attribute__((constructor)) static void print_by_lines(void) {
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
}

answer_t pass(void) {
    return PASSED;
}

answer_t fail(const char *why) {
    bot_string_dup(&failure, why);
    return FAILED;
}

/// A failure with the host's own words, which may have any character in them.
static answer_t fail_because(const char *what, bot_string_t why) {
    size_t before = strlen(what);
    failure.len = before + why.len;
    failure.ptr = malloc(failure.len);
    if (!failure.ptr) abort();
    memcpy(failure.ptr, what, before);
    memcpy(failure.ptr + before, why.ptr, why.len);
    return FAILED;
}

answer_t fail_kv(const aviary_bot_kv_error_t *error) {
    switch (error->tag) {
    case AVIARY_BOT_KV_ERROR_DENIED:
        return fail_because("kv: denied: ", error->val.denied);
    case AVIARY_BOT_KV_ERROR_FULL:
        return fail_because("kv: full: ", error->val.full);
    case AVIARY_BOT_KV_ERROR_INVALID:
        return fail_because("kv: invalid: ", error->val.invalid);
    default:
        return fail_because("kv: unavailable: ", error->val.unavailable);
    }
}

answer_t fail_http(const aviary_bot_http_error_t *error) {
    switch (error->tag) {
    case AVIARY_BOT_HTTP_ERROR_DENIED:
        return fail_because("http: denied: ", error->val.denied);
    case AVIARY_BOT_HTTP_ERROR_INVALID:
        return fail_because("http: invalid: ", error->val.invalid);
    case AVIARY_BOT_HTTP_ERROR_TIMEOUT:
        return fail("http: nothing came in time");
    case AVIARY_BOT_HTTP_ERROR_TOO_LARGE:
        return fail("http: the answer was too large");
    default:
        return fail_because("http: unreachable: ", error->val.unreachable);
    }
}

answer_t text(reply_t *reply, const char *content) {
    reply->tag = AVIARY_BOT_TYPES_REPLY_TEXT;
    bot_string_dup(&reply->val.text, content);
    return REPLIED;
}

answer_t text_of(reply_t *reply, bot_string_t content) {
    reply->tag = AVIARY_BOT_TYPES_REPLY_TEXT;
    bot_string_dup_n(&reply->val.text, (const char *)content.ptr, content.len);
    return REPLIED;
}

answer_t image(reply_t *reply, bot_string_t media_id) {
    reply->tag = AVIARY_BOT_TYPES_REPLY_IMAGE;
    bot_string_dup_n(&reply->val.image, (const char *)media_id.ptr, media_id.len);
    return REPLIED;
}

static void set_option(bot_option_string_t *option, const char *value) {
    option->is_some = value != NULL;
    if (value) bot_string_dup(&option->val, value);
}

answer_t news(reply_t *reply, const char *title, const char *description, const char *picture_url, const char *url) {
    aviary_bot_types_article_t *article = calloc(1, sizeof *article);
    if (!article) abort();
    bot_string_dup(&article->title, title);
    set_option(&article->description, description);
    set_option(&article->pic_url, picture_url);
    bot_string_dup(&article->url, url);
    reply->tag = AVIARY_BOT_TYPES_REPLY_NEWS;
    reply->val.news.ptr = article;
    reply->val.news.len = 1;
    return REPLIED;
}

answer_t nothing(reply_t *reply) {
    reply->tag = AVIARY_BOT_TYPES_REPLY_NOTHING;
    return REPLIED;
}

bool equals(bot_string_t text, const char *other) {
    return text.len == strlen(other) && memcmp(text.ptr, other, text.len) == 0;
}

/// What the host calls.
bool exports_aviary_bot_handler_handle(message_t *message, exports_aviary_bot_handler_option_reply_t *ret, bot_string_t *err) {
    memset(&ret->val, 0, sizeof ret->val);
    ret->val.tag = UNSET;
    answer_t answer = handle(message, &ret->val);
    if (answer == REPLIED && ret->val.tag == UNSET) answer = fail("handle returned REPLIED, and set no reply");
    ret->is_some = answer == REPLIED;
    if (answer == FAILED) *err = failure;
    exports_aviary_bot_handler_message_free(message);
    // A last line without an end; this program never ends, which is when C would see to it.
    fflush(stdout);
    return answer != FAILED;
}
