package cel

import (
	"slices"
	"strings"
	"testing"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const ruled = `
type: object
properties:
  spec:
    type: object
    x-kubernetes-validations:
    - {rule: '!has(self.min) || self.min <= self.max', message: min above max}
    - {rule: '!has(self.mode) || self.mode != "x"', messageExpression: '"mode is " + self.mode', reason: FieldValueForbidden, fieldPath: .mode}
    properties:
      min: {type: integer}
      max: {type: integer}
      mode: {type: string}
      fixed: {type: string, x-kubernetes-validations: [{rule: self == oldSelf, message: fixed is immutable}]}
      url: {type: string, x-kubernetes-validations: [{rule: isURL(self)}]}
      when: {type: string, format: date-time, x-kubernetes-validations: [{rule: 'self > timestamp("2020-01-01T00:00:00Z")'}]}
      list: {type: array, items: {type: integer}, x-kubernetes-validations: [{rule: 'self.isSorted() && self.sum() < 10'}]}
      namespace: {type: string}
      escaped: {type: object, properties: {a-b: {type: integer}}, x-kubernetes-validations: [{rule: self.a__dash__b > 0}]}
      once: {type: string, x-kubernetes-validations: [{rule: '!oldSelf.hasValue() || self == oldSelf.value()', optionalOldSelf: true}]}
`

func props(t *testing.T, text string) *apiextensions.JSONSchemaProps {
	t.Helper()
	p := &apiextensions.JSONSchemaProps{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	if text == "" {
		return nil
	}
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestValidate(t *testing.T) {
	rules := Compile(props(t, ruled))
	if left := rules.Unchecked(); len(left) > 0 {
		t.Fatalf("not compiled: %q", left)
	}
	for name, c := range map[string]struct{ in, old, want string }{
		"holds":              {in: "spec: {min: 1, max: 2, fixed: a, url: 'https://a/b', list: [1, 2], escaped: {a-b: 1}, when: '2021-01-01T00:00:00Z'}"},
		"message":            {in: "spec: {min: 3, max: 2}", want: "spec: Invalid value: min above max"},
		"an absent field":    {in: "spec: {min: 3}", want: `spec: Invalid value: "object": no such key: max evaluating rule: min above max`},
		"message expression": {in: "spec: {mode: x}", want: "spec.mode: Forbidden: mode is x"},
		"no transition":      {in: "spec: {fixed: b}", old: "spec: {}"},
		"transition":         {in: "spec: {fixed: b}", old: "spec: {fixed: a}", want: `spec.fixed: Invalid value: "b": fixed is immutable`},
		"optional, new":      {in: "spec: {once: b}"},
		"optional, changed":  {in: "spec: {once: b}", old: "spec: {once: a}", want: `spec.once: Invalid value: "b": failed rule: !oldSelf.hasValue() || self == oldSelf.value()`},
		"url":                {in: "spec: {url: nope}", want: `spec.url: Invalid value: "nope": failed rule: isURL(self)`},
		"lists":              {in: "spec: {list: [2, 1]}", want: "spec.list: Invalid value: failed rule: self.isSorted() && self.sum() < 10"},
		"time":               {in: "spec: {when: '2019-01-01T00:00:00Z'}", want: `spec.when: Invalid value: "2019-01-01T00:00:00Z": failed rule: self > timestamp("2020-01-01T00:00:00Z")`},
		"left alone":         {in: "spec: {url: nope, mode: a}", old: "spec: {url: nope}"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := rules.Validate(object(t, c.in), object(t, c.old)).ToAggregate(); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for rule, want := range map[string]string{
		`self == ""`:                "",
		`self ==`:                   "Syntax error",
		`self`:                      "cel expression must evaluate to a bool",
		`self + 1 > 2`:              "no matching overload",
		`unheard(self)`:             "undeclared reference to 'unheard'",
		`quantity(self).sign() > 0`: "",
		`self.nope`:                 "type 'string' does not support field selection",
	} {
		p := &apiextensions.JSONSchemaProps{Type: "string", XValidations: apiextensions.ValidationRules{{Rule: rule}}}
		errs := Check(p, field.NewPath("schema"))
		switch {
		case want == "" && len(errs) > 0:
			t.Errorf("%s: %v", rule, errs)
		case want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), want) || errs[0].Field != "schema.x-kubernetes-validations[0].rule"):
			t.Errorf("%s: %v, want %q", rule, errs, want)
		}
	}
	for rule, want := range map[string]string{
		`self.a > 0 && self.b.all(x, x.c == "") && self.kind != "" && self.metadata.name != ""`: "",
		`self.nope == 1`:             "undefined field 'nope'",
		`self.b.all(x, x.nope == 1)`: "undefined field 'nope'",
		`self.metadata.labels == {}`: "undefined field 'labels'",
		`self.free.x == 1`:           "undefined field 'free'", // what is preserved and unknown cannot be seen
	} {
		p := props(t, `
type: object
properties:
  a: {type: integer}
  b: {type: array, maxItems: 3, items: {type: object, properties: {c: {type: string, maxLength: 5}}}}
  free: {x-kubernetes-preserve-unknown-fields: true}
`)
		p.XValidations = apiextensions.ValidationRules{{Rule: rule}}
		errs := Check(p, field.NewPath("schema"))
		if want == "" && len(errs) > 0 || want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), want)) {
			t.Errorf("%s: %v, want %q", rule, errs, want)
		}
	}
	if Compile(&apiextensions.JSONSchemaProps{Type: "object"}) != nil {
		t.Error("a schema without rules has some")
	}
}

// A rule is refused by what it can cost for the largest object that the schema lets in.
func TestCheckCost(t *testing.T) {
	const hint = " (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
	const much, share = "schema.%s: Forbidden: estimated rule cost exceeds budget by factor of more than 100x" + hint,
		"schema.%s: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
	const total = "schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of "
	at := func(text, path string) string { return strings.ReplaceAll(text, "%s", path) }
	for name, c := range map[string]struct {
		schema string
		want   []string
	}{
		"bounded":         {schema: `{type: object, properties: {a: {type: array, maxItems: 100, items: {type: string, maxLength: 10}, x-kubernetes-validations: [{rule: 'self.all(x, self.all(y, x == y))'}]}}}`},
		"unbounded, once": {schema: `{type: object, properties: {a: {type: array, items: {type: string}, x-kubernetes-validations: [{rule: 'self.all(x, x.size() < 10)'}]}}}`},
		"unbounded, squared": {
			schema: `{type: object, properties: {a: {type: array, items: {type: integer}, x-kubernetes-validations: [{rule: 'self.all(x, self.all(y, x == y))'}]}}}`,
			want:   []string{at(much, "properties[a].x-kubernetes-validations[0].rule"), at(share, "properties[a].x-kubernetes-validations[0].rule"), total + "more than 100x" + hint},
		},
		"for each of many": {
			schema: `{type: object, properties: {a: {type: array, items: {type: string, x-kubernetes-validations: [{rule: 'self.matches("^a+$")'}]}}}}`,
			want:   []string{at(much, "properties[a].items.x-kubernetes-validations[0].rule"), at(share, "properties[a].items.x-kubernetes-validations[0].rule"), total + "more than 100x" + hint},
		},
		"for each of few": {schema: `{type: object, properties: {a: {type: array, maxItems: 10, items: {type: string, maxLength: 10, x-kubernetes-validations: [{rule: 'self.matches("^a+$")'}]}}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, err := range Check(props(t, c.schema), field.NewPath("schema")) {
				got = append(got, err.Error())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// A rule about the old value is refused where nothing says which that is: below lists that are no maps, and atomic maps.
func TestCheckTransitions(t *testing.T) {
	const rule = `x-kubernetes-validations: [{rule: 'self == oldSelf'}]`
	const text = `oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[a]`
	for schema, want := range map[string]string{
		`{type: array, maxItems: 5, items: {type: string, maxLength: 5, ` + rule + `}}`:                                                                                                text,
		`{type: array, maxItems: 5, x-kubernetes-list-type: set, items: {type: string, maxLength: 5, ` + rule + `}}`:                                                                   text,
		`{type: object, x-kubernetes-map-type: atomic, properties: {b: {type: string, ` + rule + `}}}`:                                                                                 text,
		`{type: array, maxItems: 5, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k], items: {type: object, properties: {k: {type: string, maxLength: 5, ` + rule + `}}}}`: "",
		`{type: object, maxProperties: 5, additionalProperties: {type: string, maxLength: 5, ` + rule + `}}`:                                                                           "",
		`{type: array, maxItems: 5, items: {type: string, maxLength: 5}, ` + rule + `}`:                                                                                                "",
		`{type: array, maxItems: 5, items: {type: string, maxLength: 5, x-kubernetes-validations: [{rule: 'self != "oldSelf"'}]}}`:                                                     "",
	} {
		errs := Check(props(t, `{type: object, properties: {a: `+schema+`}}`), field.NewPath("schema"))
		if want == "" && len(errs) > 0 || want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), want)) {
			t.Errorf("%s: %v", schema, errs)
		}
	}
}

// Rules that cost too much for an object stop; those after them do not run.
func TestBudget(t *testing.T) {
	p := props(t, `
type: object
properties:
  a: {type: string, x-kubernetes-validations: [{rule: self.contains(self)}]}
  b: {type: string, x-kubernetes-validations: [{rule: self == ""}]}
`)
	long := strings.Repeat("x", 100_000)
	errs := Compile(p).Validate(map[string]any{"a": long, "b": "x"}, nil)
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "no further validation rules will be run due to call cost exceeds limit for rule") {
		t.Errorf("%v", errs)
	}
	errs = Compile(p).Validate(map[string]any{"a": long[:10], "b": "x"}, nil)
	if len(errs) != 1 || errs[0].Field != "b" {
		t.Errorf("%v", errs)
	}
	errs = Compile(p).check(nil, map[string]any{"a": long[:1000], "b": "x"}, nil, false, &budget{100})
	if len(errs) != 1 || !strings.HasSuffix(errs[0].Error(), "validation failed due to running out of cost budget, no further validation rules will be run") {
		t.Errorf("%v", errs)
	}
}
