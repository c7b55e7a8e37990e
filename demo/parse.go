package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// node is a command. kind is "" for a simple one, else the operator or keyword
// that begins it.
type node struct {
	kind        string
	background  bool
	words       []word
	assignments []assignment
	redirects   []redirection
	parts       []node // of && || ! and |; the branches of if
	condition   []node
	body        []node
}

type assignment struct {
	name  string
	value word
}

type redirection struct {
	fd       int    // 0, 1 or 2
	operator string // < > >> >&
	target   word
}

// word is a sequence of parts without blanks between them.
type word []part

// part is a literal, a parameter or a command, depending on which is set.
type part struct {
	literal   string
	parameter string
	fallback  word // ${parameter:-fallback}
	command   []node
	quoted    bool
}

// text is the word as written, for keywords and names.
func (w word) text() string {
	if len(w) == 1 && w[0].parameter == "" && w[0].command == nil && !w[0].quoted {
		return w[0].literal
	}
	return ""
}

// errMore means that the text ends in the middle of a command.
var errMore = errors.New("unexpected end")

// maxDepth bounds how deep commands nest.
const maxDepth = 100

type token struct {
	operator string // or "" for a word
	word     word
}

type parser struct {
	text   string
	at     int
	tokens []token // read ahead: at most one
	depth  int
}

func parse(text string) (nodes []node, err error) {
	p := &parser{text: text}
	return p.parseAll()
}

func (p *parser) parseAll() (nodes []node, err error) {
	defer func() {
		if r := recover(); r != nil {
			failure, ok := r.(syntaxError)
			if !ok {
				panic(r)
			}
			nodes, err = nil, failure.error
		}
	}()
	nodes = p.list()
	if t := p.peek(); t.operator != "end" {
		p.unexpected(t)
	}
	return nodes, nil
}

// syntaxError carries an error from the depth of the parser to parseAll.
type syntaxError struct{ error }

func (p *parser) fail(err error) { panic(syntaxError{err}) }

func (p *parser) unexpected(t token) {
	if t.operator == "end" {
		p.fail(errMore)
	}
	p.fail(fmt.Errorf("unexpected %q", t.operator+t.word.text()))
}

// operators, the longer before their beginnings.
var operators = []string{"&&", "||", ">>", ">&", ";", "&", "|", "(", ")", "<", ">", "\n"}

func (p *parser) peek() token {
	if len(p.tokens) == 0 {
		p.tokens = append(p.tokens, p.scan())
	}
	return p.tokens[0]
}

func (p *parser) next() token {
	t := p.peek()
	p.tokens = p.tokens[:0]
	return t
}

func (p *parser) scan() token {
	for p.at < len(p.text) {
		rest := p.text[p.at:]
		switch {
		case rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r':
			p.at++
			continue
		case strings.HasPrefix(rest, "\\\n"):
			p.at += 2
			continue
		case rest[0] == '#':
			if end := strings.IndexByte(rest, '\n'); end >= 0 {
				p.at += end
			} else {
				p.at = len(p.text)
			}
			continue
		}
		// A digit right before < or > is a file descriptor.
		if len(rest) > 1 && strings.ContainsRune("012", rune(rest[0])) && (rest[1] == '<' || rest[1] == '>') {
			for _, op := range operators {
				if strings.HasPrefix(rest[1:], op) {
					p.at += 1 + len(op)
					return token{operator: rest[:1] + op}
				}
			}
		}
		for _, op := range operators {
			if strings.HasPrefix(rest, op) {
				p.at += len(op)
				return token{operator: op}
			}
		}
		return token{word: p.word(" \t\r\n;&|()<>")}
	}
	return token{operator: "end"}
}

// word reads parts until an unquoted byte of ends.
func (p *parser) word(ends string) word {
	w := word{}
	var plain strings.Builder
	flush := func() {
		if plain.Len() > 0 {
			w = append(w, part{literal: plain.String()})
			plain.Reset()
		}
	}
	for p.at < len(p.text) && !strings.ContainsRune(ends, rune(p.text[p.at])) {
		switch c := p.text[p.at]; c {
		case '\\':
			if p.at+1 == len(p.text) {
				p.fail(errMore)
			}
			flush()
			w = append(w, part{literal: p.text[p.at+1 : p.at+2], quoted: true})
			p.at += 2
		case '\'':
			flush()
			end := strings.IndexByte(p.text[p.at+1:], '\'')
			if end < 0 {
				p.fail(errMore)
			}
			w = append(w, part{literal: p.text[p.at+1 : p.at+1+end], quoted: true})
			p.at += end + 2
		case '"':
			flush()
			p.at++
			w = append(w, p.doubleQuoted()...)
		case '$':
			flush()
			w = append(w, p.dollar(false))
		default:
			plain.WriteByte(c)
			p.at++
		}
	}
	flush()
	return w
}

func (p *parser) doubleQuoted() word {
	w := word{{quoted: true}} // "" is a word too
	for {
		if p.at >= len(p.text) {
			p.fail(errMore)
		}
		switch c := p.text[p.at]; {
		case c == '"':
			p.at++
			return w
		case c == '$':
			w = append(w, p.dollar(true))
		case c == '\\' && p.at+1 < len(p.text) && strings.IndexByte("$\"\\`\n", p.text[p.at+1]) >= 0:
			if p.text[p.at+1] != '\n' {
				w = append(w, part{literal: p.text[p.at+1 : p.at+2], quoted: true})
			}
			p.at += 2
		default:
			w = append(w, part{literal: string([]byte{c}), quoted: true})
			p.at++
		}
	}
}

// dollar reads $name, ${name}, ${name:-word} or $(commands), or a lone $.
func (p *parser) dollar(quoted bool) part {
	p.at++
	rest := p.text[p.at:]
	switch {
	case strings.HasPrefix(rest, "(("):
		p.fail(errors.New("this small shell has no arithmetic"))
	case strings.HasPrefix(rest, "("):
		p.at++
		p.deeper()
		inner := &parser{text: p.text, at: p.at, depth: p.depth}
		nodes := inner.list()
		if t := inner.next(); t.operator != ")" {
			inner.unexpected(t)
		}
		p.at = inner.at
		p.depth--
		return part{command: slices.Concat([]node{}, nodes), quoted: quoted}
	case strings.HasPrefix(rest, "{"):
		name := parameterName(rest[1:])
		p.at += 1 + len(name)
		rest = p.text[p.at:]
		out := part{parameter: name, quoted: quoted}
		if name != "" && strings.HasPrefix(rest, ":-") {
			p.at += 2
			p.deeper()
			out.fallback = p.word("}")
			p.depth--
			rest = p.text[p.at:]
		}
		if rest == "" {
			p.fail(errMore)
		}
		if name == "" || rest[0] != '}' {
			p.fail(errors.New("this small shell knows only ${NAME} and ${NAME:-WORD}"))
		}
		p.at++
		return out
	}
	if name := parameterName(rest); name != "" {
		p.at += len(name)
		return part{parameter: name, quoted: quoted}
	}
	return part{literal: "$", quoted: true}
}

// parameterName returns the parameter that text begins with.
func parameterName(text string) string {
	if text != "" && strings.IndexByte("?$#@*0123456789", text[0]) >= 0 {
		return text[:1]
	}
	end := 0
	for end < len(text) && (isLetter(text[end]) || end > 0 && text[end] >= '0' && text[end] <= '9') {
		end++
	}
	return text[:end]
}

func isLetter(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' }

func (p *parser) deeper() {
	if p.depth++; p.depth > maxDepth {
		p.fail(fmt.Errorf("commands nest deeper than %d", maxDepth))
	}
}

// list reads commands up to a closing word or parenthesis, or the end.
func (p *parser) list() []node {
	p.deeper()
	defer func() { p.depth-- }()
	nodes := []node{}
	for {
		for t := p.peek(); t.operator == "\n" || t.operator == ";" && len(nodes) > 0; t = p.peek() {
			p.next()
		}
		t := p.peek()
		if t.operator == "end" || t.operator == ")" || slices.Contains(closing, t.word.text()) {
			return nodes
		}
		n := p.andOr()
		switch p.peek().operator {
		case "&":
			n.background = true
			p.next()
		case ";", "\n":
			p.next()
		}
		nodes = append(nodes, n)
	}
}

var closing = []string{"then", "elif", "else", "fi", "do", "done", "}"}

func (p *parser) andOr() node {
	left := p.pipeline()
	for {
		op := p.peek().operator
		if op != "&&" && op != "||" {
			return left
		}
		p.next()
		p.lines()
		left = node{kind: op, parts: []node{left, p.pipeline()}}
	}
}

// lines skips ends of lines where a command may go on behind them.
func (p *parser) lines() {
	for p.peek().operator == "\n" {
		p.next()
	}
}

func (p *parser) pipeline() node {
	if p.peek().word.text() == "!" {
		p.next()
		return node{kind: "!", parts: []node{p.pipeline()}}
	}
	parts := []node{p.command()}
	for p.peek().operator == "|" {
		p.next()
		p.lines()
		parts = append(parts, p.command())
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return node{kind: "|", parts: parts}
}

func (p *parser) expect(keyword string) {
	if t := p.next(); t.word.text() != keyword {
		p.unexpected(t)
	}
}

func (p *parser) command() node {
	t := p.peek()
	n := node{}
	switch {
	case t.operator == "(":
		p.next()
		n = node{kind: "(", body: p.list()}
		if t := p.next(); t.operator != ")" {
			p.unexpected(t)
		}
	case t.word.text() == "{":
		p.next()
		n = node{kind: "{", body: p.list()}
		p.expect("}")
	case t.word.text() == "if":
		n.kind = "if"
		for more := true; more; {
			p.next() // if or elif
			branch := node{condition: p.list()}
			p.expect("then")
			branch.body = p.list()
			n.parts = append(n.parts, branch)
			more = p.peek().word.text() == "elif"
		}
		if p.peek().word.text() == "else" {
			p.next()
			n.body = p.list()
		}
		p.expect("fi")
	case t.word.text() == "while", t.word.text() == "until":
		n.kind = p.next().word.text()
		n.condition = p.list()
		p.expect("do")
		n.body = p.list()
		p.expect("done")
	case t.word.text() == "for":
		p.next()
		n.kind = "for"
		name := p.next()
		if name.word.text() == "" {
			p.unexpected(name)
		}
		n.words = []word{name.word}
		p.expect("in")
		for p.peek().operator == "" {
			n.words = append(n.words, p.next().word)
		}
		if op := p.next(); op.operator != ";" && op.operator != "\n" {
			p.unexpected(op)
		}
		p.lines()
		p.expect("do")
		n.body = p.list()
		p.expect("done")
	default:
		return p.simple()
	}
	for p.redirection(&n) {
	}
	return n
}

func (p *parser) simple() node {
	n := node{}
	for {
		if p.redirection(&n) {
			continue
		}
		t := p.peek()
		if t.operator != "" {
			if len(n.words) == 0 && len(n.assignments) == 0 && len(n.redirects) == 0 {
				p.unexpected(t)
			}
			return n
		}
		p.next()
		if len(n.words) == 0 {
			if name, value, ok := splitAssignment(t.word); ok {
				n.assignments = append(n.assignments, assignment{name, value})
				continue
			}
		}
		n.words = append(n.words, t.word)
	}
}

func (p *parser) redirection(n *node) bool {
	op := p.peek().operator
	fd := -1
	if op != "" && strings.IndexByte("012", op[0]) >= 0 {
		fd, op = int(op[0]-'0'), op[1:]
	}
	if !slices.Contains([]string{"<", ">", ">>", ">&"}, op) {
		return false
	}
	p.next()
	target := p.next()
	if target.operator != "" {
		p.unexpected(target)
	}
	if op == ">&" && fd == 1 && target.word.text() == "2" || op == ">&" && fd < 0 {
		fd = 1
	}
	n.redirects = append(n.redirects, redirection{fd: fd, operator: op, target: target.word})
	return true
}

func splitAssignment(w word) (name string, value word, ok bool) {
	if len(w) == 0 || w[0].quoted || w[0].parameter != "" {
		return "", nil, false
	}
	name, rest, found := strings.Cut(w[0].literal, "=")
	if !found || name == "" || parameterName(name) != name || !isLetter(name[0]) {
		return "", nil, false
	}
	return name, append(word{{literal: rest}}, w[1:]...), true
}
