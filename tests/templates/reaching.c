// A bot that keeps a number and asks a server, and is refused both where it may not.

#include <inttypes.h>
#include <stdio.h>

#include "aviary/aviary.h"

static answer_t count(reply_t *reply, const char *name) {
    aviary_bot_kv_own_bucket_t bucket;
    aviary_bot_kv_error_t error;
    if (!aviary_bot_kv_open(AVIARY_BOT_KV_SCOPE_USER, &bucket, &error)) return fail_kv(&error);
    bot_string_t key;
    bot_string_set(&key, name);
    aviary_bot_kv_borrow_bucket_t own = aviary_bot_kv_borrow_bucket(bucket);
    int64_t times;
    if (!aviary_bot_kv_method_bucket_increment(own, &key, 1, NULL, &times, &error)) return fail_kv(&error);
    char said[32];
    snprintf(said, sizeof said, "%" PRId64, times);
    return text(reply, said);
}

static answer_t ask(reply_t *reply, const char *url) {
    aviary_bot_http_request_t request = {0};
    bot_string_set(&request.method, "POST");
    bot_string_set(&request.url, url);
    request.body.is_some = true;
    request.body.val.ptr = (uint8_t *)"你好";
    request.body.val.len = sizeof "你好" - 1;
    aviary_bot_http_response_t answer;
    aviary_bot_http_error_t error;
    if (!aviary_bot_http_send(&request, &answer, &error)) return fail_http(&error);
    char said[2048];
    snprintf(said, sizeof said, "%d %.*s", answer.status, (int)answer.body.len, (const char *)answer.body.ptr);
    return text(reply, said);
}

answer_t handle(const message_t *message, reply_t *reply) {
    if (message->body.tag != BODY_TEXT) return pass();
    bot_string_t said = message->body.val.text.content;
    if (equals(said, "count")) return count(reply, "times");
    if (equals(said, "count without a key")) return count(reply, "");
    if (equals(said, "ask")) return ask(reply, "https://api.example.com/v1");
    if (equals(said, "ask elsewhere")) return ask(reply, "https://other.example.com/");
    if (equals(said, "forget the reply")) return REPLIED;
    return pass();
}
