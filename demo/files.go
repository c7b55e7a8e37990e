package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// each runs do for every argument and goes on after an error, as such tools do.
func each(io stdio, name string, args []string, do func(path string) error) int {
	status := 0
	for _, arg := range args {
		if err := do(arg); err != nil {
			status = fail(io, name, err)
		}
	}
	return status
}

// options splits leading single-letter options from the rest.
func options(args []string, known string) (map[rune]bool, []string, error) {
	set := map[rune]bool{}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		if args[0] == "--" {
			return set, args[1:], nil
		}
		for _, letter := range args[0][1:] {
			if !strings.ContainsRune(known, letter) {
				return nil, nil, fmt.Errorf("no option -%c", letter)
			}
			set[letter] = true
		}
		args = args[1:]
	}
	return set, args, nil
}

func cat(args []string, io stdio) int {
	if len(args) == 0 {
		args = []string{"-"}
	}
	return each(io, "cat", args, func(path string) error {
		if path == "-" {
			return copyAll(io.out, io.in)
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return copyAll(io.out, f)
	})
}

func ls(args []string, io stdio) int {
	set, args, err := options(args, "al1")
	if err != nil {
		return fail(io, "ls", err)
	}
	if len(args) == 0 {
		args = []string{"."}
	}
	show := func(name string, info fs.FileInfo) {
		if set['l'] {
			fmt.Fprintf(io.out, "%s %10d %s ", info.Mode(), info.Size(), info.ModTime().UTC().Format("2006-01-02 15:04"))
		}
		fmt.Fprintln(io.out, name)
	}
	return each(io, "ls", args, func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			show(path, info)
			return nil
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		if len(args) > 1 {
			fmt.Fprintf(io.out, "%s:\n", path)
		}
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), ".") && !set['a'] {
				continue
			}
			if info, err := entry.Info(); err == nil {
				show(entry.Name(), info)
			}
		}
		return nil
	})
}

func mkdir(args []string, io stdio) int {
	set, args, err := options(args, "p")
	if err != nil {
		return fail(io, "mkdir", err)
	}
	return each(io, "mkdir", args, func(path string) error {
		if set['p'] {
			return os.MkdirAll(path, 0o777)
		}
		return os.Mkdir(path, 0o777)
	})
}

func rm(args []string, io stdio) int {
	set, args, err := options(args, "rf")
	if err != nil {
		return fail(io, "rm", err)
	}
	return each(io, "rm", args, func(path string) error {
		if set['r'] {
			return os.RemoveAll(path)
		}
		if err := os.Remove(path); err != nil && !(set['f'] && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
		return nil
	})
}

func touch(args []string, io stdio) int {
	return each(io, "touch", args, func(path string) error {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		f.Close()
		return os.Chtimes(path, time.Now(), time.Now())
	})
}

// maxTail bounds what tail keeps while it looks for the last lines of a stream.
const maxTail = 64 << 20

func tail(args []string, std stdio) int {
	flags := flag.NewFlagSet("tail", flag.ContinueOnError)
	flags.SetOutput(std.err)
	lines := flags.Int("n", 10, "lines from the end")
	bytes := flags.String("c", "", "bytes from the end, or +N: from byte N on")
	// kubectl writes the number right behind the letter.
	for i, arg := range args {
		if len(arg) > 2 && (strings.HasPrefix(arg, "-c") || strings.HasPrefix(arg, "-n")) && arg[2] != '=' {
			args = slices.Concat(args[:i], []string{arg[:2], arg[2:]}, args[i+1:])
			break
		}
	}
	if err := flags.Parse(args); err != nil {
		return 2
	}
	in := std.in
	if flags.NArg() > 0 {
		f, err := os.Open(flags.Arg(0))
		if err != nil {
			return fail(std, "tail", err)
		}
		defer f.Close()
		in = f
	}
	if from, ok := strings.CutPrefix(*bytes, "+"); ok {
		n, err := strconv.ParseInt(from, 10, 64)
		if err != nil {
			return fail(std, "tail", err)
		}
		if _, err := io.CopyN(io.Discard, in, max(n-1, 0)); err != nil && err != io.EOF {
			return fail(std, "tail", err)
		}
		if err := copyAll(std.out, in); err != nil {
			return fail(std, "tail", err)
		}
		return 0
	}
	data, err := io.ReadAll(io.LimitReader(in, maxTail))
	if err != nil {
		return fail(std, "tail", err)
	}
	if *bytes != "" {
		n, err := strconv.Atoi(*bytes)
		if err != nil {
			return fail(std, "tail", err)
		}
		std.out.Write(data[max(0, len(data)-n):])
		return 0
	}
	all := strings.SplitAfter(string(data), "\n")
	if all[len(all)-1] == "" {
		all = all[:len(all)-1]
	}
	w := bufio.NewWriter(std.out)
	for _, line := range all[max(0, len(all)-*lines):] {
		w.WriteString(line)
	}
	w.Flush()
	return 0
}

// test knows the expressions that scripts and kubectl use: [!] -e -f -d -s -r -x FILE,
// -z -n STRING, A = B, A != B, and numbers with -eq -ne -lt -le -gt -ge.
func test(args []string, io stdio) int {
	if len(args) > 0 && args[0] == "!" {
		return 1 - min(1, test(args[1:], io))
	}
	truth := func(ok bool) int {
		if ok {
			return 0
		}
		return 1
	}
	switch len(args) {
	case 0:
		return 1
	case 1:
		return truth(args[0] != "")
	case 2:
		switch args[0] {
		case "-z":
			return truth(args[1] == "")
		case "-n":
			return truth(args[1] != "")
		}
		info, err := os.Stat(args[1])
		if err != nil {
			return 1
		}
		switch args[0] {
		case "-e", "-r":
			return 0
		case "-f":
			return truth(info.Mode().IsRegular())
		case "-d":
			return truth(info.IsDir())
		case "-s":
			return truth(info.Size() > 0)
		case "-x":
			return truth(info.Mode()&0o111 != 0)
		}
	case 3:
		switch args[1] {
		case "=", "==":
			return truth(args[0] == args[2])
		case "!=":
			return truth(args[0] != args[2])
		}
		a, errA := strconv.Atoi(args[0])
		b, errB := strconv.Atoi(args[2])
		if err := errors.Join(errA, errB); err != nil {
			fail(io, "test", err)
			return 2
		}
		switch args[1] {
		case "-eq":
			return truth(a == b)
		case "-ne":
			return truth(a != b)
		case "-lt":
			return truth(a < b)
		case "-le":
			return truth(a <= b)
		case "-gt":
			return truth(a > b)
		case "-ge":
			return truth(a >= b)
		}
	}
	fail(io, "test", fmt.Errorf("cannot understand %q", args))
	return 2
}
