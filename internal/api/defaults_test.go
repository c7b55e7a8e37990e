package api

import (
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// TestDefaultsAreValid: what Default fills in is never what is wrong with an object. It is tried with random objects and with the valid
// objects of the archives, each of whose fields is left out once.
func TestDefaultsAreValid(t *testing.T) {
	each(t, func(t *testing.T, d *kind.Definition, fill func() object.Object) {
		if d.Default != nil && d.Convert == nil {
			defaultsAreValid(t, d, fill())
		}
	})
	known, tried := examples(t), 0
	for _, d := range kind.NewCatalog(Groups(testOptions())...).All() {
		if d.Default == nil || d.Convert != nil {
			continue
		}
		for _, text := range known[d.GroupVersionKind()] {
			obj := d.New()
			if err := yaml.Unmarshal(text, obj); err != nil {
				t.Fatal(err)
			}
			for _, less := range withoutOne(treeOf(t, obj)) {
				tried++
				obj := d.New()
				text, err := json.Marshal(less)
				if err == nil {
					err = json.Unmarshal(text, obj)
				}
				if err != nil {
					t.Fatal(err)
				}
				defaultsAreValid(t, d, obj)
			}
		}
	}
	if tried < 2500 {
		t.Errorf("only %d fields were left out", tried)
	}
}

func defaultsAreValid(t *testing.T, d *kind.Definition, obj object.Object) {
	ctx := user.With(context.Background(), &user.Info{Name: "admin"})
	sent := treeOf(t, obj)
	d.Default(obj)
	if d.PrepareCreate != nil {
		d.PrepareCreate(ctx, obj)
	}
	full := treeOf(t, obj)
	if d.Validate == nil {
		return
	}
	for _, e := range d.Validate(ctx, obj) {
		if made(sent, full, e.Field) && mismatches[d.Kind+" "+indexes.ReplaceAllString(e.Field, "")] != e.Type {
			t.Errorf("%s: what is filled in is wrong: %s", d.Kind, e)
		}
	}
}

// mismatches are errors that are said of a field that was filled in because it does not go with one that was sent.
var mismatches = map[string]field.ErrorType{
	// Jobs must say how their pods restart: what a pod that does not say so gets is not for them.
	"Job spec.template.spec.restartPolicy":                      field.ErrorTypeRequired,
	"CronJob spec.jobTemplate.spec.template.spec.restartPolicy": field.ErrorTypeRequired,
	// The deadline for progress is after the time that a pod must be ready for.
	"Deployment spec.progressDeadlineSeconds": field.ErrorTypeInvalid,
	// To have none, an autoscaler needs a metric of something else than its pods.
	"HorizontalPodAutoscaler spec.metrics": field.ErrorTypeForbidden,
	// They are named after the kind.
	"CustomResourceDefinition spec.names.listKind": field.ErrorTypeInvalid,
	"CustomResourceDefinition spec.names.singular": field.ErrorTypeInvalid,
	// A Job finds its pods by its UID, which is the server's to choose.
	"Job spec.selector.matchLabels":     field.ErrorTypeInvalid,
	"Job spec.template.metadata.labels": field.ErrorTypeInvalid,
	// Only one port can do without a name.
	"EndpointSlice ports.name": field.ErrorTypeDuplicate,
}

var indexes = regexp.MustCompile(`\[[^\]]*\]`)

// made reports whether what is at a path in the full tree was made up: nothing was sent there, and not all of it was sent elsewhere.
func made(sent, full map[string]any, path string) bool {
	parts := partsOf(path)
	v := lookup(full, parts)
	if v == nil || lookup(sent, parts) != nil {
		return false
	}
	words := map[any]bool{"": true}
	eachWord(sent, func(w any) { words[w] = true })
	if key, ok := parts[len(parts)-1].(string); ok && strings.HasSuffix(path, "]") && words[key] {
		return false
	}
	found := false
	eachWord(v, func(w any) { found = found || !words[w] })
	return found
}

// eachWord visits the keys and values of a tree.
func eachWord(v any, visit func(any)) {
	switch v := v.(type) {
	case map[string]any:
		for k, in := range v {
			visit(k)
			eachWord(in, visit)
		}
	case []any:
		for _, in := range v {
			eachWord(in, visit)
		}
	default:
		visit(v)
	}
}

func treeOf(t *testing.T, obj object.Object) (tree map[string]any) {
	text, err := json.Marshal(obj)
	if err == nil {
		err = json.Unmarshal(text, &tree)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// withoutOne are the trees that lack one field each, at any depth.
func withoutOne(tree map[string]any) (all []map[string]any) {
	var visit func(v any, parts []any)
	visit = func(v any, parts []any) {
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				at := append(slices.Clone(parts), k)
				less := runtime.DeepCopyJSON(tree)
				parent := less
				var in any = parent
				for _, p := range parts {
					in = into(in, p)
				}
				delete(in.(map[string]any), k)
				all = append(all, less)
				visit(v[k], at)
			}
		case []any:
			for i := range v {
				visit(v[i], append(slices.Clone(parts), i))
			}
		}
	}
	visit(tree, nil)
	return all
}

func into(v any, part any) any {
	switch v := v.(type) {
	case map[string]any:
		k, _ := part.(string)
		return v[k]
	case []any:
		if i, ok := part.(int); ok && i < len(v) {
			return v[i]
		}
	}
	return nil
}

var pathPart = regexp.MustCompile(`\.?([^.\[\]]+)|\[([^\]]*)\]`)

// partsOf are the names, keys and indexes in the path of an error.
func partsOf(path string) (parts []any) {
	for _, m := range pathPart.FindAllStringSubmatch(path, -1) {
		if i, err := strconv.Atoi(m[2]); err == nil && m[1] == "" {
			parts = append(parts, i)
		} else {
			parts = append(parts, m[1]+m[2])
		}
	}
	return parts
}

func lookup(tree map[string]any, parts []any) any {
	var v any = tree
	for _, p := range parts {
		v = into(v, p)
	}
	return v
}
