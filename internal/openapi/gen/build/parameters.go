package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kube-openapi/pkg/common"
)

// parameter implements common.Parameter.
type parameter struct {
	name, description, dataType string
	kind                        common.ParameterKind
	required                    bool
}

func (p *parameter) Name() string               { return p.name }
func (p *parameter) Description() string        { return p.description }
func (p *parameter) Required() bool             { return p.required }
func (p *parameter) Kind() common.ParameterKind { return p.kind }
func (p *parameter) DataType() string           { return p.dataType }
func (p *parameter) AllowMultiple() bool        { return false }

func inPath(name, description string) *parameter {
	return &parameter{name: name, description: description, dataType: "string", kind: common.PathParameterKind, required: true}
}

func inQuery(name, description, dataType string) *parameter {
	return &parameter{name: name, description: description, dataType: dataType, kind: common.QueryParameterKind}
}

func inBody(required bool) *parameter {
	return &parameter{name: "body", kind: common.BodyParameterKind, required: required}
}

var (
	namespaceParameter = inPath("namespace", "object name and auth scope, such as for teams and projects")
	prettyParameter    = inQuery("pretty", "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).", "string")
)

// fromOptions lists the query parameters that an options type takes: its
// fields of simple type, described by the type's own documentation.
func fromOptions(options runtime.Object, without ...string) ([]common.Parameter, error) {
	docs := options.(interface{ SwaggerDoc() map[string]string }).SwaggerDoc()
	t := reflect.TypeOf(options).Elem()
	var out []common.Parameter
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" || slices.Contains(without, name) {
			continue
		}
		ft := f.Type
		for ft.Kind() == reflect.Pointer || ft.Kind() == reflect.Slice {
			ft = ft.Elem()
		}
		var dataType string
		switch ft.Kind() {
		case reflect.String:
			dataType = "string"
		case reflect.Bool:
			dataType = "boolean"
		case reflect.Int32, reflect.Int64:
			dataType = "integer"
		case reflect.Struct: // has no form in a query that the document could say
			continue
		default:
			return nil, fmt.Errorf("options %v: field %s is a %v", t, f.Name, ft)
		}
		out = append(out, inQuery(name, docs[name], dataType))
	}
	return out, nil
}
