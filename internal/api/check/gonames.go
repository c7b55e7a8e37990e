package check

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/diff"
)

// GoNames marks a value of a type of k8s.io/api so that its JSON form uses the Go names of the fields and
// shows all of them: the form in which answers about invalid objects quote values.
func GoNames(v any) json.Marshaler { return goNames{v} }

// Diff shows what changed from old to value, in the form of a unified diff of their GoNames.
func Diff(old, value any) string { return diff.Diff(GoNames(old), GoNames(value)) }

type goNames struct{ v any }

func (g goNames) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	err := writeGoNames(&b, reflect.ValueOf(g.v))
	return b.Bytes(), err
}

// apiPackages begin the import paths of the types that are shown with Go names; all
// others (quantities, times, label selectors) have one JSON form only.
var apiPackages = []string{"k8s.io/api/", "k8s.io/kube-aggregator/pkg/apis/", "k8s.io/apiextensions-apiserver/pkg/apis/"}

func ofAPI(t reflect.Type) bool {
	return slices.ContainsFunc(apiPackages, func(prefix string) bool { return strings.HasPrefix(t.PkgPath(), prefix) })
}

func writeGoNames(b *bytes.Buffer, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			b.WriteString("null")
			return nil
		}
		return writeGoNames(b, v.Elem())
	case reflect.Struct:
		if !ofAPI(v.Type()) {
			break
		}
		b.WriteByte('{')
		if err := writeGoFields(b, v, new(bool)); err != nil {
			return err
		}
		b.WriteByte('}')
		return nil
	case reflect.Slice:
		if v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8 {
			break
		}
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeGoNames(b, v.Index(i)); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	}
	text, err := json.Marshal(v.Interface())
	b.Write(text)
	return err
}

func writeGoFields(b *bytes.Buffer, v reflect.Value, some *bool) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous && f.Type.Name() == "TypeMeta" {
			continue
		}
		if f.Anonymous && f.Type.Kind() == reflect.Struct && !ofAPI(f.Type) { // metadata
			if err := writeInline(b, v.Field(i), some); err != nil {
				return err
			}
			continue
		}
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			if err := writeGoFields(b, v.Field(i), some); err != nil {
				return err
			}
			continue
		}
		if *some {
			b.WriteByte(',')
		}
		*some = true
		b.WriteString(`"` + f.Name + `":`)
		if err := writeGoNames(b, v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

// writeInline writes the fields of a struct in their JSON form.
func writeInline(b *bytes.Buffer, v reflect.Value, some *bool) error {
	text, err := json.Marshal(v.Interface())
	if err != nil {
		return err
	}
	fields := bytes.TrimSuffix(bytes.TrimPrefix(text, []byte{'{'}), []byte{'}'})
	if len(fields) == 0 {
		return nil
	}
	if *some {
		b.WriteByte(',')
	}
	*some = true
	b.Write(fields)
	return nil
}
