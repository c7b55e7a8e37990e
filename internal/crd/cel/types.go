package cel

import (
	"encoding/base64"
	"slices"
	"time"

	celgo "github.com/google/cel-go/cel"
	language "github.com/timonel/timonel/internal/cel"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// The JSON forms of times, with their quotes, and the longest of each.
const (
	dateBytes        = len(`"2006-01-02"`)
	minDateTimeBytes = len(`"2006-01-02T15:04:05Z"`)
	maxDateTimeSize  = len("2006-01-02T15:04:05.999999999+00:00")
	minDurationBytes = len(`"0s"`)
	maxDurationSize  = len("-2562047h47m16.854775807s")
	bytesPerRune     = 4
)

// typeOf is the type of a schema's values; nil for those that rules cannot see (KEP-2876: what is preserved and unknown). The name is what errors
// call types of objects; root says that the value is a whole object, embedded or the resource itself.
func typeOf(p *apiextensions.JSONSchemaProps, name string, root bool) *language.Type {
	switch {
	case p == nil:
		return nil
	case p.XIntOrString:
		return language.Dyn()
	case p.Nullable: // null is not a value of the other types
		t := typeOf(&apiextensions.JSONSchemaProps{Type: p.Type, Format: p.Format, Items: p.Items, AdditionalProperties: p.AdditionalProperties, Properties: p.Properties,
			MaxItems: p.MaxItems, MaxProperties: p.MaxProperties, MaxLength: p.MaxLength, Enum: p.Enum, Required: p.Required}, name, root)
		if t != nil {
			t.CEL = celgo.DynType
		}
		return t
	}
	switch p.Type {
	case "string":
		return stringType(p)
	case "integer":
		return language.Scalar(celgo.IntType)
	case "number":
		return language.Scalar(celgo.DoubleType)
	case "boolean":
		return language.Scalar(celgo.BoolType)
	case "array":
		if p.Items == nil || p.Items.Schema == nil {
			return nil
		}
		if element := typeOf(p.Items.Schema, name+".@items", p.Items.Schema.XEmbeddedResource); element != nil {
			return language.ListOf(element, bound(p.MaxItems))
		}
	case "object":
		if p.AdditionalProperties != nil && p.AdditionalProperties.Schema != nil {
			if element := typeOf(p.AdditionalProperties.Schema, name+".@values", p.AdditionalProperties.Schema.XEmbeddedResource); element != nil {
				return language.MapOf(language.AnyText(), element, bound(p.MaxProperties))
			}
			return nil
		}
		return objectType(p, name, root || p.XEmbeddedResource)
	}
	return nil
}

// bound is a limit of a schema; 0: there is none.
func bound(max *int64) uint64 {
	if max == nil || *max < 0 {
		return 0
	}
	return uint64(*max)
}

func stringType(p *apiextensions.JSONSchemaProps) *language.Type {
	time := func(t *celgo.Type, max, least int) *language.Type {
		return &language.Type{CEL: t, MaxSize: uint64(max), MinBytes: uint64(least)}
	}
	switch p.Format {
	case "date":
		return time(celgo.TimestampType, dateBytes, dateBytes)
	case "date-time":
		return time(celgo.TimestampType, maxDateTimeSize, minDateTimeBytes)
	case "duration":
		return time(celgo.DurationType, maxDurationSize, minDurationBytes)
	}
	t := language.AnyText()
	switch {
	case p.MaxLength != nil && p.Format == "byte":
		t.MaxSize = bound(p.MaxLength)
	case p.MaxLength != nil:
		t.MaxSize = language.Times(bound(p.MaxLength), bytesPerRune)
	case len(p.Enum) > 0:
		t.MaxSize = 0
		for _, e := range p.Enum {
			t.MaxSize = max(t.MaxSize, uint64(len(e.Raw)))
		}
	}
	if p.Format == "byte" {
		t.CEL = celgo.BytesType
	}
	return t
}

// objectType has the properties of an object by the names that rules use; of a whole object also its type and names.
func objectType(p *apiextensions.JSONSchemaProps, name string, whole bool) *language.Type {
	fields := make(map[string]*language.Type, len(p.Properties))
	least := uint64(0)
	for property := range p.Properties {
		child := p.Properties[property]
		t := typeOf(&child, name+"."+property, child.XEmbeddedResource)
		if t == nil {
			continue
		}
		fields[language.Escape(property)] = t
		if slices.Contains(p.Required, property) {
			least += uint64(len(property)) + 4 + t.MinBytes // "property":,
		}
	}
	if whole {
		text := language.AnyText
		fields["apiVersion"], fields["kind"] = text(), text()
		fields["metadata"] = language.Object(name+".metadata", map[string]*language.Type{"name": text(), "generateName": text()})
	}
	t := language.Object(name, fields)
	t.MinBytes += least
	return t
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
					key = language.Escape(key)
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
