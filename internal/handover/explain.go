package handover

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
)

// explain says in what the bytes that would be written differ from those that are there.
func explain(d *kind.Definition, apiVersion string, value, again []byte) string {
	if stored := d.StoredAPIVersion(); apiVersion != stored {
		return fmt.Sprintf("stored as %s, would be stored as %s", apiVersion, stored)
	}
	before, err := codec.Undefaulted(d, value)
	if err == nil {
		var after object.Object
		if after, err = codec.Undefaulted(d, again); err == nil {
			if paths := differences("", tree(before), tree(after)); len(paths) > 0 {
				return "changed by defaults or the stored shape: " + strings.Join(paths, ", ")
			}
		}
	}
	at := 0
	for at < len(value) && at < len(again) && value[at] == again[at] {
		at++
	}
	return fmt.Sprintf("the same known fields in other bytes, from byte %d on (fields of another version, or another order)", at)
}

func tree(obj object.Object) any {
	var v any
	if b, err := json.Marshal(obj); err == nil {
		_ = json.Unmarshal(b, &v) // what Marshal made
	}
	return v
}

// mostPaths bounds an explanation.
const mostPaths = 5

func differences(path string, a, b any) (paths []string) {
	x, isMap := a.(map[string]any)
	y, both := b.(map[string]any)
	switch {
	case reflect.DeepEqual(a, b):
	case isMap && both:
		keys := map[string]bool{}
		for k := range x {
			keys[k] = true
		}
		for k := range y {
			keys[k] = true
		}
		for k := range keys {
			paths = append(paths, differences(path+"."+k, x[k], y[k])...)
		}
		slices.Sort(paths)
	default:
		xs, isList := a.([]any)
		ys, both := b.([]any)
		if !isList || !both || len(xs) != len(ys) {
			return []string{strings.TrimPrefix(path, ".")}
		}
		for i := range xs {
			paths = append(paths, differences(fmt.Sprintf("%s[%d]", path, i), xs[i], ys[i])...)
		}
	}
	return paths[:min(len(paths), mostPaths)]
}
