// Package export_aviary_bot_handler is the bot: wit-bindgen's code calls it under this name.
//
// Survey asks a few questions, one after the other, and counts the answers.
//
//	| what a user does                                            | answer                                  |
//	|-------------------------------------------------------------|-----------------------------------------|
//	| taps a menu item with the key `survey`                      | the first question                      |
//	| scans a QR code with the scene `survey`, as a follower or not yet | the first question                |
//	| sends a number, or 退出, while the survey is open           | the next question, or thanks            |
//	| taps a menu item with the key `survey-result`               | what everybody answered                 |
//	| unfollows                                                   | none; an open survey is forgotten       |
//	| anything else                                               | none: the next plugin is asked          |
package export_aviary_bot_handler

import (
	"strings"

	wit "go.bytecodealliance.org/pkg/wit/types"

	bot "wit_component/aviary_bot_types"
)

// Handle answers one message.
func Handle(message bot.Message) wit.Result[wit.Option[bot.Reply], string] {
	text, err := answer(message.Body)
	switch {
	case err != nil:
		return wit.Err[wit.Option[bot.Reply], string](err.Error())
	case text == "":
		return wit.Ok[wit.Option[bot.Reply], string](wit.None[bot.Reply]())
	default:
		return wit.Ok[wit.Option[bot.Reply], string](wit.Some(bot.MakeReplyText(text)))
	}
}

// answer returns what is said; nothing leaves the message to the next plugin.
func answer(body bot.Body) (string, error) {
	switch body.Tag() {
	case bot.Body_Text:
		return answered(strings.TrimSpace(body.Text().Content))
	case bot.Body_Event:
		return happened(body.Event())
	default:
		return "", nil
	}
}

func happened(event bot.Event) (string, error) {
	switch event.Tag() {
	case bot.Event_Click:
		switch event.Click().Key {
		case "survey":
			return begin()
		case "survey-result":
			return result()
		}
	case bot.Event_Scan:
		if event.Scan().Scene == "survey" {
			return begin()
		}
	case bot.Event_Subscribe:
		if event.Subscribe().Scene.SomeOr("") == "survey" {
			return begin()
		}
	case bot.Event_Unsubscribe:
		return "", forget()
	}
	return "", nil
}
