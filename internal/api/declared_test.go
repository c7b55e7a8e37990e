package api

import (
	"cmp"
	"context"
	"encoding/json"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// The comments of the types in k8s.io/api say in a form for machines what is valid ("+k8s:…", KEP-5073). TestDeclaredRules reads them
// all, breaks each wherever a kind has the field, and wants the answer that apimachinery's functions for such rules give.

// rule is one tag.
type rule struct {
	name, value string
	of          string // "eachVal", "eachKey", "subfield(name)" …: what of the field it is about; "": the field
	alpha       bool   // rules that are alpha are said by hand as well, in other words
	gate        string // it holds if the gate is on, or with off, if it is off
	off         bool
}

func (r rule) String() string {
	return strings.Join(slices.DeleteFunc([]string{r.of, r.name, r.value}, func(s string) bool { return s == "" }), " ")
}

var tagForm = regexp.MustCompile(`^\+k8s:([a-zA-Z]+)(?:\(([^)]*)\))?(?:=(.*))?$`)

// parseRule reads the line of a comment.
func parseRule(line string) (r rule, ok bool) {
	for _, name := range []string{"featureGate", "oneOf", "zeroOrOneOf"} {
		if value, ok := strings.CutPrefix(line, "+"+name+"="); ok {
			return rule{name: name, value: value}, true
		}
	}
	for {
		m := tagForm.FindStringSubmatch(line)
		if m == nil {
			return r, false
		}
		switch name, arg, rest := m[1], strings.Trim(m[2], `"`), m[3]; name {
		case "alpha":
			r.alpha = true
			line = rest
		case "beta":
			line = rest
		case "ifEnabled", "ifDisabled":
			r.gate, r.off = arg, name == "ifDisabled"
			line = rest
		case "eachVal", "eachKey", "subfield", "item", "ifMode":
			r.of = strings.TrimSpace(r.of + " " + name + strings.TrimSuffix("("+arg+")", "()"))
			line = rest
		default:
			rest, _, _ = strings.Cut(rest, " #")
			rest, _, _ = strings.Cut(rest, " //")
			r.name, r.value = name, strings.Trim(cmp.Or(rest, m[2]), `"`)
			return r, true
		}
	}
}

// declarations are what the source of a package says about its types.
type declarations struct {
	types  map[string][]rule   // by type
	fields map[string][]rule   // by type and field
	values map[string][]string // of the constants of a type
	names  map[string]string   // constants
}

var sources = map[string]declarations{}

func declared(t *testing.T, pkg string) declarations {
	if d, ok := sources[pkg]; ok {
		return d
	}
	found, err := build.Import(pkg, ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	text, err := parser.ParseFile(token.NewFileSet(), filepath.Join(found.Dir, "types.go"), nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	d := declarations{types: map[string][]rule{}, fields: map[string][]rule{}, values: map[string][]string{}, names: map[string]string{}}
	imports := map[string]string{}
	for _, i := range text.Imports {
		if path, _ := strconv.Unquote(i.Path.Value); i.Name != nil {
			imports[i.Name.Name] = path
		}
	}
	for _, decl := range text.Decls {
		g, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range g.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				d.types[s.Name.Name] = rules(g.Doc, s.Doc)
				if st, ok := s.Type.(*ast.StructType); ok {
					for _, f := range st.Fields.List {
						name := ""
						if len(f.Names) > 0 {
							name = f.Names[0].Name
						} else if id, ok := f.Type.(*ast.Ident); ok {
							name = id.Name
						}
						d.fields[s.Name.Name+"."+name] = rules(f.Doc)
					}
				}
			case *ast.ValueSpec:
				for i, v := range s.Values { // T = "x", = T("x"), or = T(other.X)
					of := s.Type
					if call, ok := v.(*ast.CallExpr); ok && len(call.Args) == 1 {
						of, v = call.Fun, call.Args[0]
					}
					id, ok := of.(*ast.Ident)
					if !ok {
						continue
					}
					switch v := v.(type) {
					case *ast.BasicLit:
						if v.Kind != token.STRING {
							continue
						}
						d.names[s.Names[i].Name], _ = strconv.Unquote(v.Value)
					case *ast.SelectorExpr:
						d.names[s.Names[i].Name] = declared(t, imports[v.X.(*ast.Ident).Name]).names[v.Sel.Name]
					default:
						continue
					}
					d.values[id.Name] = append(d.values[id.Name], d.names[s.Names[i].Name])
				}
			}
		}
	}
	sources[pkg] = d
	return d
}

func rules(comments ...*ast.CommentGroup) (all []rule) {
	for _, c := range comments {
		if c == nil {
			continue
		}
		for _, line := range c.List {
			if r, ok := parseRule(strings.TrimSpace(strings.TrimPrefix(line.Text, "//"))); ok {
				all = append(all, r)
			}
		}
	}
	return all
}

// step is a part of a field's place in an object: a name, an index or a key, the type of what is there, and the fields that cannot be
// there with it.
type step struct {
	name    string
	index   bool
	key     bool
	of      reflect.Type
	instead []string
}

type place []step

func (p place) child(name string, t reflect.Type, instead ...string) place {
	return append(slices.Clone(p), step{name: name, of: t, instead: instead})
}
func (p place) item(t reflect.Type) place {
	return append(slices.Clone(p), step{name: "0", index: true, of: t})
}
func (p place) under(key string, t reflect.Type) place {
	return append(slices.Clone(p), step{name: key, key: true, of: t})
}

func (p place) path() *field.Path {
	var path *field.Path
	for _, s := range p {
		switch {
		case s.index:
			path = path.Index(0)
		case s.key:
			path = path.Key(s.name)
		default:
			path = path.Child(s.name)
		}
	}
	return path
}

// sample is a value of a type, with what is required in it, that keeps the rules about it if it can.
func (a *audit) sample(t reflect.Type, rules []rule) any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	for _, r := range slices.Concat(rules, a.ofType(t, "")) {
		switch {
		case r.of != "":
		case r.name == "format":
			return map[string]string{"k8s-uuid": "0f0f0f0f-0000-4000-8000-0f0f0f0f0f0f", "k8s-prefixed-label-key": "example.com/a",
				"k8s-resource-fully-qualified-name": "example.com/a", "k8s-extended-resource-name": "example.com/a"}[r.value] + "a"
		case r.name == "enum":
			return strings.Split(r.value, ",")[0]
		}
	}
	switch t {
	case reflect.TypeFor[resource.Quantity]():
		return "1"
	case reflect.TypeFor[metav1.Time]():
		return "2026-01-01T00:00:00Z"
	case reflect.TypeFor[metav1.MicroTime]():
		return "2026-01-01T00:00:00.000000Z"
	case reflect.TypeFor[intstr.IntOrString]():
		return int64(1)
	}
	switch t.Kind() {
	case reflect.Struct:
		m := map[string]any{}
		a.fill(m, t)
		return m
	case reflect.Map:
		return map[string]any{"key": a.sample(t.Elem(), nil)}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "YQ=="
		}
		var each []rule
		for _, r := range rules {
			if r.of == "eachVal" {
				r.of = ""
				each = append(each, r)
			}
		}
		return []any{a.sample(t.Elem(), each)}
	case reflect.Bool:
		return true
	case reflect.String:
		return "a"
	default:
		return int64(1)
	}
}

// fill sets what is required in a struct, and a member of each union.
func (a *audit) fill(m map[string]any, t reflect.Type) {
	if !strings.HasPrefix(t.PkgPath(), "k8s.io/api/") {
		return
	}
	d := declared(a.T, t.PkgPath())
	unions := map[string]bool{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			a.fill(m, f.Type)
			continue
		}
		rules := d.fields[t.Name()+"."+f.Name]
		needed := f.Type.Kind() == reflect.Struct && !strings.Contains(options, "omitempty")
		for _, r := range rules {
			needed = needed || r.name == "required" && r.of == ""
			if (r.name == "unionMember" || r.name == "oneOf") && !unions[r.value] {
				needed, unions[r.value] = true, true
			}
		}
		if needed && m[name] == nil {
			m[name] = a.sample(f.Type, rules)
		}
	}
}

// at returns the value at a place and a function that puts another one there (nil: none). With plant it makes what is missing on the way.
func (a *audit) at(tree map[string]any, p place, plant bool) (value any, put func(any)) {
	value = tree
	put = func(any) {}
	for i, s := range p {
		var next any
		switch in := value.(type) {
		case map[string]any:
			if next = in[s.name]; plant {
				for _, other := range s.instead {
					delete(in, other)
				}
			}
			put = func(v any) {
				if v == nil {
					delete(in, s.name)
				} else {
					in[s.name] = v
				}
			}
		case []any:
			if len(in) > 0 {
				next = in[0]
				put = func(v any) { in[0] = v }
			}
		default:
			return nil, put
		}
		if next == nil && plant && i < len(p)-1 {
			next = a.sample(s.of, nil)
			put(next)
		}
		value = next
	}
	return value, put
}

// depth is how much of the way to a place there is.
func (a *audit) depth(tree map[string]any, p place) int {
	for i := range p {
		if v, _ := a.at(tree, p[:i+1], false); v == nil {
			return i
		}
	}
	return len(p)
}

// audit breaks the rules of one kind.
type audit struct {
	*testing.T
	d      *kind.Definition
	bases  []map[string]any
	gates  feature.Gates
	broken int
}

func TestDeclaredRules(t *testing.T) {
	known := examples(t)
	for name, flags := range map[string][]string{"by default": nil, "all features": {"AllAlpha=true,AllBeta=true"}} {
		t.Run(name, func(t *testing.T) {
			gates, err := feature.ParseGates(flags)
			if err != nil {
				t.Fatal(err)
			}
			options := testOptions()
			options.Gates = gates
			broken := 0
			for _, d := range kind.NewCatalog(Groups(options)...).All() {
				if d.Convert != nil {
					continue // its rules are those of the hub
				}
				t.Run(d.Resource().String(), func(t *testing.T) {
					a := audit{T: t, d: d, gates: gates, bases: []map[string]any{least}}
					for _, text := range known[d.GroupVersionKind()] {
						obj := d.New()
						if err := yaml.Unmarshal(text, obj); err != nil {
							t.Fatal(err)
						}
						a.bases = append(a.bases, a.tree(obj))
					}
					a.walk(d.GoType(), nil, nil, false)
					broken += a.broken
				})
			}
			if t.Logf("%d rules were broken", broken); broken < 750 {
				t.Error("these are too few")
			}
		})
	}
}

// walk visits the fields of a struct.
// If they are frozen, a change of any is said of something around them.
func (a *audit) walk(s reflect.Type, p place, through []reflect.Type, frozen bool) {
	if !strings.HasPrefix(s.PkgPath(), "k8s.io/api/") || slices.Contains(through, s) {
		return
	}
	through = append(slices.Clone(through), s)
	d := declared(a.T, s.PkgPath())
	unions := map[string][]string{}
	for i := range s.NumField() {
		name, _, _ := strings.Cut(s.Field(i).Tag.Get("json"), ",")
		for _, r := range d.fields[s.Name()+"."+s.Field(i).Name] {
			if r.name == "unionMember" || r.name == "oneOf" || r.name == "zeroOrOneOf" {
				unions[r.name+r.value] = append(unions[r.name+r.value], name)
			}
		}
	}
	for union, members := range unions {
		if name, ok := strings.CutPrefix(union, "unionMember"); ok {
			a.union(name, members, p, s)
		}
	}
	for i := range s.NumField() {
		f := s.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" { // its fields are ours
			a.walk(f.Type, p, through, frozen)
			continue
		}
		var instead []string
		for _, members := range unions {
			if slices.Contains(members, name) {
				instead = slices.DeleteFunc(slices.Clone(members), func(m string) bool { return m == name })
			}
		}
		here := p.child(name, f.Type, instead...)
		t := f.Type
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		rules := slices.Concat(d.fields[s.Name()+"."+f.Name], a.ofType(t, ""))
		if t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			rules = slices.Concat(rules, a.ofType(t.Elem(), "eachVal"))
		}
		if slices.ContainsFunc(rules, a.off) {
			a.withdrawn(here, t, rules)
			continue
		}
		for _, r := range rules {
			if changes := r.name == "immutable" || r.name == "update"; (r.gate == "" || a.on(r.gate) != r.off) && !(frozen && changes) {
				a.rule(r, rules, here, t)
			}
		}
		opaque := slices.ContainsFunc(rules, func(r rule) bool { return r.name == "opaqueType" })
		if opaque || len(p) == 0 && name == "metadata" {
			continue
		}
		frozen := frozen || slices.ContainsFunc(rules, func(r rule) bool { return r.name == "immutable" })
		switch t.Kind() {
		case reflect.Struct:
			a.walk(t, here, through, frozen)
		case reflect.Slice:
			if e := t.Elem(); e.Kind() == reflect.Struct {
				a.walk(e, here.item(e), through, frozen)
			}
		case reflect.Map:
			if e := t.Elem(); e.Kind() == reflect.Struct {
				a.walk(e, here.under("key", e), through, frozen)
			}
		}
	}
}

// on reports whether a feature is: its gate is open, and something here depends on the gate.
func (a *audit) on(gate string) bool {
	named, err := feature.ParseGates([]string{gate + "=true"})
	if err != nil {
		return true // it is no gate any more
	}
	return a.gates.Enabled(gate) && (feature.Gates{}.Enabled(gate) || len(named.Idle()) == 0)
}

// off reports whether a field with the rule belongs to a feature that is off.
func (a *audit) off(r rule) bool {
	switch {
	case r.name == "featureGate":
		return slices.ContainsFunc(strings.Split(r.value, ","), func(g string) bool { return !a.on(g) })
	default:
		return r.name == "forbidden" && r.of == "" && r.off && !a.on(r.gate)
	}
}

// least is an object of any kind.
var least = map[string]any{"metadata": map[string]any{"name": "a"}}

// withdrawn wants a field of a feature that is off to be refused or to be gone.
func (a *audit) withdrawn(here place, t reflect.Type, rules []rule) {
	tree, before := runtime.DeepCopyJSON(least), runtime.DeepCopyJSON(least)
	_, put := a.at(tree, here, true)
	put(a.sample(t, rules))
	_, put = a.at(before, here, true)
	put(nil)
	a.broken++
	for verb, old := range map[string]map[string]any{"create": nil, "update": before} {
		obj, errs := a.errors(tree, old, before, here[0].name == "status")
		if slices.ContainsFunc(errs, func(e *field.Error) bool {
			return e.Type == field.ErrorTypeForbidden && e.Field == here.path().String()
		}) {
			continue
		}
		if v, _ := a.at(a.tree(obj), here, false); v != nil {
			a.Errorf("%s: belongs to a feature that is off, and %s leaves it to be %v", here.path(), verb, v)
		}
	}
}

// ofType are the rules of a named type, for a field that has it.
func (a *audit) ofType(t reflect.Type, of string) (all []rule) {
	if !strings.HasPrefix(t.PkgPath(), "k8s.io/api/") || t.Kind() == reflect.Struct {
		return nil
	}
	d := declared(a.T, t.PkgPath())
	for _, r := range d.types[t.Name()] {
		if r.of = of; r.name == "enum" {
			r.value = strings.Join(d.values[t.Name()], ",")
		}
		all = append(all, r)
	}
	return all
}

var formats = map[string]func(context.Context, operation.Operation, *field.Path, *string, *string) field.ErrorList{
	"k8s-short-name": validate.ShortName[string], "k8s-long-name": validate.LongName[string], "k8s-long-name-caseless": validate.LongNameCaseless[string],
	"k8s-label-key": validate.LabelKey[string], "k8s-prefixed-label-key": validate.PrefixedLabelKey[string], "k8s-label-value": validate.LabelValue[string],
	"k8s-path-segment-name": validate.PathSegmentName[string], "k8s-uuid": validate.UUID[string], "k8s-resource-pool-name": validate.ResourcePoolName[string],
	"k8s-extended-resource-name": validate.ExtendedResourceName[string], "k8s-resource-fully-qualified-name": validate.ResourceFullyQualifiedName[string],
}

// rule breaks a rule about the field at a place, which is of type t, and wants the error for it.
func (a *audit) rule(r rule, all []rule, here place, t reflect.Type) {
	ctx, create, update := context.Background(), operation.Operation{Type: operation.Create}, operation.Operation{Type: operation.Update}
	path, sample := here.path(), func() any { return a.sample(t, all) }
	number, _ := strconv.ParseInt(r.value, 10, 64)
	old, bad := a.base(here), a.base(here)
	set := func(tree map[string]any, p place, v any) { _, put := a.at(tree, p, true); put(v) }
	now, _ := a.at(old, here, false)
	if now == nil {
		now = sample()
	}
	if strings.HasPrefix(r.of, "subfield") { // of the metadata, which is the engine's
		return
	}
	if r.of == "eachVal" {
		set(old, here, now)
		set(bad, here, now)
		here, path, t = here.item(t.Elem()), path.Index(0), t.Elem()
	}
	switch r.name {
	case "required":
		set(old, here, now)
		set(bad, here, nil)
		a.want(r, here, old, bad, nil, validate.RequiredPointer[int](ctx, create, path, nil, nil))
	case "forbidden":
		set(bad, here, now)
		a.want(r, here, old, bad, nil, validate.ForbiddenPointer(ctx, create, path, &number, nil))
	case "maxItems":
		var items []any
		for range number + 1 {
			items = append(items, a.sample(t.Elem(), nil))
		}
		set(bad, here, items)
		a.want(r, here, old, bad, nil, validate.MaxItems(ctx, create, path, items, nil, int(number)))
	case "maxLength", "maxBytes":
		long := strings.Repeat("a", int(number)+1)
		set(bad, here, long)
		errs := validate.MaxLength(ctx, create, path, &long, nil, int(number))
		if r.name == "maxBytes" {
			errs = validate.MaxBytes(ctx, create, path, &long, nil, int(number))
		}
		a.want(r, here, old, bad, nil, errs)
	case "minimum":
		n := number - 1
		if n == 0 { // which is no number at all
			n--
		}
		set(bad, here, n)
		a.want(r, here, old, bad, nil, validate.Minimum(ctx, create, path, &n, nil, number))
	case "maximum":
		n := number + 1
		set(bad, here, n)
		a.want(r, here, old, bad, nil, validate.Maximum(ctx, create, path, &n, nil, number))
	case "format":
		form, text := formats[r.value], "-a b_/"
		if form == nil {
			a.Fatalf("%s: no format %q", path, r.value)
		}
		if r.of == "eachKey" {
			set(bad, here, map[string]any{text: a.sample(t.Elem(), nil)})
		} else {
			set(bad, here, text)
		}
		a.want(r, here, old, bad, nil, form(ctx, create, path, &text, nil))
	case "enum":
		text := "NoSuchValue"
		set(bad, here, text)
		a.want(r, here, old, bad, nil, validate.Enum(ctx, create, path, &text, nil, sets.New(strings.Split(r.value, ",")...), nil))
	case "unique", "listType":
		if r.value == "atomic" || slices.ContainsFunc(all, func(r rule) bool { return r.name == "customUnique" }) {
			return
		}
		item := a.sample(t.Elem(), nil)
		if list, ok := now.([]any); ok && len(list) > 0 {
			item = list[0]
		}
		if m, ok := item.(map[string]any); ok {
			for _, k := range all {
				if f, ok := fieldOf(t.Elem(), k.value); k.name == "listMapKey" && ok && m[k.value] == nil {
					m[k.value] = a.sample(f, nil)
				}
			}
		}
		set(bad, here, []any{item, item})
		a.want(r, here, old, bad, nil, field.ErrorList{{Type: field.ErrorTypeDuplicate, Field: path.Index(1).String()}})
	case "immutable":
		set(old, here, now)
		if set(bad, here, a.other(now, t)); reflect.DeepEqual(old, bad) { // it has no fields
			set(bad, here, nil)
		}
		a.want(r, here, old, bad, old, validate.Immutable(ctx, update, path, "", ""))
	case "monotonic":
		five, four := int64(5), int64(4)
		set(old, here, five)
		set(bad, here, four)
		a.want(r, here, old, bad, old, validate.Monotonic(ctx, update, path, &four, &five))
	case "update":
		was, is := "a", ""
		switch r.value {
		case "NoSet":
			set(old, here, nil)
			set(bad, here, now)
			a.want(r, here, old, bad, old, validate.UpdateValueByCompare(ctx, update, path, &was, &is, validate.NoSet))
		case "NoUnset":
			set(old, here, now)
			set(bad, here, nil)
			a.want(r, here, old, bad, old, validate.UpdateValueByCompare(ctx, update, path, &is, &was, validate.NoUnset))
		case "NoModify":
			set(old, here, now)
			set(bad, here, a.other(now, t))
			a.want(r, here, old, bad, old, validate.UpdateValueByCompare(ctx, update, path, new("b"), &was, validate.NoModify))
		case "NoAddItem", "NoRemoveItem":
			list, _ := now.([]any)
			if len(list) == 0 {
				list = []any{a.sample(t.Elem(), nil)}
			}
			more := append(slices.Clone(list), a.other(list[0], t.Elem()))
			same := func(a, b *any) bool { return reflect.DeepEqual(*a, *b) }
			if r.value == "NoAddItem" {
				set(old, here, list)
				set(bad, here, more)
				a.want(r, here, old, bad, old, validate.ValSliceUpdate(ctx, update, path, more, list, same, validate.NoAddItem))
			} else {
				set(old, here, more)
				set(bad, here, list)
				a.want(r, here, old, bad, old, validate.ValSliceUpdate(ctx, update, path, list, more, same, validate.NoRemoveItem))
			}
		default:
			a.Errorf("%s: what is %s?", path, r)
		}
	case "dependentRequired", "dependentForbidden":
		beside := here[:len(here)-1].child(r.value, reflect.TypeFor[string]())
		one := &struct{}{}
		yes, no := func(*struct{}) bool { return true }, func(*struct{}) bool { return false }
		parent := here[:len(here)-1].path()
		set(bad, here, now)
		if r.name == "dependentRequired" {
			set(bad, beside, nil)
			a.want(r, here, old, bad, nil, validate.DependentRequired(ctx, create, parent, one, nil, here[len(here)-1].name, yes, r.value, no))
		} else {
			set(bad, beside, map[string]any{})
			a.want(r, here, old, bad, nil, validate.DependentForbidden(ctx, create, parent, one, nil, here[len(here)-1].name, yes, r.value, yes))
		}
	case "unionMember", "oneOf", "zeroOrOneOf", "featureGate", "optional", "opaqueType", "listMapKey", "customValidation", "customUnique", "deprecated", "modeDiscriminator", "zeroOrOneOfMember",
		"supportsSubresource", "isSubresource", "validation":
	default:
		a.Errorf("%s: what is %s?", path, r)
	}
}

// union sets none and then two of the members of which there must be one.
func (a *audit) union(name string, members []string, p place, s reflect.Type) {
	ctx, create := context.Background(), operation.Operation{Type: operation.Create}
	var all []validate.UnionMember
	for _, m := range members {
		all = append(all, validate.NewUnionMember(m))
	}
	for n := 0; n <= len(members) && n <= 2; n += 2 {
		first, _ := fieldOf(s, members[0])
		one := p.child(members[0], first, members[1:]...)
		old, bad := a.base(one), a.base(one)
		_, put := a.at(old, one, true)
		put(a.sample(first, nil))
		var set []validate.ExtractorFn[int, bool]
		for i, m := range members {
			f, _ := fieldOf(s, m)
			_, put := a.at(bad, p.child(m, f), true)
			if put(nil); i < n {
				put(a.sample(f, nil))
			}
			set = append(set, func(int) bool { return i < n })
		}
		a.want(rule{name: "unionMember", value: name}, p, old, bad, nil, validate.Union(ctx, create, p.path(), 0, 0, validate.NewUnionMembership(all...), set...))
	}
}

// fieldOf is the type of a field by its JSON name.
func fieldOf(s reflect.Type, name string) (reflect.Type, bool) {
	for i := range s.NumField() {
		f := s.Field(i)
		switch n, _, _ := strings.Cut(f.Tag.Get("json"), ","); {
		case n == name:
			return f.Type, true
		case n == "" && f.Type.Kind() == reflect.Struct:
			if t, ok := fieldOf(f.Type, name); ok {
				return t, true
			}
		}
	}
	return nil, false
}

// other is a value of a type that differs.
func (a *audit) other(v any, t reflect.Type) any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := v.(type) {
	case string:
		switch t {
		case reflect.TypeFor[resource.Quantity]():
			return "2"
		case reflect.TypeFor[metav1.Time]():
			return "2026-01-02T00:00:00Z"
		}
		return v + "b"
	case bool:
		return !v
	case int64:
		return v + 1
	case float64:
		return v + 1
	case []any:
		if len(v) == 0 {
			return []any{a.sample(t.Elem(), nil)}
		}
		return append([]any{a.other(v[0], t.Elem())}, v[1:]...)
	case map[string]any:
		m := maps.Clone(v)
		if t.Kind() == reflect.Map {
			m["another"] = a.sample(t.Elem(), nil)
			return m
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if f, ok := fieldOf(t, k); ok {
				if m[k] = a.other(m[k], f); !reflect.DeepEqual(m[k], v[k]) {
					return m
				}
			}
		}
		for i := range t.NumField() { // there is nothing to change
			k, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if k == "" || v[k] != nil {
				continue
			}
			if m[k] = a.sample(t.Field(i).Type, nil); !reflect.DeepEqual(m[k], map[string]any{}) {
				return m
			}
		}
		return m
	}
	return v
}

// base is the example in which most of the way to a place is there, with the rest of the way.
func (a *audit) base(p place) map[string]any {
	best := slices.MaxFunc(a.bases, func(x, y map[string]any) int { return cmp.Compare(a.depth(x, p), a.depth(y, p)) })
	tree := runtime.DeepCopyJSON(best)
	a.at(tree, p, true)
	return tree
}

// want wants an error from the bad tree that the good one does not have. With old it is an update.
func (a *audit) want(r rule, here place, good, bad, old map[string]any, wanted field.ErrorList) {
	a.Helper()
	if len(wanted) == 0 {
		a.Errorf("%s %s: is not broken", here.path(), r)
		return
	}
	a.broken++
	w := wanted[0]
	says := func(errs field.ErrorList) bool {
		return slices.ContainsFunc(errs, func(e *field.Error) bool {
			return e.Type == w.Type && e.Field == w.Field && (r.alpha || w.Type == field.ErrorTypeDuplicate || e.ErrorBody() == w.ErrorBody())
		})
	}
	status := len(here) > 0 && here[0].name == "status"
	beside := maps.Clone(good)
	delete(beside, "status")
	_, before := a.errors(good, old, beside, status)
	_, after := a.errors(bad, old, beside, status)
	switch {
	case !says(after):
		a.Errorf("%s %s:\n\twant %s: %s\n\tgot  %v", here.path(), r, w.Type, w, after)
	case says(before):
		a.Errorf("%s %s: is said of what does not break it too", here.path(), r)
	}
}

// errors are what the kind says of an object: a new one, one that replaces old, or one whose status is written over that of beside.
func (a *audit) errors(tree, old, beside map[string]any, status bool) (object.Object, field.ErrorList) {
	ctx := user.With(context.Background(), &user.Info{Name: "admin"})
	obj := a.object(tree)
	d := a.d
	if status {
		was := a.object(beside)
		if old != nil {
			was = a.object(old)
		}
		if sub := d.Subresources["status"]; sub != nil && sub.View != nil {
			sub.View.Prepare(ctx, obj, object.Copy(was))
			if sub.View.Validate == nil {
				return obj, nil
			}
			return obj, sub.View.Validate(ctx, obj, was)
		}
	}
	switch {
	case old == nil:
		if d.PrepareCreate != nil {
			d.PrepareCreate(ctx, obj)
		}
	default:
		was := a.object(old)
		if d.PrepareUpdate != nil {
			d.PrepareUpdate(ctx, obj, object.Copy(was))
		}
		if d.ValidateUpdate != nil {
			return obj, d.ValidateUpdate(ctx, obj, was)
		}
	}
	if d.Validate != nil {
		return obj, d.Validate(ctx, obj)
	}
	return obj, nil
}

// tree is the JSON form of an object, and object the object of a tree, with its defaults.
func (a *audit) tree(obj object.Object) (tree map[string]any) {
	a.Helper()
	text, err := json.Marshal(obj)
	if err == nil {
		err = utiljson.Unmarshal(text, &tree)
	}
	if err != nil {
		a.Fatal(err)
	}
	return tree
}

func (a *audit) object(tree map[string]any) object.Object {
	a.Helper()
	text, err := json.Marshal(tree)
	if err != nil {
		a.Fatal(err)
	}
	obj := a.d.New()
	if err := json.Unmarshal(text, obj); err != nil {
		a.Fatalf("%v: %s", err, text)
	}
	if a.d.Default != nil {
		a.d.Default(obj)
	}
	return obj
}
