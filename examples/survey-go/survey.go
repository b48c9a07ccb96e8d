package main

import (
	"fmt"
	"strconv"
	"strings"
)

type question struct {
	text    string
	answers []string
}

var questions = []question{
	{"您是从哪里知道我们的？", []string{"朋友推荐", "朋友圈", "搜索"}},
	{"您多久来一次？", []string{"每周", "每月", "更少"}},
	{"您会把我们推荐给朋友吗？", []string{"会", "不会"}},
}

const (
	thanks   = "谢谢您的回答！"
	finished = "您已经填过了，谢谢！"
	left     = "好的，不填了。想再填时点菜单“问卷”。"
	quit     = "退出"
)

// begin opens the survey for the user, from the start.
func begin() (string, error) {
	done, err := isDone()
	if err != nil || done {
		return finished, err
	}
	if err := open(); err != nil {
		return "", err
	}
	return ask(0), nil
}

// answered takes a text as an answer, if the user has the survey open.
func answered(text string) (string, error) {
	answers, isOpen, err := current()
	if err != nil || !isOpen {
		return "", err
	}
	if text == quit {
		return left, forget()
	}
	number := len(answers)
	if number >= len(questions) {
		// It was begun when there were more of them, and counts for none of those that there are now.
		return begin()
	}
	choice, err := strconv.Atoi(text)
	if err != nil || choice < 1 || choice > len(questions[number].answers) {
		return fmt.Sprintf("请回复 1 到 %d 的数字，或“%s”。\n%s", len(questions[number].answers), quit, ask(number)), nil
	}
	return advance(answers, choice)
}

// advance notes an answer. Of two messages at once, one does; the other is asked the same again.
func advance(answers session, choice int) (string, error) {
	next := answers.with(choice)
	if len(next) < len(questions) {
		moved, err := answers.replace(next)
		if err != nil || !moved {
			return ask(len(answers)), err
		}
		return ask(len(next)), nil
	}
	closed, err := answers.end()
	if err != nil || !closed {
		return thanks, err
	}
	return thanks, count(next)
}

func ask(number int) string {
	lines := []string{fmt.Sprintf("%d/%d %s", number+1, len(questions), questions[number].text)}
	for index, answer := range questions[number].answers {
		lines = append(lines, fmt.Sprintf("%d %s", index+1, answer))
	}
	return strings.Join(lines, "\n")
}

// result tells how often each answer was given.
func result() (string, error) {
	var lines []string
	for number, question := range questions {
		lines = append(lines, question.text)
		for index, answer := range question.answers {
			times, err := counted(number, index+1)
			if err != nil {
				return "", err
			}
			lines = append(lines, fmt.Sprintf("　%s：%s", answer, times))
		}
	}
	return strings.Join(lines, "\n"), nil
}
