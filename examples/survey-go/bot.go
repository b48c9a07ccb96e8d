// Command survey asks a few questions, one after the other, and counts the answers.
//
//	| what a user does                                            | answer                                  |
//	|-------------------------------------------------------------|-----------------------------------------|
//	| taps a menu item with the key `survey`                      | the first question                      |
//	| scans a QR code with the scene `survey`, as a follower or not yet | the first question                |
//	| sends a number, or 退出, while the survey is open           | the next question, or thanks            |
//	| taps a menu item with the key `survey-result`               | what everybody answered                 |
//	| unfollows                                                   | none; an open survey is forgotten       |
//	| anything else                                               | none: the next plugin is asked          |
package main

import (
	"strings"

	"aviary"
)

func init() {
	aviary.Handle(handle)
}

// The host calls the handler, never this.
func main() {}

func handle(message aviary.Message) (aviary.Reply, error) {
	text, err := answer(message.Body)
	if err != nil || text == "" {
		return nil, err
	}
	return aviary.Text(text), nil
}

// answer returns what is said; nothing leaves the message to the next plugin.
func answer(body aviary.Body) (string, error) {
	switch body.Tag() {
	case aviary.BodyText:
		return answered(strings.TrimSpace(body.Text().Content))
	case aviary.BodyEvent:
		return happened(body.Event())
	default:
		return "", nil
	}
}

func happened(event aviary.Event) (string, error) {
	switch event.Tag() {
	case aviary.EventClick:
		switch event.Click().Key {
		case "survey":
			return begin()
		case "survey-result":
			return result()
		}
	case aviary.EventScan:
		if event.Scan().Scene == "survey" {
			return begin()
		}
	case aviary.EventSubscribe:
		if event.Subscribe().Scene.SomeOr("") == "survey" {
			return begin()
		}
	case aviary.EventUnsubscribe:
		return "", forget()
	}
	return "", nil
}
