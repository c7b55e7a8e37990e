// Package cleanjson decodes JSON that is as it should be, fast, and hands back all other.
//
// A request body goes through a strict reader: sigs.k8s.io/json checks the syntax, then decodes with a search
// for fields that are unknown or given twice, and keeps the words for what it would have to say. Nearly every
// body has nothing of that. So this package goes once over the bytes with a plan made of the
// target's Go type, and at the first thing that a strict reader would remark on, a syntax error included, it
// gives up without a reason: the caller then asks sigs.k8s.io/json, whose errors are the ones that clients know.
//
// Promises: when Decode reports true, sigs.k8s.io/json.UnmarshalStrict would have left the same value and
// reported nothing (fuzzed); no part of the value shares memory with the document.
//
// Does not know: kinds, versions, defaults. Start reading at Decode, then plan.go.
package cleanjson

import (
	"math"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep values may lie in each other; documents that are deeper are not clean.
const maxDepth = 500

// Decode reads a JSON object into the value that into points to, which must be empty. false: the document is not clean,
// and the value half filled.
func Decode(doc []byte, into any) bool {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return false
	}
	d := decoder{doc: doc}
	return d.space() == '{' && d.value(planOf(v.Type().Elem()), v.Elem()) && d.end()
}

// decoder is a place in a document. Its methods report false when they meet what is not clean; then
// the place means nothing any more.
type decoder struct {
	doc   []byte
	at    int
	depth int
}

// space skips white space and returns what comes then, 0 at the end.
func (d *decoder) space() byte {
	for ; d.at < len(d.doc); d.at++ {
		switch c := d.doc[d.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (d *decoder) end() bool { return d.space() == 0 && d.at == len(d.doc) }

// take skips c, which must come next.
func (d *decoder) take(c byte) bool {
	if d.space() != c || d.at == len(d.doc) {
		return false
	}
	d.at++
	return true
}

func (d *decoder) word(w string) bool {
	if !strings.HasPrefix(string(d.doc[d.at:min(len(d.doc), d.at+len(w))]), w) {
		return false
	}
	d.at += len(w)
	return true
}

// elements reads what stands between brackets, one call of each for each element.
func (d *decoder) elements(open, shut byte, each func() bool) bool {
	if !d.take(open) {
		return false
	}
	if d.depth++; d.depth > maxDepth {
		return false
	}
	defer func() { d.depth-- }()
	if d.space() == shut {
		d.at++
		return true
	}
	for {
		if !each() {
			return false
		}
		switch d.space() {
		case ',':
			d.at++
		case shut:
			d.at++
			return true
		default:
			return false
		}
	}
}

// members reads an object, one call of each for each member, when its value comes next. key is
// valid until each returns.
func (d *decoder) members(each func(key []byte) bool) bool {
	return d.elements('{', '}', func() bool {
		d.space()
		key, ok := d.text()
		return ok && d.take(':') && each(key)
	})
}

// text reads a string. What it returns may be a part of the document.
func (d *decoder) text() ([]byte, bool) {
	if d.at >= len(d.doc) || d.doc[d.at] != '"' {
		return nil, false
	}
	start, ascii := d.at+1, true
	for i := start; i < len(d.doc); i++ {
		switch c := d.doc[i]; {
		case c == '"':
			d.at = i + 1
			text := d.doc[start:i]
			return text, ascii || utf8.Valid(text)
		case c == '\\':
			return d.escaped(start, i)
		case c < ' ':
			return nil, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, false
}

// escaped reads a string that begins at start and has its first backslash at i.
func (d *decoder) escaped(start, i int) ([]byte, bool) {
	text := append(make([]byte, 0, 2*(i-start)+32), d.doc[start:i]...)
	for i < len(d.doc) {
		switch c := d.doc[i]; {
		case c == '"':
			d.at = i + 1
			return text, utf8.Valid(text)
		case c < ' ':
			return nil, false
		case c != '\\':
			text = append(text, c)
			i++
		case i+1 == len(d.doc):
			return nil, false
		case d.doc[i+1] == 'u':
			r := d.hex(i + 2)
			i += 6
			if utf16.IsSurrogate(r) {
				if i+1 >= len(d.doc) || d.doc[i] != '\\' || d.doc[i+1] != 'u' {
					return nil, false
				}
				r = utf16.DecodeRune(r, d.hex(i+2))
				i += 6
			}
			if r < 0 || r == utf8.RuneError { // a strict reader would write that for what is none
				return nil, false
			}
			text = utf8.AppendRune(text, r)
		default:
			at := strings.IndexByte(`"\/bfnrt`, d.doc[i+1])
			if at < 0 {
				return nil, false
			}
			text = append(text, "\"\\/\b\f\n\r\t"[at])
			i += 2
		}
	}
	return nil, false
}

// hex returns the number of the four digits at i, -1 if there are none.
func (d *decoder) hex(i int) rune {
	if i+4 > len(d.doc) {
		return -1
	}
	var r rune
	for _, c := range d.doc[i : i+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// number reads a number (RFC 8259, 6). It is whole if it has neither a fraction nor an exponent.
func (d *decoder) number() (text []byte, whole, ok bool) {
	start := d.at
	if d.peek() == '-' {
		d.at++
	}
	first := d.at
	if !d.digits() || d.doc[first] == '0' && d.at-first > 1 {
		return nil, false, false
	}
	whole = true
	if d.peek() == '.' {
		d.at++
		if whole = false; !d.digits() {
			return nil, false, false
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		d.at++
		if c := d.peek(); c == '+' || c == '-' {
			d.at++
		}
		if whole = false; !d.digits() {
			return nil, false, false
		}
	}
	return d.doc[start:d.at], whole, true
}

func (d *decoder) peek() byte {
	if d.at < len(d.doc) {
		return d.doc[d.at]
	}
	return 0
}

// digits skips digits, of which there must be one.
func (d *decoder) digits() bool {
	start := d.at
	for '0' <= d.peek() && d.peek() <= '9' {
		d.at++
	}
	return d.at > start
}

// raw skips a value and returns its bytes.
func (d *decoder) raw() ([]byte, bool) {
	c := d.space()
	start := d.at
	ok := false
	switch c {
	case '{':
		ok = d.members(func([]byte) bool { _, ok := d.raw(); return ok })
	case '[':
		ok = d.elements('[', ']', func() bool { _, ok := d.raw(); return ok })
	case '"':
		_, ok = d.text()
	case 't':
		ok = d.word("true")
	case 'f':
		ok = d.word("false")
	case 'n':
		ok = d.word("null")
	default:
		_, _, ok = d.number()
	}
	return d.doc[start:d.at], ok
}

// anything reads a value as unstructured objects have it: a whole number is an int64.
func (d *decoder) anything() (any, bool) {
	switch d.space() {
	case '{':
		return d.object()
	case '[':
		list := []any{}
		ok := d.elements('[', ']', func() bool {
			item, ok := d.anything()
			list = append(list, item)
			return ok
		})
		return list, ok
	case '"':
		text, ok := d.text()
		return string(text), ok
	case 't':
		return true, d.word("true")
	case 'f':
		return false, d.word("false")
	case 'n':
		return nil, d.word("null")
	}
	text, whole, ok := d.number()
	if !ok {
		return nil, false
	}
	if whole {
		if n, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			return n, true
		}
	}
	f, err := strconv.ParseFloat(string(text), 64)
	return f, err == nil && !math.IsInf(f, 0)
}

func (d *decoder) object() (map[string]any, bool) {
	made := map[string]any{}
	ok := d.members(func(key []byte) bool {
		if _, twice := made[string(key)]; twice {
			return false
		}
		name := string(key)
		value, ok := d.anything()
		made[name] = value
		return ok
	})
	return made, ok
}
