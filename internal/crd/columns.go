package crd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/jsonpath"
)

// columns are the additionalPrinterColumns of a version; Name and Age if it has none.
func columns(declared []apiextensions.CustomResourceColumnDefinition) kind.Columns {
	if len(declared) == 0 {
		age := kind.Age
		age.Type = "date"
		return kind.Columns{kind.Name, age}
	}
	out := kind.Columns{kind.Name}
	for _, c := range declared {
		column := kind.Column{Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description, Wide: c.Priority > 0, Of: cell(c)}
		if column.Description == "" {
			column.Description = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		out = append(out, column)
	}
	return out
}

// finder looks a JSONPath up in trees. Paths keep state while they run, so that each is used by one at a time.
type finder struct {
	path string
	mu   struct {
		sync.Mutex
		parsed *jsonpath.JSONPath
		err    error
	}
}

// find returns the first result and all results of the first expression.
func (f *finder) find(t map[string]any, use func(path *jsonpath.JSONPath, results []reflect.Value)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.parsed == nil && f.mu.err == nil {
		f.mu.parsed = jsonpath.New(f.path).AllowMissingKeys(true)
		f.mu.err = f.mu.parsed.Parse(fmt.Sprintf("{%s}", f.path))
	}
	if f.mu.err != nil {
		return
	}
	results, err := f.mu.parsed.FindResults(t)
	if err != nil || len(results) == 0 || len(results[0]) == 0 {
		return
	}
	use(f.mu.parsed, results[0])
}

// cell makes a column's cell: nil where there is no value or one of another type.
func cell(c apiextensions.CustomResourceColumnDefinition) func(object.Object) any {
	f := &finder{path: c.JSONPath}
	return func(obj object.Object) (out any) {
		f.find(tree(obj), func(path *jsonpath.JSONPath, results []reflect.Value) {
			if c.Type == "string" {
				var text bytes.Buffer
				if path.PrintResults(&text, results) == nil {
					out = text.String()
				}
				return
			}
			value := results[0].Interface()
			out = typedCell(c.Type, value)
		})
		return out
	}
}

func typedCell(columnType string, value any) any {
	switch columnType {
	case "integer":
		switch n := value.(type) {
		case int64:
			return n
		case float64:
			return int64(n)
		case json.Number:
			if i, err := n.Int64(); err == nil {
				return i
			}
		}
	case "number":
		switch n := value.(type) {
		case int64:
			return float64(n)
		case float64:
			return n
		}
	case "boolean":
		if b, ok := value.(bool); ok {
			return b
		}
	case "date":
		if text, ok := value.(string); ok {
			var at metav1.Time
			if at.UnmarshalQueryParameter(text) != nil {
				return "<invalid>"
			}
			return kind.Since(at.Time)
		}
	}
	return nil
}
