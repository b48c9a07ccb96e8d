// A bot that keeps a number and asks a server, and is refused both where it may not.
package main

import (
	"errors"
	"fmt"

	"aviary"
	http "aviary/wit/imports/aviary_bot_http"
	kv "aviary/wit/imports/aviary_bot_kv"
	wit "aviary/wit/types"
)

func init() {
	aviary.Handle(handle)
}

func main() {}

func handle(message aviary.Message) (aviary.Reply, error) {
	switch message.Body.Text().Content {
	case "count":
		return count("times")
	case "count without a key":
		reply, err := count("")
		var refused aviary.Error[kv.Error]
		if !errors.As(err, &refused) || refused.Reason.Tag() != kv.Error_Invalid {
			panic("the error has lost its reason")
		}
		return reply, err
	case "ask":
		return ask("https://api.example.com/v1")
	case "ask elsewhere":
		return ask("https://other.example.com/")
	}
	return nil, nil
}

func count(key string) (aviary.Reply, error) {
	bucket, err := aviary.Checked(kv.Open(kv.Scope_User))
	if err != nil {
		return nil, err
	}
	times, err := aviary.Checked(bucket.Increment(key, 1, wit.None[uint32]()))
	return aviary.Text(fmt.Sprint(times)), err
}

func ask(url string) (aviary.Reply, error) {
	request := http.Request{Method: "POST", Url: url, Body: wit.Some([]byte("你好"))}
	answer, err := aviary.Checked(http.Send(request))
	return aviary.Text(fmt.Sprintf("%d %s", answer.Status, answer.Body)), err
}
