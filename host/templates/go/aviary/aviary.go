// Package aviary makes replies in one line each, and names the types of wit/ that a bot needs most.
package aviary

import (
	"aviary/wit/exports/export_aviary_bot_handler"
	// What the host calls.
	_ "aviary/wit/exports/wit_exports"
	types "aviary/wit/imports/aviary_bot_types"
	wit "aviary/wit/types"
)

// Message is one message or event.
type Message = types.Message

// Reply is what the bot says; nil leaves the message to the next plugin.
type Reply = *types.Reply

// Body is what a message is; Event is what happened.
type (
	Body  = types.Body
	Event = types.Event
)

// What a message is, and what an event is. The rest is in the package of the types.
const (
	BodyText     = types.Body_Text
	BodyImage    = types.Body_Image
	BodyVoice    = types.Body_Voice
	BodyLocation = types.Body_Location
	BodyEvent    = types.Body_Event

	EventSubscribe   = types.Event_Subscribe
	EventUnsubscribe = types.Event_Unsubscribe
	EventScan        = types.Event_Scan
	EventClick       = types.Event_Click
)

// Handle sets the function that answers messages; for `init`. The host never calls `main`.
func Handle(handle func(Message) (Reply, error)) {
	export_aviary_bot_handler.Answer = handle
}

// Text is a text; one of over 2,048 bytes comes in parts.
func Text(content string) Reply {
	reply := types.MakeReplyText(content)
	return &reply
}

// Image is a picture, by its media id.
func Image(mediaID string) Reply {
	reply := types.MakeReplyImage(mediaID)
	return &reply
}

// News is an article that opens a page; without a description or a picture where they are empty.
func News(title, description, pictureURL, url string) Reply {
	article := types.Article{Title: title, Description: given(description), PicUrl: given(pictureURL), Url: url}
	reply := types.MakeReplyNews([]types.Article{article})
	return &reply
}

// Nothing handles the message without a word: no other plugin is asked.
func Nothing() Reply {
	reply := types.MakeReplyNothing()
	return &reply
}

func given(text string) wit.Option[string] {
	if text == "" {
		return wit.None[string]()
	}
	return wit.Some(text)
}
