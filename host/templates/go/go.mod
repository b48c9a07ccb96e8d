// A path that no package of Go, nor the one below, can have: the project may be named `aviary`, or `time`.
module example.com/{{name}}

go 1.25

require aviary v0.0.0

// Replies and bindings: they belong to the project, and are fetched from nowhere.
replace aviary => ./aviary
