package patch

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// A path element is kept as the text that stands between the quotes in
// FieldsV1: `f:name` for a field or key, `k:{\"name\":\"c\"}` for an item of a list with keys,
// `v:\"x\"` for an item of a set. Two elements are equal if and only if their canonical
// texts are, so most work needs no parsing.

// plain reports whether s stands for itself inside a JSON string, also where
// HTML is escaped.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// fieldElement is the element of a field or of a key of a map.
func fieldElement(name string) string {
	if plain(name) {
		return "f:" + name
	}
	return canonical(fieldpath.FieldNameElement(name))
}

// canonical is the text of an element as the reference implementation writes it.
func canonical(e fieldpath.PathElement) string {
	text, err := fieldpath.SerializePathElement(e)
	if err != nil {
		return ""
	}
	return escape(text)
}

// escape quotes s as the writer of FieldsV1 does: quotes, backslashes and
// control characters only.
func escape(s string) string {
	const hex = "0123456789abcdef"
	var b bytes.Buffer
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c >= 0x20:
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		default:
			b.WriteString(`\u00`)
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// escaped are what escape does not leave as it is; the quote ends a text.
func escaped(r rune) bool { return r == '\\' || r < 0x20 }

// parseElement reads an element's text; false if it is not one.
func parseElement(text string) (fieldpath.PathElement, bool) {
	var s string
	if err := json.Unmarshal([]byte(`"`+text+`"`), &s); err != nil {
		return fieldpath.PathElement{}, false
	}
	e, err := fieldpath.DeserializePathElement(s)
	return e, err == nil
}

// isCanonical reports whether text is what the reference implementation would
// write for the element that it reads from it.
func isCanonical(text string) bool {
	if len(text) < 2 || text[1] != ':' {
		return false
	}
	body := text[2:]
	switch text[0] {
	case 'f':
		if strings.IndexFunc(body, escaped) < 0 {
			return true
		}
	case 'v':
		if _, rest, ok := scanScalar(body); ok && rest == "" {
			return true
		}
	case 'k':
		last := ""
		for body, ok := strings.CutPrefix(body, "{"); ok; {
			var name string
			if name, body, ok = scanScalar(body); !ok || name[0] != '\\' || name <= last || body == "" || body[0] != ':' {
				break
			}
			last = name
			if _, body, ok = scanScalar(body[1:]); !ok || body == "" {
				break
			}
			if body == "}" {
				return true
			}
			body, ok = strings.CutPrefix(body, ",")
		}
	}
	e, ok := parseElement(text)
	return ok && canonical(e) == text
}

// scanScalar takes a plain quoted string or an integer off the front of s, an
// element's text.
func scanScalar(s string) (scalar, rest string, ok bool) {
	if quoted, found := strings.CutPrefix(s, `\"`); found {
		end := strings.Index(quoted, `\"`)
		if end < 0 || !plain(quoted[:end]) {
			return "", s, false
		}
		return s[:end+4], s[end+4:], true
	}
	end := 0
	for end < len(s) && end < 10 && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	if end == 0 || end == 10 || s[0] == '0' && end > 1 || end < len(s) && s[end] != ',' && s[end] != '}' {
		return "", s, false
	}
	return s[:end], s[end:], true
}

// compareElements orders canonical elements: fields by name, then list items by
// their keys, then by value.
func compareElements(a, b string) int {
	if a[0] == 'f' && b[0] == 'f' && strings.IndexByte(a, '\\') < 0 && strings.IndexByte(b, '\\') < 0 {
		return strings.Compare(a[2:], b[2:])
	}
	if a == b {
		return 0
	}
	if a[0] == b[0] && (a[0] == 'k' || a[0] == 'v') {
		if c, ok := compareScalars(strings.TrimPrefix(a[2:], "{"), strings.TrimPrefix(b[2:], "{")); ok {
			return c
		}
	}
	x, _ := parseElement(a)
	y, _ := parseElement(b)
	return x.Compare(y)
}

// compareScalars compares what follows k:{ or v: item by item: names and values
// of keys alternate. It does not know all forms.
func compareScalars(a, b string) (int, bool) {
	for {
		x, restA, ok := scanScalar(a)
		if !ok {
			return 0, false
		}
		y, restB, ok := scanScalar(b)
		if !ok || (x[0] == '\\') != (y[0] == '\\') {
			return 0, false
		}
		if x != y {
			if x[0] == '\\' {
				return strings.Compare(x[2:len(x)-2], y[2:len(y)-2]), true
			}
			m, _ := strconv.Atoi(x)
			n, _ := strconv.Atoi(y)
			return m - n, true
		}
		if restA == "" || restB == "" || restA[0] != restB[0] || restA[0] == '}' {
			return 0, false
		}
		a, b = restA[1:], restB[1:]
	}
}

// appendScalar appends a scalar as it stands in an element's text; false if it
// is not plain.
func appendScalar(text []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case string:
		if !plain(v) {
			return text, false
		}
		text = append(text, `\"`...)
		text = append(text, v...)
		return append(text, `\"`...), true
	case int64:
		return strconv.AppendInt(text, v, 10), true
	case int:
		return strconv.AppendInt(text, int64(v), 10), true
	case bool:
		return strconv.AppendBool(text, v), true
	}
	return text, false
}

// keyValue is a key of a list item with its value, a scalar.
type keyValue struct {
	name  string
	value any
}

// keyElement is the element of an item of a list with keys. keys are sorted by name.
func keyElement(keys []keyValue) string {
	text := make([]byte, 0, 64)
	text = append(text, "k:{"...)
	for i, k := range keys {
		if i > 0 {
			text = append(text, ',')
		}
		ok := true
		if text, ok = appendScalar(text, k.name); ok {
			text = append(text, ':')
			text, ok = appendScalar(text, k.value)
		}
		if !ok {
			fields := make([]value.Field, len(keys))
			for i, k := range keys {
				fields[i] = value.Field{Name: k.name, Value: value.NewValueInterface(k.value)}
			}
			return canonical(fieldpath.KeyElement(fields...))
		}
	}
	return string(append(text, '}'))
}

// valueElement is the element of an item of a set, a scalar.
func valueElement(v any) string {
	text := make([]byte, 0, 64)
	text = append(text, "v:"...)
	if text, ok := appendScalar(text, v); ok {
		return string(text)
	}
	return canonical(fieldpath.ValueElement(value.NewValueInterface(v)))
}
