// Command schemagen writes schema.txt, the shape of every built-in kind as
// server-side apply sees it (KEP-555): which lists are sets, maps or atomic,
// which maps are atomic, and the defaults of list keys. Its sources are the schemas that
// client-go, apiextensions and kube-aggregator ship for their apply
// configurations. Package patch documents the format where it reads it.
//
//	go generate ./internal/patch
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sort"
	"strings"

	"github.com/timonel/timonel/internal/patch/schemagen/source"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
)

func main() {
	defs, err := source.Types()
	if err != nil {
		log.Fatal(err)
	}
	lines := make([]string, 0, len(defs))
	for name, def := range defs {
		lines = append(lines, short(name)+" "+atom(def.Atom))
	}
	sort.Strings(lines)
	if err := os.WriteFile(os.Args[1], []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		log.Fatal(err)
	}
}

func short(name string) string {
	if s, ok := strings.CutPrefix(name, "io.k8s.api."); ok {
		return s
	}
	if s, ok := strings.CutPrefix(name, "io.k8s."); ok {
		return "/" + s
	}
	return name
}

func atom(a schema.Atom) string {
	var alternatives []string
	if a.Scalar != nil {
		alternatives = append(alternatives, string((*a.Scalar)[0]))
	}
	if a.List != nil {
		text := "[" + strings.Join(a.List.Keys, ",") + "]"
		if a.List.ElementRelationship == schema.Atomic {
			text = "[=]"
		}
		alternatives = append(alternatives, text+ref(a.List.ElementType))
	}
	if a.Map != nil {
		var text strings.Builder
		text.WriteString("{" + relationship(a.Map.ElementRelationship))
		for i, f := range a.Map.Fields {
			if i > 0 {
				text.WriteByte(';')
			}
			text.WriteString(f.Name + ":" + ref(f.Type) + value(f.Default))
		}
		text.WriteByte('}')
		if a.Map.ElementType.NamedType != nil || a.Map.ElementType.Inlined != (schema.Atom{}) {
			text.WriteString(ref(a.Map.ElementType))
		}
		alternatives = append(alternatives, text.String())
	}
	return strings.Join(alternatives, "|")
}

func ref(r schema.TypeRef) string {
	if r.Nullable {
		log.Fatalf("nullable type: the format has no room for it")
	}
	text := ""
	if r.ElementRelationship != nil {
		text = relationship(*r.ElementRelationship)
	}
	if r.NamedType != nil {
		return text + "@" + short(*r.NamedType)
	}
	if strings.Contains(atom(r.Inlined), "|") {
		return text + "(" + atom(r.Inlined) + ")"
	}
	return text + atom(r.Inlined)
}

func relationship(r schema.ElementRelationship) string {
	switch r {
	case schema.Atomic:
		return "="
	case schema.Separable:
		return "~"
	case "":
		return ""
	}
	panic(fmt.Sprintf("relationship %q", r))
}

// value keeps scalar defaults: only those of list keys are ever looked at.
func value(v any) string {
	switch v.(type) {
	case string, int, int64, float64, bool:
		text, err := json.Marshal(v)
		if err != nil || strings.ContainsAny(string(text), ";}\n") {
			log.Fatalf("default %v: the format has no room for it", v)
		}
		return "#" + string(text)
	}
	return ""
}
