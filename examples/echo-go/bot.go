// Command echo says every text back, word for word. Anything else is left to the next plugin.
package main

import "aviary"

func init() {
	aviary.Handle(echo)
}

// The host calls the handler, never this.
func main() {}

func echo(message aviary.Message) (aviary.Reply, error) {
	body := message.Body
	// WeChat refuses an empty reply.
	if body.Tag() != aviary.BodyText || body.Text().Content == "" {
		return nil, nil
	}
	return aviary.Text(body.Text().Content), nil
}
