package codec

import (
	"encoding/json"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/resource"
)

// verbatim says which bytes stand in a JSON string as they are: those of ASCII that encoding/json neither
// escapes for JSON nor for HTML.
var verbatim = func() (table [256]bool) {
	for c := byte(' '); c < utf8.RuneSelf; c++ {
		table[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return table
}()

const hexDigits = "0123456789abcdef"

// appendText appends a string as encoding/json writes it, with HTML escaped.
func appendText(b, s []byte) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if verbatim[c] {
			i++
			continue
		}
		size := 1
		if c >= utf8.RuneSelf {
			var r rune
			if r, size = utf8.DecodeRune(s[i:]); r != '\u2028' && r != '\u2029' && (r != utf8.RuneError || size > 1) {
				i += size
				continue
			}
			b = append(b, s[start:i]...)
			switch r {
			case '\u2028', '\u2029':
				b = append(b, `\u202`...)
				b = append(b, hexDigits[r&0xf])
			default:
				b = append(b, `\ufffd`...)
			}
		} else {
			b = appendEscape(append(b, s[start:i]...), c)
		}
		i += size
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

// appendEscape appends the escape of an ASCII character.
func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '\\', '"':
		return append(b, '\\', c)
	case '\b':
		return append(b, `\b`...)
	case '\f':
		return append(b, `\f`...)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}

// appendQuantity appends a quantity, which may be spelt in other ways than the canonical one.
func appendQuantity(b, s []byte) ([]byte, error) {
	if canonical(s) {
		b = append(append(b, '"'), s...)
		return append(b, '"'), nil
	}
	q, err := resource.ParseQuantity(string(s))
	if err != nil {
		return b, errUnusual
	}
	return appendText(b, []byte(q.String())), nil
}

// canonical recognizes the most frequent spellings that a quantity keeps: up to six digits that no larger
// suffix could shorten.
func canonical(s []byte) bool {
	n, digits := 0, 0
	for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
		n = n*10 + int(s[digits]-'0')
		digits++
	}
	if digits == 0 || digits > 6 || s[0] == '0' {
		return false
	}
	switch string(s[digits:]) {
	case "m", "", "k", "M", "G", "T":
		return n%1000 != 0
	case "Ki", "Mi", "Gi", "Ti":
		return n%1024 != 0
	}
	return false
}

// appendRaw appends JSON text that is part of an object, as encoding/json does: checked, without white
// space, with HTML escaped.
func appendRaw(b, raw []byte) ([]byte, error) {
	if plainTexts.has(raw) {
		return append(b, raw...), nil
	}
	if end := plain(raw, 0, 0); end == len(raw) {
		plainTexts.add(raw)
		return append(b, raw...), nil
	}
	compact, err := json.Marshal(json.RawMessage(raw))
	if err != nil {
		return b, errUnusual
	}
	return append(b, compact...), nil
}

// plainTexts are JSON texts that were found to be plain. The managed fields of the objects that one client makes are the same texts
// again and again, and half of an object's bytes; their print takes a tenth of the time that looking at them takes.
var plainTexts prints

// plain returns where the JSON value that begins at a place ends, or -1 if it is none, or one of the kind that must be looked at more
// closely: only objects, lists and simple strings, without white space, count as plain.
func plain(raw []byte, at, depth int) int {
	if at >= len(raw) || depth > maxDepth {
		return -1
	}
	switch raw[at] {
	case '"':
		return plainText(raw, at)
	case '{', '[':
		return plainElements(raw, at, depth)
	}
	return -1
}

func plainText(raw []byte, at int) int {
	for at++; at < len(raw); at++ {
		switch {
		case verbatim[raw[at]]:
		case raw[at] == '"':
			return at + 1
		case raw[at] == '\\' && at+1 < len(raw) && (raw[at+1] == '"' || raw[at+1] == '\\'):
			at++
		default:
			return -1
		}
	}
	return -1
}

func plainElements(raw []byte, at, depth int) int {
	object := raw[at] == '{'
	end := raw[at] + 2 // '{' and '}', '[' and ']' are two apart
	if at++; at < len(raw) && raw[at] == end {
		return at + 1
	}
	for {
		if object {
			if at >= len(raw) || raw[at] != '"' {
				return -1
			}
			if at = plainText(raw, at); at < 0 || at >= len(raw) || raw[at] != ':' {
				return -1
			}
			at++
		}
		if at = plain(raw, at, depth+1); at < 0 || at >= len(raw) {
			return -1
		}
		switch raw[at] {
		case ',':
			at++
		case end:
			return at + 1
		default:
			return -1
		}
	}
}
