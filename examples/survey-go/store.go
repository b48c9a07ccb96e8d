package main

import (
	"fmt"

	"aviary"
	"aviary/wit/imports/aviary_bot_kv"
	wit "aviary/wit/types"
)

// How long an open survey waits for its next answer, in seconds.
const sessionS = 1800

// Keys of a user's own.
const (
	sessionKey = "session"
	doneKey    = "done"
)

// session is what a user answered so far: one digit for each question.
type session string

func (s session) with(choice int) session {
	return s + session(fmt.Sprint(choice))
}

// replace moves the session on, unless another message did.
func (s session) replace(next session) (bool, error) {
	return s.swap(wit.Some([]byte(next)))
}

// end closes the session, unless another message did.
func (s session) end() (bool, error) {
	return s.swap(wit.None[[]byte]())
}

func (s session) swap(value wit.Option[[]byte]) (bool, error) {
	bucket, err := user()
	if err != nil {
		return false, err
	}
	return aviary.Checked(bucket.CompareAndSet(sessionKey, wit.Some([]byte(s)), value, wit.Some[uint32](sessionS)))
}

// open begins a session.
func open() error {
	bucket, err := user()
	if err != nil {
		return err
	}
	_, err = aviary.Checked(bucket.Set(sessionKey, nil, wit.Some[uint32](sessionS)))
	return err
}

// current returns the user's session, and whether there is one.
func current() (session, bool, error) {
	bucket, err := user()
	if err != nil {
		return "", false, err
	}
	value, err := aviary.Checked(bucket.Get(sessionKey))
	if err != nil || value.IsNone() {
		return "", false, err
	}
	return session(value.Some()), true, nil
}

func forget() error {
	bucket, err := user()
	if err != nil {
		return err
	}
	_, err = aviary.Checked(bucket.Delete(sessionKey))
	return err
}

func isDone() (bool, error) {
	bucket, err := user()
	if err != nil {
		return false, err
	}
	value, err := aviary.Checked(bucket.Get(doneKey))
	return value.IsSome(), err
}

// count adds a user's answers to everybody's.
func count(answers session) error {
	own, err := user()
	if err != nil {
		return err
	}
	if _, err := aviary.Checked(own.Set(doneKey, []byte("1"), wit.None[uint32]())); err != nil {
		return err
	}
	all, err := aviary.Checked(aviary_bot_kv.Open(aviary_bot_kv.Scope_Plugin))
	if err != nil {
		return err
	}
	for number, digit := range answers {
		if _, err := aviary.Checked(all.Increment(countKey(number, int(digit-'0')), 1, wit.None[uint32]())); err != nil {
			return err
		}
	}
	return nil
}

// counted returns how often an answer was given, in digits.
func counted(number, choice int) (string, error) {
	all, err := aviary.Checked(aviary_bot_kv.Open(aviary_bot_kv.Scope_Plugin))
	if err != nil {
		return "", err
	}
	value, err := aviary.Checked(all.Get(countKey(number, choice)))
	if err != nil {
		return "", err
	}
	return string(value.SomeOr([]byte("0"))), nil
}

func countKey(number, choice int) string {
	return fmt.Sprintf("count/%d/%d", number, choice)
}

func user() (*aviary_bot_kv.Bucket, error) {
	return aviary.Checked(aviary_bot_kv.Open(aviary_bot_kv.Scope_User))
}
