package patch

import (
	"bytes"
	"strings"
)

// editor works on FieldsV1 texts without building sets from them.
//
// A text is a tree: each key is an element, its value holds what is below, "." stands for the element itself when
// something is below, and {} alone stands for it when nothing is:
//
//	{"f:data":{".":{},"f:a":{}},"f:metadata":{"f:labels":{"f:l":{}}}}
//
// The editor reads a text once, in order, in step with the changes, checks that it is exactly
// what the reference implementation would write under today's schema, and writes the new one.
// Anything else makes it give up: ok becomes false and the result is worth nothing.
type editor struct {
	text []byte
	at   int
	ok   bool
	out  []byte
	add  bool // the changes that are gains are added, not only taken away
	// changed reports whether the new text differs from the old.
	changed bool
	// conflict reports whether a path was taken away because it was added or modified.
	conflict bool
}

// edit returns text without the changed paths, or, with add, with those gained.
// The result is in memory of the editor; it is "{}" when nothing is left.
func (e *editor) edit(text []byte, t *typ, changes []change, add bool) []byte {
	*e = editor{text: text, ok: true, out: e.out[:0], add: add}
	e.out = append(e.out, '{')
	if e.expect('{') {
		e.body(t, changes, false)
	}
	e.out = append(e.out, '}')
	if e.at != len(text) {
		e.ok = false
	}
	e.text = nil // an editor may rest in a pool
	return e.out
}

// write returns the text of the gains alone.
func (e *editor) write(changes []change) []byte {
	*e = editor{ok: true, out: e.out[:0], add: true}
	e.out = append(e.out, '{')
	e.gains(changes)
	e.out = append(e.out, '}')
	return e.out
}

func (e *editor) expect(c byte) bool {
	if e.at < len(e.text) && e.text[e.at] == c {
		e.at++
		return true
	}
	e.ok = false
	return false
}

func (e *editor) peek() byte {
	if e.at < len(e.text) {
		return e.text[e.at]
	}
	return 0
}

// key reads `"element":{`.
func (e *editor) key() string {
	if !e.expect('"') {
		return ""
	}
	start := e.at
	for {
		n := bytes.IndexByte(e.text[e.at:], '"')
		if n < 0 {
			e.ok = false
			return ""
		}
		e.at += n
		slashes := 0
		for e.at-1-slashes >= start && e.text[e.at-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			break
		}
		e.at++
	}
	element := viewString(e.text[start:e.at])
	e.at++
	if e.expect(':') {
		e.expect('{')
	}
	return element
}

// body handles what stands between { and }, the elements below one of type t,
// and takes the }. comma says that something stands before what it writes.
func (e *editor) body(t *typ, changes []change, comma bool) {
	if e.peek() == '}' {
		e.at++
		e.inserts(changes, comma)
		return
	}
	last := ""
	for {
		element := e.key()
		if !e.ok || !isCanonical(element) || last != "" && compareElements(last, element) >= 0 {
			e.ok = false
			return
		}
		last = element
		// Gains that stand before this element.
		n := 0
		for n < len(changes) && compareElements(changes[n].element, element) < 0 {
			n++
		}
		comma = e.inserts(changes[:n], comma)
		changes = changes[n:]
		var c *change
		if len(changes) > 0 && changes[0].element == element {
			c, changes = &changes[0], changes[1:]
		}
		comma = e.element(element, below(t, element), c, comma)
		if !e.ok {
			return
		}
		if e.peek() == '}' {
			e.at++
			e.inserts(changes, comma)
			return
		}
		if !e.expect(',') {
			return
		}
	}
}

// element handles one element, whose key has been read.
func (e *editor) element(element string, t *typ, c *change, comma bool) (written bool) {
	start := len(e.out)
	e.open(element, comma)
	member := false
	switch {
	case e.peek() == '}':
		member = true
		e.at++
		if member = e.owned(member, c); c != nil && len(c.below) > 0 {
			from := len(e.out)
			e.inserts(c.below, false)
			return e.close(start, from, member, comma)
		}
		return e.close(start, len(e.out), member, comma)
	case bytes.HasPrefix(e.text[e.at:], []byte(`".":{}`)):
		member = true
		e.at += len(`".":{}`)
		if !e.expect(',') || e.peek() == '}' {
			e.ok = false
			return comma
		}
	}
	// Something is below. Of an atomic type that is a remnant of an older schema.
	if t.remnant() {
		e.ok = false
		return comma
	}
	from := len(e.out)
	var deeper []change
	if c != nil {
		deeper = c.below
	}
	e.body(t, deeper, false)
	return e.close(start, from, e.owned(member, c), comma)
}

// owned says whether the element itself is owned after the change.
func (e *editor) owned(member bool, c *change) bool {
	if c == nil || c.mark == 0 {
		return member
	}
	after := e.add && c.mark == gained
	e.conflict = e.conflict || member && c.mark == gained
	if after != member {
		e.changed = true
	}
	return after
}

// open writes `"element":{`.
func (e *editor) open(element string, comma bool) {
	if comma {
		e.out = append(e.out, ',')
	}
	e.out = append(e.out, '"')
	e.out = append(e.out, element...)
	e.out = append(e.out, `":{`...)
}

// close ends an element that began at start and below which everything from from
// on was written. With nothing below and not owned it takes it all back.
func (e *editor) close(start, from int, member, comma bool) (written bool) {
	if len(e.out) == from {
		if !member {
			e.out = e.out[:start]
			e.changed = true
			return comma
		}
	} else if member {
		const self = `".":{},`
		e.out = append(e.out, self...)
		copy(e.out[from+len(self):], e.out[from:len(e.out)-len(self)])
		copy(e.out[from:], self)
	}
	e.out = append(e.out, '}')
	return true
}

// inserts writes the gains among the changes, which the text does not have.
func (e *editor) inserts(changes []change, comma bool) (written bool) {
	if !e.add {
		return comma
	}
	before := len(e.out)
	comma = e.gainsAfter(changes, comma)
	if len(e.out) != before {
		e.changed = true
	}
	return comma
}

func (e *editor) gains(changes []change) { e.gainsAfter(changes, false) }

func (e *editor) gainsAfter(changes []change, comma bool) (written bool) {
	for i := range changes {
		c := &changes[i]
		if c.mark != gained && len(c.below) == 0 {
			continue
		}
		start := len(e.out)
		e.open(c.element, comma)
		from := len(e.out)
		if c.mark == gained {
			e.out = append(e.out, `".":{}`...)
		}
		mark := len(e.out)
		e.gainsAfter(c.below, c.mark == gained)
		switch {
		case len(e.out) > mark:
		case c.mark == gained:
			e.out = e.out[:from]
		default:
			e.out = e.out[:start]
			continue
		}
		e.out = append(e.out, '}')
		comma = true
	}
	return comma
}

// remnant reports whether nothing can be below an element of type t, so that
// what is there must be owned in another way now.
func (t *typ) remnant() bool {
	switch {
	case t == nil:
		return false
	case t.fields != nil:
		return t.fields.atomic && !t.fields.free
	}
	return t.scalar == "" && t.list != nil && t.list.atomic
}

// below returns the type of an element below one of type t, nil if the schema
// does not say.
func below(t *typ, element string) *typ {
	switch {
	case t == nil:
	case t.fields != nil:
		if element[0] == 'f' {
			return t.fields.typeOf(element[2:])
		}
		return t.fields.elem
	case t.scalar == "" && t.list != nil:
		return t.list.elem
	}
	return nil
}

// readPaths returns the paths of a canonical text as gains.
func readPaths(text []byte) []change {
	e := editor{text: text, ok: true}
	e.expect('{')
	return e.read()
}

// read takes what stands before the next closing brace, and that.
func (e *editor) read() []change {
	var paths []change
	for e.ok && !(e.peek() == '}') {
		if e.peek() == ',' {
			e.at++
		}
		c := change{element: strings.Clone(e.key())}
		switch {
		case e.peek() == '}':
			c.mark = gained
		case bytes.HasPrefix(e.text[e.at:], []byte(`".":{}`)):
			c.mark = gained
			e.at += len(`".":{}`)
		}
		c.below = e.read()
		paths = append(paths, c)
	}
	e.at++
	return paths
}
