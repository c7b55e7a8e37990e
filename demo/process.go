package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

func echo(args []string, io stdio) int {
	end := "\n"
	if len(args) > 0 && args[0] == "-n" {
		args, end = args[1:], ""
	}
	fmt.Fprint(io.out, strings.Join(args, " ")+end)
	return 0
}

func env(_ []string, io stdio) int {
	all := os.Environ()
	slices.Sort(all)
	for _, line := range all {
		fmt.Fprintln(io.out, line)
	}
	return 0
}

func date(_ []string, io stdio) int {
	fmt.Fprintln(io.out, now())
	return 0
}

func hostname(_ []string, io stdio) int {
	name, err := os.Hostname()
	if err != nil {
		return fail(io, "hostname", err)
	}
	fmt.Fprintln(io.out, name)
	return 0
}

func id(_ []string, io stdio) int {
	groups, _ := os.Getgroups()
	fmt.Fprintf(io.out, "uid=%d gid=%d groups=%s\n", os.Getuid(), os.Getgid(), strings.Trim(strings.ReplaceAll(fmt.Sprint(groups), " ", ","), "[]"))
	return 0
}

func exit(args []string, io stdio) int {
	if len(args) == 0 {
		return 0
	}
	status, err := strconv.Atoi(args[0])
	if err != nil {
		fail(io, "exit", err)
		return 2
	}
	return status & 0xff
}

func sleep(args []string, io stdio) int {
	var total time.Duration
	for _, arg := range args {
		if arg == "inf" || arg == "infinity" {
			select {} // until a signal
		}
		d, err := time.ParseDuration(arg)
		if err != nil {
			d, err = time.ParseDuration(arg + "s")
		}
		if err != nil || d < 0 {
			return fail(io, "sleep", fmt.Errorf("invalid time %q", arg))
		}
		total += d
	}
	time.Sleep(total)
	return 0
}
