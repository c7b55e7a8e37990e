// Command build writes the documents that package openapi embeds: OpenAPI v2,
// and one OpenAPI v3 document for every group version and other root path of
// the built-in API, each as JSON and as protobuf, compressed, with an index. What
// is not served by default has a v3 document, and a part to add to v2.
//
// It is the second step of `go generate ./internal/openapi`. Input are the
// definitions that command define wrote and resources.json, the list of what
// is served. Same input, same bytes.
package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// kubernetesVersion is what the documents say of themselves.
const kubernetesVersion = "v1.37.2"

//go:embed resources.json
var resourcesJSON []byte

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: build DIRECTORY")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatalf("build: %v", err)
	}
}

func run(dir string) error {
	var served []groupVersion
	if err := json.Unmarshal(resourcesJSON, &served); err != nil {
		return fmt.Errorf("reading resources.json: %w", err)
	}
	names, err := newNames()
	if err != nil {
		return err
	}
	services, err := routes(served, names.scheme)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	out := &artifacts{dir: dir, Documents: map[string]*document{}}

	byDefault := maps.Clone(services)
	maps.DeleteFunc(byDefault, func(_ string, s *service) bool { return s.off })
	v2, err := buildV2(byDefault, names)
	if err != nil {
		return fmt.Errorf("building the v2 document: %w", err)
	}
	if err := out.addV2(v2); err != nil {
		return fmt.Errorf("writing the v2 document: %w", err)
	}
	for _, root := range slices.Sorted(maps.Keys(services)) {
		s := services[root]
		doc, err := buildV3(s, names)
		if err != nil {
			return fmt.Errorf("building the v3 document of %s: %w", root, err)
		}
		if err := out.addV3(root, doc); err != nil {
			return fmt.Errorf("writing the v3 document of %s: %w", root, err)
		}
		if !s.off {
			continue
		}
		own, err := buildV2(map[string]*service{root: s}, names)
		if err != nil {
			return fmt.Errorf("building the v2 document of %s: %w", root, err)
		}
		if err := out.addPartV2(root, own, v2); err != nil {
			return fmt.Errorf("writing the v2 document of %s: %w", root, err)
		}
	}
	if err := out.addTemplate(names); err != nil {
		return fmt.Errorf("writing the template for custom resources: %w", err)
	}
	return out.writeIndex()
}

func info() *spec.Info {
	return &spec.Info{InfoProps: spec.InfoProps{Title: "Kubernetes", Version: kubernetesVersion}}
}

func buildV2(services map[string]*service, names *names) (*spec.Swagger, error) {
	containers := []common.RouteContainer{}
	for _, root := range slices.Sorted(maps.Keys(services)) {
		containers = append(containers, services[root])
	}
	swagger, err := builder.BuildOpenAPISpecFromRoutes(containers, &common.Config{
		ProtocolList:                   []string{"https"},
		Info:                           info(),
		DefaultResponse:                &spec.Response{ResponseProps: spec.ResponseProps{Description: "Default Response."}},
		CommonResponses:                map[int]spec.Response{401: {ResponseProps: spec.ResponseProps{Description: "Unauthorized"}}},
		GetDefinitions:                 withTemplate,
		GetDefinitionName:              names.definition,
		GetOperationIDAndTagsFromRoute: operationIDAndTags,
		SecurityDefinitions: &spec.SecurityDefinitions{"BearerToken": {SecuritySchemeProps: spec.SecuritySchemeProps{
			Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication",
		}}},
		DefaultSecurity: []map[string][]string{{"BearerToken": {}}},
	})
	if err != nil {
		return nil, err
	}
	// Clients of v2 reject or misuse defaults that only v3 can tell apart; upstream serves v2 without any.
	swagger.Definitions = handler.PruneDefaults(swagger.Definitions)
	return swagger, nil
}

func buildV3(s *service, names *names) (*spec3.OpenAPI, error) {
	return builder3.BuildOpenAPISpecFromRoutes([]common.RouteContainer{s}, &common.OpenAPIV3Config{
		Info:                           info(),
		DefaultResponse:                &spec3.Response{ResponseProps: spec3.ResponseProps{Description: "Default Response."}},
		CommonResponses:                map[int]*spec3.Response{401: {ResponseProps: spec3.ResponseProps{Description: "Unauthorized"}}},
		GetDefinitions:                 withTemplate,
		GetDefinitionName:              names.definition,
		GetOperationIDAndTagsFromRoute: operationIDAndTags,
		SecuritySchemes: spec3.SecuritySchemes{"BearerToken": {SecuritySchemeProps: spec3.SecuritySchemeProps{
			Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication",
		}}},
		DefaultSecurity: []map[string][]string{{"BearerToken": {}}},
	})
}

func protoV2(doc []byte) ([]byte, error) {
	parsed, err := openapi_v2.ParseDocument(doc)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(parsed)
}

// fileName is the artifact's name of a root path: /apis/apps/v1 is v3/apis__apps__v1.json.gz.
func fileName(root string) string {
	return filepath.Join("v3", strings.ReplaceAll(strings.TrimLeft(root, "/."), "/", "__")+".json.gz")
}
