package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	kjson "sigs.k8s.io/json"
)

// CBOR (RFC 8949, KEP-4222) is another spelling of the JSON form: bodies become JSON before anything looks at them, answers are made from
// their JSON. Lists and tables are turned over item by item, so that they are never held as trees at once.

// selfDescribed is the tag in front of every CBOR answer (RFC 8949, section 3.4.6).
var selfDescribed = []byte{0xd9, 0xd9, 0xf7}

// CBORToJSON returns the JSON form of a request body. Keys that are given twice, and what JSON cannot say, are errors.
func CBORToJSON(body []byte) ([]byte, error) {
	var value any
	if err := direct.Unmarshal(body, &value); err != nil {
		return nil, err
	}
	if _, ok := value.(map[string]any); !ok {
		return nil, errors.New("cbor: the data item is no map")
	}
	if !isText(value) {
		return nil, errors.New("cbor: invalid UTF-8 string")
	}
	return json.Marshal(value)
}

// isText reports whether all strings in a tree are UTF-8: byte strings need not be, and JSON cannot say them.
func isText(value any) bool {
	switch v := value.(type) {
	case string:
		return utf8.ValidString(v)
	case []any:
		return !slices.ContainsFunc(v, func(item any) bool { return !isText(item) })
	case map[string]any:
		for key, item := range v {
			if !utf8.ValidString(key) || !isText(item) {
				return false
			}
		}
	}
	return true
}

// appendCBOR appends the CBOR form of a JSON text, without a tag.
func appendCBOR(b, text []byte) ([]byte, error) {
	var value any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &value); err != nil {
		return nil, fmt.Errorf("encode as CBOR: %w", err)
	}
	encoded, err := direct.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode as CBOR: %w", err)
	}
	return append(b, encoded...), nil
}

// cborForm is the CBOR form of a whole answer.
func cborForm(text []byte) ([]byte, error) {
	return appendCBOR(bytes.Clone(selfDescribed), text)
}

// Major types of data items (RFC 8949, section 3.1).
const cborArray, cborMap = 4 << 5, 5 << 5

// appendHead appends the head of an array or a map of n items.
func appendHead(b []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return append(b, major|25, byte(n>>8), byte(n))
	}
	return append(b, major|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func appendKey(b []byte, key string) []byte {
	encoded, err := direct.Marshal(key)
	if err != nil {
		panic(err) // a string always encodes
	}
	return append(b, encoded...)
}

// collection is a list or a table: a map that has its items under a key.
type collection struct {
	fields map[string]any // all but the items, in the form that JSON encodes
	order  []string       // of all keys: the shorter ones first, as the reference has them
	items  string         // the key of the items
	n      int
	// append appends the JSON of an item.
	append func(b []byte, i int) ([]byte, error)
}

// writeCBOR writes a collection, an item at a time.
func (c *collection) writeCBOR(w io.Writer) error {
	out := appendHead(bytes.Clone(selfDescribed), cborMap, len(c.order))
	for _, key := range c.order {
		out = appendKey(out, key)
		if key != c.items {
			text, err := json.Marshal(c.fields[key])
			if err != nil {
				return err
			}
			if out, err = appendCBOR(out, text); err != nil {
				return err
			}
			continue
		}
		out = appendHead(out, cborArray, c.n)
		var text []byte
		for i := range c.n {
			var err error
			if text, err = c.append(text[:0], i); err != nil {
				return err
			}
			if out, err = appendCBOR(out, text); err != nil {
				return err
			}
			if len(out) > listChunk {
				if _, err := w.Write(out); err != nil {
					return err
				}
				out = out[:0]
			}
		}
	}
	_, err := w.Write(out)
	return err
}

// appendCBOREvent puts an encoded object into a watch event: an item of a CBOR sequence (RFC 8742).
func appendCBOREvent(b []byte, eventType string, encoded []byte) []byte {
	b = appendHead(append(b, selfDescribed...), cborMap, 2)
	b = appendKey(appendKey(appendKey(b, "type"), eventType), "object")
	return append(b, encoded...)
}
