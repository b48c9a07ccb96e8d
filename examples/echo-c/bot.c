// Echo: says every text back, word for word. Anything else is left to the next plugin.

#include "aviary/aviary.h"

answer_t handle(const message_t *message, reply_t *reply) {
    if (message->body.tag != BODY_TEXT) return pass();
    bot_string_t content = message->body.val.text.content;
    // WeChat refuses an empty reply.
    return content.len == 0 ? pass() : text_of(reply, content);
}
