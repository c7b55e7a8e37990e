package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// The shell knows the part of POSIX sh that pod examples use: lists with ; & &&
// and ||, pipelines, ( ) and { }, if, while, until, for, the redirections
// < > >> and 2>&1, quotes, $NAME ${NAME} ${NAME:-WORD} $? $# $@ $1 $(…), * and ?.
// No functions, case, traps, arithmetic or job control. parse.go reads commands,
// this file runs them, expand.go replaces what is in their words.

// shell is the state that commands share; a subshell gets a copy.
type shell struct {
	name     string
	args     []string
	vars     map[string]string
	exported map[string]bool
	dir      string
	status   int
	inner    int // the status of the last $(…) of the command that is expanded
	jobs     *sync.WaitGroup
}

// Ways to leave a command early.
var (
	errBreak    = errors.New("break outside a loop")
	errContinue = errors.New("continue outside a loop")
)

type errExit int

func (e errExit) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func sh(args []string, std stdio) int {
	s := &shell{name: "sh", vars: map[string]string{}, exported: map[string]bool{}, jobs: &sync.WaitGroup{}}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		s.vars[name], s.exported[name] = value, true
	}
	s.dir, _ = os.Getwd()
	switch {
	case len(args) > 1 && args[0] == "-c":
		if len(args) > 2 {
			s.name, s.args = args[2], args[3:]
		}
		return s.script(args[1], std)
	case len(args) > 0 && !strings.HasPrefix(args[0], "-"):
		data, err := os.ReadFile(args[0])
		if err != nil {
			return fail(std, "sh", err)
		}
		s.name, s.args = args[0], args[1:]
		return s.script(string(data), std)
	case len(args) > 0 && args[0] != "-i":
		return fail(std, "sh", fmt.Errorf("cannot understand %q", args))
	}
	return s.interactive(std)
}

// interactive reads a line at a time, more when a command goes on.
func (s *shell) interactive(std stdio) int {
	prompt := ""
	if f, ok := std.in.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			prompt = "$ "
			signal.Ignore(syscall.SIGINT) // it is meant for the command that runs
			defer signal.Reset(syscall.SIGINT)
		}
	}
	lines := byteLines{std.in}
	for {
		fmt.Fprint(std.err, prompt)
		text, err := lines.next()
		for err == nil {
			if _, parseErr := parse(text); !errors.Is(parseErr, errMore) {
				break
			}
			if prompt != "" {
				fmt.Fprint(std.err, "> ")
			}
			var more string
			more, err = lines.next()
			text += more
		}
		if text != "" {
			if leave := s.run(text, std); leave != nil {
				return s.status
			}
		}
		if err != nil {
			if prompt != "" {
				fmt.Fprintln(std.err)
			}
			return s.status
		}
	}
}

// byteLines reads no further than the end of a line: what follows may be meant
// for the command on it.
type byteLines struct{ in io.Reader }

func (b byteLines) next() (string, error) {
	var line []byte
	one := make([]byte, 1)
	for {
		n, err := b.in.Read(one)
		if n == 1 {
			line = append(line, one[0])
			if one[0] == '\n' {
				return string(line), nil
			}
		}
		if err != nil {
			return string(line), err
		}
	}
}

func (s *shell) script(text string, std stdio) int {
	s.run(text, std)
	return s.status
}

// run parses and runs text; the error is an errExit or nil.
func (s *shell) run(text string, std stdio) error {
	tree, err := parse(text)
	if err != nil {
		fmt.Fprintf(std.err, "sh: %v\n", err)
		s.status = 2
		return nil
	}
	err = s.list(tree, std)
	if leave, ok := err.(errExit); ok {
		s.status = int(leave)
		return err
	}
	return nil
}

func (s *shell) list(nodes []node, std stdio) error {
	for _, n := range nodes {
		if n.background {
			own := s.copy()
			s.jobs.Add(1)
			go func() {
				defer s.jobs.Done()
				own.node(n, std)
			}()
			s.status = 0
			continue
		}
		if err := s.node(n, std); err != nil {
			return err
		}
	}
	return nil
}

func (s *shell) copy() *shell {
	own := *s
	own.vars, own.exported = maps.Clone(s.vars), maps.Clone(s.exported)
	own.jobs = &sync.WaitGroup{}
	return &own
}

func (s *shell) node(n node, std stdio) error {
	switch n.kind {
	case "&&", "||":
		if err := s.node(n.parts[0], std); err != nil {
			return err
		}
		if (s.status == 0) == (n.kind == "&&") {
			return s.node(n.parts[1], std)
		}
		return nil
	case "!":
		err := s.node(n.parts[0], std)
		s.status = 1 - min(1, s.status)
		return err
	case "|":
		return s.pipeline(n.parts, std)
	}
	std, done, err := s.redirect(n.redirects, std)
	defer done()
	if err != nil {
		s.status = fail(std, "sh", err)
		return nil
	}
	switch n.kind {
	case "{":
		return s.list(n.body, std)
	case "(":
		own := s.copy()
		err := own.list(n.body, std)
		s.status = own.status
		if leave, ok := err.(errExit); ok {
			s.status = int(leave)
		}
		return nil
	case "if":
		for _, branch := range n.parts { // each a condition and a body
			if err := s.list(branch.condition, std); err != nil {
				return err
			}
			if s.status == 0 {
				return s.list(branch.body, std)
			}
		}
		s.status = 0
		return s.list(n.body, std) // else
	case "while", "until":
		status := 0
		for {
			if err := s.list(n.condition, std); err != nil {
				return err
			}
			if (s.status == 0) != (n.kind == "while") {
				s.status = status
				return nil
			}
			if stop, err := s.loopBody(n.body, std); stop {
				return err
			}
			status = s.status
		}
	case "for":
		words, err := s.expandAll(n.words[1:], std)
		if err != nil {
			s.status = fail(std, "sh", err)
			return nil
		}
		s.status = 0
		for _, word := range words {
			s.vars[n.words[0].text()] = word
			if stop, err := s.loopBody(n.body, std); stop {
				return err
			}
		}
		return nil
	}
	return s.simple(n, std)
}

func (s *shell) loopBody(body []node, std stdio) (stop bool, err error) {
	switch err := s.list(body, std); err {
	case nil, errContinue:
		return false, nil
	case errBreak:
		return true, nil
	default:
		return true, err
	}
}

// pipeline runs every command in a copy of the shell, joined by pipes; the
// status is the last one's.
func (s *shell) pipeline(parts []node, std stdio) error {
	var all sync.WaitGroup
	in := std.in
	last := s.copy()
	for i, part := range parts {
		own, io := s.copy(), std
		io.in = in
		var mine []*os.File
		if f, ok := in.(*os.File); ok && i > 0 {
			mine = append(mine, f)
		}
		if i < len(parts)-1 {
			r, w, err := os.Pipe()
			if err != nil {
				s.status = fail(std, "sh", err)
				break
			}
			io.out, in = w, r
			mine = append(mine, w)
		} else {
			last = own
		}
		all.Go(func() {
			if leave, ok := own.node(part, io).(errExit); ok {
				own.status = int(leave)
			}
			for _, f := range mine {
				f.Close()
			}
		})
	}
	all.Wait()
	s.status = last.status
	return nil
}

// redirect opens what a command reads and writes; done closes it again.
func (s *shell) redirect(redirects []redirection, std stdio) (to stdio, done func(), err error) {
	var opened []*os.File
	done = func() {
		for _, f := range opened {
			f.Close()
		}
	}
	for _, r := range redirects {
		words, err := s.expandAll([]word{r.target}, std)
		if err != nil || len(words) != 1 {
			return std, done, errors.Join(err, fmt.Errorf("a redirection needs one file"))
		}
		target := words[0]
		switch r.operator {
		case ">&":
			switch target {
			case "1":
				std.err = std.out
			case "2":
				std.out = std.err
			default:
				return std, done, fmt.Errorf("cannot redirect to %q", target)
			}
			continue
		}
		flags := map[string]int{"<": os.O_RDONLY, ">": os.O_WRONLY | os.O_CREATE | os.O_TRUNC, ">>": os.O_WRONLY | os.O_CREATE | os.O_APPEND}[r.operator]
		f, err := os.OpenFile(s.path(target), flags, 0o666)
		if err != nil {
			return std, done, err
		}
		opened = append(opened, f)
		switch {
		case r.operator == "<":
			std.in = f
		case r.fd == 2:
			std.err = f
		default:
			std.out = f
		}
	}
	return std, done, nil
}

func (s *shell) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.dir, name)
}

func (s *shell) simple(n node, std stdio) error {
	s.inner = 0
	words, err := s.expandAll(n.words, std)
	if err != nil {
		s.status = fail(std, "sh", err)
		return nil
	}
	assigned := map[string]string{}
	for _, a := range n.assignments {
		value, err := s.expandOne(a.value, std)
		if err != nil {
			s.status = fail(std, "sh", err)
			return nil
		}
		assigned[a.name] = value
	}
	if len(words) == 0 {
		maps.Copy(s.vars, assigned)
		s.status = s.inner
		return nil
	}
	if done, err := s.builtin(words, std); done {
		return err
	}
	s.status = s.external(words, assigned, std)
	return nil
}

// builtin runs what must run in the shell itself, and what is cheap to.
func (s *shell) builtin(words []string, std stdio) (bool, error) {
	status := 0
	args := words[1:]
	switch words[0] {
	case ":":
	case "echo", "true", "false":
		status = tools[words[0]].run(args, std)
	case "test":
		status = test(s.testPaths(args), std)
	case "[":
		if len(args) == 0 || args[len(args)-1] != "]" {
			status = fail(std, "[", errors.New("] is missing"))
		} else {
			status = test(s.testPaths(args[:len(args)-1]), std)
		}
	case "break":
		return true, errBreak
	case "continue":
		return true, errContinue
	case "exit":
		if len(args) > 0 {
			return true, errExit(exit(args, std))
		}
		return true, errExit(s.status)
	case "cd":
		dir := s.vars["HOME"]
		if len(args) > 0 {
			dir = args[0]
		}
		if info, err := os.Stat(s.path(dir)); err != nil || !info.IsDir() {
			status = fail(std, "cd", fmt.Errorf("%s is not a directory", dir))
		} else {
			s.dir = filepath.Clean(s.path(dir))
			s.vars["PWD"] = s.dir
		}
	case "pwd":
		fmt.Fprintln(std.out, s.dir)
	case "export":
		for _, arg := range args {
			name, value, has := strings.Cut(arg, "=")
			if has {
				s.vars[name] = value
			}
			s.exported[name] = true
		}
	case "unset":
		for _, name := range args {
			delete(s.vars, name)
			delete(s.exported, name)
		}
	case "read":
		line, err := byteLines{std.in}.next()
		if err != nil && line == "" {
			status = 1
		}
		rest := strings.TrimSpace(line)
		for i, name := range args {
			if i == len(args)-1 {
				s.vars[name] = rest
				break
			}
			var field string
			field, rest, _ = strings.Cut(rest, " ")
			s.vars[name], rest = field, strings.TrimSpace(rest)
		}
	case "shift":
		s.args = s.args[min(1, len(s.args)):]
	case "wait":
		s.jobs.Wait()
	case "trap", "set", "eval", "exec", "source", ".", "case", "function":
		status = fail(std, "sh", fmt.Errorf("this small shell has no %s", words[0]))
	default:
		return false, nil
	}
	s.status = status
	return true, nil
}

// testPaths makes the file of a file test relative to the shell's directory.
func (s *shell) testPaths(args []string) []string {
	if n := len(args); n >= 2 && len(args[n-2]) == 2 && strings.Contains("-e-f-d-s-r-x", args[n-2]) {
		args = append([]string{}, args...)
		args[n-1] = s.path(args[n-1])
	}
	return args
}

// external runs a program, or one of our tools as a process of its own, so that
// it can be interrupted alone.
func (s *shell) external(words []string, assigned map[string]string, std stdio) int {
	path, err := s.find(words[0])
	if err != nil {
		fmt.Fprintf(std.err, "sh: %s: not found\n", words[0])
		return 127
	}
	cmd := &exec.Cmd{Path: path, Args: words, Dir: s.dir, Stdin: std.in, Stdout: std.out, Stderr: std.err}
	for name := range s.exported {
		if value, ok := s.vars[name]; ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	for name, value := range assigned {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	err = cmd.Run()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal())
		}
		return ended.ExitCode()
	default:
		fmt.Fprintf(std.err, "sh: %v\n", err)
		return 126
	}
}

func (s *shell) find(name string) (string, error) {
	if strings.Contains(name, "/") {
		return s.path(name), nil
	}
	for _, dir := range filepath.SplitList(s.vars["PATH"]) {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	if _, ok := tools[name]; ok {
		return os.Executable()
	}
	return "", os.ErrNotExist
}
