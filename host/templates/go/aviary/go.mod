module aviary

go 1.25
