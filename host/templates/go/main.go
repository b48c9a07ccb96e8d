package main

import (
	"{{name}}/aviary"
	// What the host calls.
	_ "{{name}}/aviary/wit/exports/wit_exports"
)

func init() {
	aviary.Handle(handle)
}

// The host calls the handler, never this.
func main() {}
