package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// expandAll turns words into arguments: parameters and commands replaced, the
// unquoted results split at blanks, patterns replaced by the files they match.
func (s *shell) expandAll(words []word, std stdio) ([]string, error) {
	var out []string
	for _, w := range words {
		fields, err := s.fields(w, std)
		if err != nil {
			return nil, err
		}
		for _, f := range fields {
			if !f.pattern {
				out = append(out, f.text)
				continue
			}
			matches, err := filepath.Glob(s.path(f.text))
			if err != nil || len(matches) == 0 {
				out = append(out, f.text)
				continue
			}
			for _, m := range matches {
				if rel, err := filepath.Rel(s.dir, m); err == nil && !filepath.IsAbs(f.text) {
					m = rel
				}
				out = append(out, m)
			}
		}
	}
	return out, nil
}

// expandOne is for places that take one string whatever is in it.
func (s *shell) expandOne(w word, std stdio) (string, error) {
	var all strings.Builder
	for _, p := range w {
		value, err := s.value(p, std)
		if err != nil {
			return "", err
		}
		all.WriteString(value)
	}
	return all.String(), nil
}

type field struct {
	text    string
	pattern bool
}

func (s *shell) fields(w word, std stdio) ([]field, error) {
	var out []field
	open := false // whether the last field may still grow
	add := func(text string, pattern bool) {
		if !open {
			out, open = append(out, field{}), true
		}
		last := &out[len(out)-1]
		last.text += text
		last.pattern = last.pattern || pattern
	}
	for _, p := range w {
		if p.parameter == "@" && p.quoted {
			for i, arg := range s.args {
				open = open && i == 0
				add(arg, false)
			}
			continue
		}
		value, err := s.value(p, std)
		if err != nil {
			return nil, err
		}
		switch {
		case p.quoted:
			add(value, false)
		case p.literal != "":
			add(value, strings.ContainsAny(value, "*?["))
		default:
			if strings.TrimLeft(value, " \t\n") != value {
				open = false
			}
			for i, part := range strings.Fields(value) {
				open = open && i == 0
				add(part, strings.ContainsAny(part, "*?["))
			}
			if strings.TrimRight(value, " \t\n") != value {
				open = false
			}
		}
	}
	return out, nil
}

func (s *shell) value(p part, std stdio) (string, error) {
	switch {
	case p.command != nil:
		var out collector
		own := s.copy()
		inner := std
		inner.out = &out
		if leave, ok := own.list(p.command, inner).(errExit); ok {
			own.status = int(leave)
		}
		s.inner = own.status
		return strings.TrimRight(out.text(), "\n"), nil
	case p.parameter == "":
		return p.literal, nil
	}
	value, set := s.parameter(p.parameter)
	if p.fallback != nil && (!set || value == "") {
		return s.expandOne(p.fallback, std)
	}
	return value, nil
}

// collector takes the output of $(…), which several processes may write.
type collector struct {
	mu   sync.Mutex
	data []byte
}

func (c *collector) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data = append(c.data, p...)
	return len(p), nil
}

func (c *collector) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.data)
}

func (s *shell) parameter(name string) (string, bool) {
	switch name {
	case "?":
		return strconv.Itoa(s.status), true
	case "$":
		return strconv.Itoa(os.Getpid()), true
	case "#":
		return strconv.Itoa(len(s.args)), true
	case "@", "*":
		return strings.Join(s.args, " "), len(s.args) > 0
	case "0":
		return s.name, true
	}
	if n, err := strconv.Atoi(name); err == nil {
		if n > len(s.args) {
			return "", false
		}
		return s.args[n-1], true
	}
	value, ok := s.vars[name]
	return value, ok
}
