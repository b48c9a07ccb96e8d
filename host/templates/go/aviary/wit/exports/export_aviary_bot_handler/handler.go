// Package export_aviary_bot_handler is where the generated code looks for the handler.
package export_aviary_bot_handler

import (
	types "aviary/wit/imports/aviary_bot_types"
	wit "aviary/wit/types"
)

// Answer is the bot's function, once aviary.Handle was called.
var Answer func(types.Message) (*types.Reply, error)

// Handle answers one message.
func Handle(message types.Message) wit.Result[wit.Option[types.Reply], string] {
	if Answer == nil {
		return wit.Err[wit.Option[types.Reply], string]("the bot has no handler: call aviary.Handle in an init function")
	}
	reply, err := Answer(message)
	switch {
	case err != nil:
		return wit.Err[wit.Option[types.Reply], string](err.Error())
	case reply == nil:
		return wit.Ok[wit.Option[types.Reply], string](wit.None[types.Reply]())
	}
	return wit.Ok[wit.Option[types.Reply], string](wit.Some(*reply))
}
