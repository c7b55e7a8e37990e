// Command demo is what the demo image runs: a web server that shows which pod
// answers, and a handful of small tools, so that there is something to exec,
// copy and log in an image without a distribution.
//
// Called as /demo it takes the tool's name as first argument; called through a
// link (/bin/ls, /bin/tar, …) the link's name is the tool. Without either it is
// the web server.
//
// Start reading at tools, the list of everything it can do.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// stdio is what a tool reads and writes; the shell gives each of a pipeline its own.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// A tool takes its arguments without its name and returns an exit status.
type tool struct {
	usage string
	run   func(args []string, io stdio) int
}

// tools is filled by init, since help and sh refer to it.
var tools map[string]tool

func init() {
	tools = map[string]tool{
		"serve":    {"[-address :8080] [-name NAME] [-drain 10s]: the web server", serve},
		"cat":      {"[FILE…]: print files", cat},
		"date":     {": print the time", date},
		"echo":     {"[-n] [WORD…]: print words", echo},
		"env":      {": print the environment", env},
		"exit":     {"[STATUS]: end with a status", exit},
		"false":    {": end with status 1", func([]string, stdio) int { return 1 }},
		"fetch":    {"[-status] URL: print what a web server answers", fetch},
		"help":     {": print this", help},
		"hostname": {": print the host's name", hostname},
		"id":       {": print user and group", id},
		"ls":       {"[-a] [-l] [FILE…]: list files", ls},
		"mkdir":    {"[-p] DIR…: make directories", mkdir},
		"rm":       {"[-r] [-f] FILE…: remove files", rm},
		"sh":       {"[-c COMMANDS [NAME [ARG…]]]: a small shell", sh},
		"sleep":    {"DURATION…: wait: seconds, or 2m, 1h, inf", sleep},
		"tail":     {"[-n LINES | -c BYTES | -c +FROM] [FILE]: print the end of a file", tail},
		"tar":      {"c|x[vm]f ARCHIVE [-C DIR] [FILE…]: pack and unpack", tarTool},
		"test":     {"EXPRESSION: check files and strings", test},
		"touch":    {"FILE…: make files, set their time", touch},
		"true":     {": end with status 0", func([]string, stdio) int { return 0 }},
	}
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if _, isTool := tools[name]; !isTool {
		name = "serve"
		if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
			name, args = args[0], args[1:]
		}
	}
	t, ok := tools[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "demo: no tool %q; there are: %s\n", name, strings.Join(names(), " "))
		os.Exit(127)
	}
	if name != "serve" { // which finishes what is under way
		// The kernel spares the first process of a container from signals that it
		// does not handle.
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		go func() {
			<-stop
			os.Exit(128 + int(syscall.SIGTERM))
		}()
	}
	os.Exit(t.run(args, stdio{os.Stdin, os.Stdout, os.Stderr}))
}

func names() []string {
	var all []string
	for name := range tools {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func help(_ []string, io stdio) int {
	for _, name := range names() {
		fmt.Fprintf(io.out, "%s %s\n", name, tools[name].usage)
	}
	return 0
}

// fail prints an error the way tools do and returns the status for it.
func fail(io stdio, name string, err error) int {
	fmt.Fprintf(io.err, "%s: %v\n", name, err)
	return 1
}
