// Command {{name}} is the bot. Every message starts it afresh; what has to outlive one is kept with
// aviary/wit/imports/aviary_bot_kv.
package main

import (
	"os"

	"aviary"
)

func init() {
	aviary.Handle(handle)
}

// The host calls the handler, never this.
func main() {}

// handle answers a message. A nil reply leaves it to the next plugin; an error is a failure, which is logged.
func handle(message aviary.Message) (aviary.Reply, error) {
	switch body := message.Body; body.Tag() {
	case aviary.BodyEvent:
		if body.Event().Tag() == aviary.EventSubscribe {
			return aviary.Text(greeting()), nil
		}
	case aviary.BodyText:
		switch body.Text().Content {
		case "你好":
			return aviary.Text(greeting()), nil
		case "文章":
			return aviary.News("{{name}}", "一篇文章", "", "https://example.com/"), nil
		}
	case aviary.BodyImage:
		return aviary.Image(body.Image().MediaId), nil
	}
	return nil, nil
}

// greeting is a setting: `env` in aviary.toml.
func greeting() string {
	if text, set := os.LookupEnv("GREETING"); set {
		return text
	}
	return "你好！"
}
