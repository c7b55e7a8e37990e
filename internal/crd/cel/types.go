package cel

import (
	"encoding/base64"
	"slices"
	"strings"
	"time"

	celgo "github.com/google/cel-go/cel"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// typeOf is the CEL type of a schema's values; objects with properties are dynamic.
func typeOf(p *apiextensions.JSONSchemaProps) *celgo.Type {
	if p == nil || p.XIntOrString {
		return celgo.DynType
	}
	if p.Nullable {
		return celgo.DynType
	}
	switch p.Type {
	case "string":
		switch p.Format {
		case "date-time", "date":
			return celgo.TimestampType
		case "duration":
			return celgo.DurationType
		case "byte":
			return celgo.BytesType
		}
		return celgo.StringType
	case "integer":
		return celgo.IntType
	case "number":
		return celgo.DoubleType
	case "boolean":
		return celgo.BoolType
	case "array":
		if p.Items != nil && p.Items.Schema != nil {
			return celgo.ListType(typeOf(p.Items.Schema))
		}
	case "object":
		if p.AdditionalProperties != nil && p.AdditionalProperties.Schema != nil {
			return celgo.MapType(celgo.StringType, typeOf(p.AdditionalProperties.Schema))
		}
	}
	return celgo.DynType
}

// toCEL gives a value of a schema the Go types that CEL expects for it.
func toCEL(value any, p *apiextensions.JSONSchemaProps) any {
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, e := range v {
			var child *apiextensions.JSONSchemaProps
			if p != nil {
				if declared, ok := p.Properties[key]; ok {
					child = &declared
					key = escape(key)
				} else if p.AdditionalProperties != nil {
					child = p.AdditionalProperties.Schema
				}
			}
			out[key] = toCEL(e, child)
		}
		return out
	case []any:
		var child *apiextensions.JSONSchemaProps
		if p != nil && p.Items != nil {
			child = p.Items.Schema
		}
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = toCEL(e, child)
		}
		return out
	case int64:
		if p != nil && p.Type == "number" {
			return float64(v)
		}
	case string:
		if p == nil || p.Type != "string" {
			return v
		}
		switch p.Format {
		case "date-time":
			if at, err := time.Parse(time.RFC3339, v); err == nil {
				return at
			}
		case "date":
			if at, err := time.Parse(time.DateOnly, v); err == nil {
				return at
			}
		case "duration":
			if d, err := time.ParseDuration(v); err == nil {
				return d
			}
		case "byte":
			if b, err := base64.StdEncoding.DecodeString(v); err == nil {
				return b
			}
		}
	}
	return value
}

// reserved words cannot be field names in CEL (the language definition, and Kubernetes' escaping rules).
var reserved = []string{
	"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop",
	"package", "namespace", "return", "var", "void", "while",
}

// escape is a property's name as rules write it.
func escape(name string) string {
	if slices.Contains(reserved, name) {
		return "__" + name + "__"
	}
	return escapes.Replace(name)
}

var escapes = strings.NewReplacer("__", "__underscores__", ".", "__dot__", "-", "__dash__", "/", "__slash__")
