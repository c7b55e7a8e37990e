package openapi

import (
	"net/http"
	"testing"

	"github.com/timonel/timonel/internal/testkit/corpus"
)

func TestCorpus(t *testing.T) {
	corpus.Replay(t, New(Config{}), "openapi", "*.yaml", nil, nil)
}

func TestCorpusCustomResources(t *testing.T) {
	const ns = "c001"
	d := New(Config{})
	d.Set("widgets", widget(ns+".example.com"))
	corpus.Replay(t, d, "crd", "discovery-openapi.yaml", map[string]string{"ns": ns}, func(s *corpus.Step) bool {
		return s.Method == http.MethodGet && s.Facts == "openapi"
	})
}

func widget(group string) CustomResource {
	return CustomResource{
		Group: group, Version: "v1", Plural: "widgets", Kind: "Widget", ListKind: "WidgetList", Namespaced: true,
		Schema: func() ([]byte, error) {
			return []byte(`{"type":"object","required":["spec"],"properties":{
				"metadata":{"type":"object","properties":{"name":{"type":"string","maxLength":10}}},
				"spec":{"type":"object","required":["size"],"properties":{
					"any":{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}]},
					"color":{"type":"string","default":"red","enum":["red","green"]},
					"free":{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"a":{"type":"string"}}},
					"nul":{"type":"string","nullable":true},
					"template":{"type":"object","x-kubernetes-embedded-resource":true},
					"size":{"type":"integer","minimum":1,"maximum":10}}},
				"status":{"type":"object","properties":{"replicas":{"type":"integer"}}}}}`), nil
		},
	}
}
