// {{name}}: the bot. Every message starts it afresh; what has to outlive one is kept with `aviary_bot_kv_…` of bot.h.

#include <stdlib.h>

#include "aviary/aviary.h"

/// A setting: `env` in aviary.toml.
static const char *greeting(void) {
    const char *text = getenv("GREETING");
    return text ? text : "你好！";
}

/// Answers a message. `pass()` leaves it to the next plugin; `fail("why")` is a failure, which is logged.
answer_t handle(const message_t *message, reply_t *reply) {
    switch (message->body.tag) {
    case BODY_EVENT:
        if (message->body.val.event.tag == EVENT_SUBSCRIBE) return text(reply, greeting());
        break;
    case BODY_TEXT:
        if (equals(message->body.val.text.content, "你好")) return text(reply, greeting());
        if (equals(message->body.val.text.content, "文章")) {
            return news(reply, "{{name}}", "一篇文章", NULL, "https://example.com/");
        }
        break;
    case BODY_IMAGE:
        return image(reply, message->body.val.image.media_id);
    }
    return pass();
}
