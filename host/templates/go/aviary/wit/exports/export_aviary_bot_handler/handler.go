// Package export_aviary_bot_handler is where the generated code looks for the handler.
package export_aviary_bot_handler

import (
	"{{name}}/aviary"
	types "{{name}}/aviary/wit/imports/aviary_bot_types"
	wit "{{name}}/aviary/wit/types"
)

// Handle answers one message.
func Handle(message types.Message) wit.Result[wit.Option[types.Reply], string] {
	reply, err := aviary.Answer(message)
	switch {
	case err != nil:
		return wit.Err[wit.Option[types.Reply], string](err.Error())
	case reply == nil:
		return wit.Ok[wit.Option[types.Reply], string](wit.None[types.Reply]())
	}
	return wit.Ok[wit.Option[types.Reply], string](wit.Some(*reply))
}
