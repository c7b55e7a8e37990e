package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/engine"
	"github.com/timonel/timonel/internal/openapi"
	"github.com/timonel/timonel/internal/user"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const definition = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.example.com"},"spec":{
	"group":"example.com","scope":"Namespaced","names":{"plural":"things","kind":"Thing"},
	"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"color":{"type":"string"}}}}}]}}`

const things = "/apis/example.com/v1/namespaces/default/things"

// define makes the definition of things and returns when it is shown to be established.
func (r *running) define() {
	r.t.Helper()
	if status, body := r.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition); status != http.StatusCreated {
		r.t.Fatalf("define: %d %s", status, body)
	}
	for began := time.Now(); time.Since(began) < 10*time.Second; {
		if _, body := r.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com"); strings.Contains(body, `"type":"Established","status":"True"`) ||
			strings.Contains(body, `"reason":"InitialNamesAccepted"`) {
			return
		}
	}
	r.t.Fatal("it is not established")
}

// What is shown to be established is served, also by a server that is slow to take definitions over.
func TestEstablishedIsServed(t *testing.T) {
	const slow = 300 * time.Millisecond
	r := startServer(t, DefaultConfig(), func(s *Server) {
		s.registry.Publish = func(name string, served ...openapi.CustomResource) {
			time.Sleep(slow)
			s.documents.Set(name, served...)
		}
	})
	r.define()
	status, body := r.post(things, `{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a"},"color":"red"}`)
	if status != http.StatusCreated {
		t.Errorf("create: %d %s", status, body)
	}
	merge := http.Header{"Content-Type": {"application/merge-patch+json"}}
	newer := strings.Replace(definition, `"versions":[`, `"versions":[{"name":"v2","served":true,"storage":false,"schema":{"openAPIV3Schema":{"type":"object"}}},`, 1)
	if status, _, body := r.send("PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com", merge, newer); status != http.StatusOK {
		t.Fatalf("define another version: %d %s", status, body)
	}
	for path, want := range map[string]string{
		strings.Replace(things, "v1", "v2", 1): `"apiVersion":"example.com/v2"`,
		"/apis":                                "example.com/v2",
		"/apis/example.com/v2":                 `"things"`,
		"/openapi/v3":                          "apis/example.com/v2",
	} {
		if status, body := r.get(path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, without %s", path, status, want)
		}
	}
}

// Objects do not vanish while their resource is loaded anew, because other fields of theirs can be selected.
func TestRedefinedKeepsItsObjects(t *testing.T) {
	r := startServer(t, DefaultConfig())
	r.define()
	if status, body := r.post(things, `{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a"},"color":"red"}`); status != http.StatusCreated {
		t.Fatalf("create: %d %s", status, body)
	}
	done, finish := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for done.Err() == nil {
				if status, body := r.get(things + "/a"); status != http.StatusOK {
					t.Errorf("get: %d %s", status, body)
					return
				}
				if status, body := r.get(things + "?resourceVersion=0"); status != http.StatusOK || !strings.Contains(body, `"red"`) {
					t.Errorf("list: %d %s", status, body)
					return
				}
			}
		})
	}
	patch := http.Header{"Content-Type": {"application/json-patch+json"}}
	for i := range 40 {
		text := `[{"op":"add","path":"/spec/versions/0/selectableFields","value":[{"jsonPath":".color"}]}]`
		if i%2 == 1 {
			text = `[{"op":"remove","path":"/spec/versions/0/selectableFields"}]`
		}
		if status, _, body := r.send("PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com", patch, text); status != http.StatusOK {
			t.Fatal(fmt.Sprint(status, body))
		}
	}
	finish()
	readers.Wait()
}

// A request that was on its way when its resource ended leaves nothing behind that a later resource of that name would find.
func TestNothingIsMadeOfWhatEnded(t *testing.T) {
	r := startServer(t, DefaultConfig())
	r.define()
	call := func() *engine.Call {
		if err := r.server.registry.Abreast(t.Context()); err != nil { // as each request does
			t.Fatal(err)
		}
		d := r.server.Catalog.Catalog().Locate("example.com", "v1", "things")
		return &engine.Call{Definition: d, Namespace: "default", User: &user.Info{Name: "late"}}
	}
	create := func(c *engine.Call, name string, finalizers ...string) error {
		body := engine.Body{Bytes: fmt.Appendf(nil, `{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":%q,"finalizers":[%s]}}`, name, strings.Join(finalizers, ","))}
		_, err := r.server.Engine.Create(t.Context(), c, body, metav1.CreateOptions{})
		return err
	}
	waits, late := call(), call()
	if err := create(call(), "a", `"example.com/held"`); err != nil {
		t.Fatal(err)
	}
	const crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com"
	if status, _, body := r.send("DELETE", crd, nil, ""); status != http.StatusOK {
		t.Fatalf("delete: %d %s", status, body)
	}
	if err := create(waits, "b"); !apierrors.IsMethodNotSupported(err) {
		t.Errorf("create while it ends: %v", err)
	}
	merge := http.Header{"Content-Type": {"application/merge-patch+json"}}
	if status, _, body := r.send("PATCH", things+"/a", merge, `{"metadata":{"finalizers":null}}`); status != http.StatusOK {
		t.Fatalf("let a go: %d %s", status, body)
	}
	for began := time.Now(); ; {
		if status, body := r.get(crd); status == http.StatusNotFound {
			break
		} else if time.Since(began) > 10*time.Second {
			t.Fatalf("it does not end: %s", body)
		}
	}
	if err := create(late, "c"); !apierrors.IsNotFound(err) {
		t.Errorf("create when it has ended: %v", err)
	}
	r.define()
	if err := create(late, "d"); !apierrors.IsNotFound(err) {
		t.Errorf("create when it is another one: %v", err)
	}
	if status, body := r.get(things); status != http.StatusOK || !strings.Contains(body, `"items":[]`) {
		t.Errorf("list of the next resource: %d %s", status, body)
	}
}
