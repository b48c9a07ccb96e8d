// Echo: says every text back, word for word. Anything else is left to the next plugin.

#include "gen/bot.h"

// Returns the reply in `ret`, or nothing: `ret->is_some` is false then. To return false is a failure, with its text in `err`.
bool exports_aviary_bot_handler_handle(
    exports_aviary_bot_handler_message_t *message,
    exports_aviary_bot_handler_option_reply_t *ret,
    bot_string_t *err
) {
    (void)err;
    ret->is_some = false;
    // WeChat refuses an empty reply.
    if (message->body.tag == AVIARY_BOT_TYPES_BODY_TEXT && message->body.val.text.content.len > 0) {
        ret->is_some = true;
        ret->val.tag = AVIARY_BOT_TYPES_REPLY_TEXT;
        ret->val.val.text = message->body.val.text.content;
        // Handed on: the message no longer owns it.
        message->body.val.text.content = (bot_string_t){0};
    }
    exports_aviary_bot_handler_message_free(message);
    return true;
}
