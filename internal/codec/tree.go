package codec

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"k8s.io/apimachinery/pkg/types"
)

// describeTree is describeMessage for custom resources, whose blobs are JSON.
func describeTree(d *kind.Definition, c *watchcache.Collection) {
	paths := make([][]string, len(d.Fields))
	for i, f := range d.Fields {
		paths[i] = strings.Split(f.Path, ".")
	}
	c.Describe = func(key string, value []byte, revision storage.Revision) (out watchcache.Description) {
		blob, err := restampTree(value, revision)
		if err != nil {
			return watchcache.Description{Err: err}
		}
		var head struct {
			Metadata struct {
				UID    types.UID         `json:"uid"`
				Labels map[string]string `json:"labels"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(blob, &head); err != nil {
			return watchcache.Description{Err: err}
		}
		out = watchcache.Description{UID: head.Metadata.UID, Labels: watchcache.LabelsOf(head.Metadata.Labels), Blob: blob}
		for _, path := range paths {
			out.Fields = append(out.Fields, fieldText(blob, path))
		}
		return out
	}
	c.Restamp = func(blob []byte, revision storage.Revision) []byte {
		b, err := restampTree(blob, revision)
		if err != nil {
			return blob
		}
		return b
	}
}

// restampTree returns a copy of a JSON object with metadata.resourceVersion set,
// in its place among sorted keys.
func restampTree(doc []byte, revision storage.Revision) ([]byte, error) {
	start, end, err := member(doc, "metadata")
	if err != nil {
		return nil, err
	}
	if start < 0 || doc[start] != '{' {
		return nil, errNoMetadata
	}
	meta := doc[start:end]
	insert, cut := -1, -1
	err = members(meta, func(key string, keyStart, valueStart, valueEnd int) bool {
		switch {
		case key == "resourceVersion":
			insert, cut = keyStart, valueEnd
		case insert < 0 && key > "resourceVersion":
			insert = keyStart
		}
		return cut < 0
	})
	if err != nil {
		return nil, err
	}
	stamp := `"resourceVersion":"` + strconv.FormatInt(int64(revision), 10) + `"`
	out := make([]byte, 0, len(doc)+len(stamp)+1)
	switch {
	case cut >= 0: // replace
		out = append(append(out, doc[:start+insert]...), stamp...)
		out = append(out, doc[start+cut:]...)
	case insert >= 0: // before a later key
		out = append(append(append(out, doc[:start+insert]...), stamp...), ',')
		out = append(out, doc[start+insert:]...)
	default: // at the end
		out = append(out, doc[:end-1]...)
		if len(trimSpace(meta[1:len(meta)-1])) > 0 {
			out = append(out, ',')
		}
		out = append(append(out, stamp...), doc[end-1:]...)
	}
	return trimSpace(out), nil
}

var (
	errNoMetadata = errors.New("value has no metadata")
	errNotJSON    = errors.New("value is not a JSON object")
)

// fieldText is the value at a path of a JSON object as a field selector sees it.
func fieldText(doc []byte, path []string) string {
	for _, step := range path {
		start, end, err := member(doc, step)
		if err != nil || start < 0 {
			return ""
		}
		doc = doc[start:end]
	}
	var text string
	if json.Unmarshal(doc, &text) == nil {
		return text
	}
	if s := string(doc); s != "null" && s[0] != '{' && s[0] != '[' {
		return s
	}
	return ""
}

// member returns where the value of a key begins and ends in a JSON object; -1 if it has none.
func member(doc []byte, name string) (start, end int, err error) {
	start = -1
	err = members(doc, func(key string, _, valueStart, valueEnd int) bool {
		if key == name {
			start, end = valueStart, valueEnd
			return false
		}
		return true
	})
	return start, end, err
}

// members calls visit with each member of a JSON object, until it returns false. It checks
// no more than it needs to find the ends.
func members(doc []byte, visit func(key string, keyStart, valueStart, valueEnd int) bool) error {
	at := skipSpace(doc, 0)
	if at >= len(doc) || doc[at] != '{' {
		return errNotJSON
	}
	at = skipSpace(doc, at+1)
	if at < len(doc) && doc[at] == '}' {
		return nil
	}
	for at < len(doc) {
		keyStart := at
		keyEnd := skipString(doc, at)
		if keyEnd < 0 {
			return errNotJSON
		}
		at = skipSpace(doc, keyEnd)
		if at >= len(doc) || doc[at] != ':' {
			return errNotJSON
		}
		valueStart := skipSpace(doc, at+1)
		valueEnd := skipValue(doc, valueStart)
		if valueEnd < 0 {
			return errNotJSON
		}
		key := string(doc[keyStart+1 : keyEnd-1])
		if strings.IndexByte(key, '\\') >= 0 || !utf8.ValidString(key) {
			if err := json.Unmarshal(doc[keyStart:keyEnd], &key); err != nil {
				return err
			}
		}
		if !visit(key, keyStart, valueStart, valueEnd) {
			return nil
		}
		at = skipSpace(doc, valueEnd)
		if at < len(doc) && doc[at] == '}' {
			return nil
		}
		if at >= len(doc) || doc[at] != ',' {
			return errNotJSON
		}
		at = skipSpace(doc, at+1)
	}
	return errNotJSON
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func skipSpace(b []byte, at int) int {
	for at < len(b) && isSpace(b[at]) {
		at++
	}
	return at
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b[skipSpace(b, 0):]
}

// skipString returns the place behind a string that begins at at, or -1.
func skipString(b []byte, at int) int {
	if at >= len(b) || b[at] != '"' {
		return -1
	}
	for at++; at < len(b); at++ {
		switch b[at] {
		case '\\':
			at++
		case '"':
			return at + 1
		}
	}
	return -1
}

// skipValue returns the place behind a value that begins at at, or -1.
func skipValue(b []byte, at int) int {
	if at >= len(b) {
		return -1
	}
	switch b[at] {
	case '"':
		return skipString(b, at)
	case '{', '[':
		depth := 0
		for at < len(b) {
			switch b[at] {
			case '"':
				if at = skipString(b, at); at < 0 {
					return -1
				}
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return at + 1
				}
			}
			at++
		}
		return -1
	}
	start := at
	for at < len(b) && b[at] != ',' && b[at] != '}' && b[at] != ']' && !isSpace(b[at]) {
		at++
	}
	if at == start {
		return -1
	}
	return at
}
