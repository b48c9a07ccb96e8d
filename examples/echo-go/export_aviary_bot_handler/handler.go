// Package export_aviary_bot_handler is the bot: wit-bindgen's code calls it under this name.
//
// Echo says every text back, word for word. Anything else is left to the next plugin.
package export_aviary_bot_handler

import (
	wit "go.bytecodealliance.org/pkg/wit/types"

	bot "wit_component/aviary_bot_types"
)

// Handle answers one message.
func Handle(message bot.Message) wit.Result[wit.Option[bot.Reply], string] {
	return wit.Ok[wit.Option[bot.Reply], string](answer(message.Body))
}

func answer(body bot.Body) wit.Option[bot.Reply] {
	// WeChat refuses an empty reply.
	if body.Tag() != bot.Body_Text || body.Text().Content == "" {
		return wit.None[bot.Reply]()
	}
	return wit.Some(bot.MakeReplyText(body.Text().Content))
}
