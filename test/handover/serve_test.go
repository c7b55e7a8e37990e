package handover_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/timonel/timonel"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/etcd"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// TestServe takes over a stock server's etcd: every object is served as it was, and writing it back without a change
// leaves its key alone.
func TestServe(t *testing.T) {
	records, dir := registry(t), t.TempDir()
	var filled storage.Revision
	inStore(t, dir, func(store storage.Store) {
		fill(t, store, records)
		var err error
		if filled, err = store.Now(t.Context()); err != nil {
			t.Fatal(err)
		}
	})

	s := start(t, dir)
	gaps := known(t, "answers.txt")
	for _, a := range answers(t) {
		t.Run(a.Path[1:], func(t *testing.T) {
			reason, gap := gaps[a.Path]
			problem := s.same(a)
			switch {
			case gap && problem == "":
				t.Errorf("this works now; take it out of testdata/answers.txt (%s)", reason)
			case !gap && problem != "":
				t.Error(problem)
			}
		})
	}
	// A Job's labels are not stored until its first update. They can be selected by all the same.
	if status, body := s.do("GET", "/apis/batch/v1/namespaces/fx-job/jobs?labelSelector=job-name%3Dx-minimal", nil); status != http.StatusOK || !bytes.Contains(body, []byte(`"name":"x-minimal"`)) {
		t.Errorf("Jobs by label: %d %.300s", status, body)
	}
	s.stop()

	inStore(t, dir, func(store storage.Store) { unchanged(t, store, records, filled) })
}

// unchanged reports keys that are not as the stock server left them.
func unchanged(t *testing.T, store storage.Store, records []record, filled storage.Revision) {
	page, err := store.List(t.Context(), "/registry/", storage.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	now := map[string]storage.Entry{}
	for _, e := range page.Entries {
		now[e.Key] = e
	}
	own := known(t, "keys.txt")
	for _, r := range records {
		e, ok := now[r.Key]
		delete(now, r.Key)
		same := ok && bytes.Equal(e.Value, r.Value) && e.Modified <= filled
		_, expected := own[r.Key]
		switch {
		case same || expected:
		case !ok:
			t.Errorf("%s is gone", r.Key)
		case !bytes.Equal(e.Value, r.Value):
			t.Errorf("%s is changed:\n was %q\n now %q", r.Key, r.Value, e.Value)
		case e.Modified > filled:
			t.Errorf("%s was written again", r.Key)
		}
	}
	for key := range now {
		if _, expected := own[filepath.Dir(key)+"/*"]; !expected {
			t.Errorf("%s is new", key)
		}
	}
}

// inStore opens the etcd of a data directory without a server.
func inStore(t *testing.T, dir string, do func(storage.Store)) {
	t.Helper()
	store, err := etcd.Embedded(t.Context(), etcd.EmbeddedConfig{Dir: filepath.Join(dir, "etcd"), Compaction: -1, NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	do(store)
}

// server is a running Timonel.
type server struct {
	t      *testing.T
	url    string
	client *http.Client
	stop   func()
}

func start(t *testing.T, dir string) *server {
	t.Helper()
	cluster, err := timonel.Start(context.Background(), timonel.Config{DataDir: dir, AllowPrivileged: true})
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(cluster.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	s := &server{t: t, url: cluster.URL(), client: client}
	s.stop = func() {
		if !stopped {
			stopped = true
			client.CloseIdleConnections()
			if err := cluster.Stop(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(s.stop)
	return s
}

// do sends a request with a JSON body; headers are names and values in turn.
func (s *server) do(method, path string, body []byte, headers ...string) (int, []byte) {
	s.t.Helper()
	r, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, b
}

// same gets an object, compares it with the recorded answer, and puts it back as it is. It
// returns what is wrong, or "".
func (s *server) same(a answer) string {
	status, body := s.do("GET", a.Path, nil)
	if status != http.StatusOK {
		return fmt.Sprintf("GET: %d %s", status, body)
	}
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		return fmt.Sprintf("GET: %v", err)
	}
	got["metadata"].(map[string]any)["resourceVersion"] = a.JSON["metadata"].(map[string]any)["resourceVersion"]
	if diff := cmp.Diff(a.JSON, got); diff != "" {
		return "GET (- stock, + ours):\n" + diff
	}
	if problem := s.sameProtobuf(a.Path, body); problem != "" {
		return problem
	}
	if status, answer := s.do("PUT", a.Path+"?fieldManager="+url.QueryEscape(manager(a.JSON)), spaced(body)); status != http.StatusOK {
		return fmt.Sprintf("PUT: %d %s", status, answer)
	}
	return ""
}

// sameProtobuf compares the protobuf form of an object, if it has one, with the JSON form.
func (s *server) sameProtobuf(path string, asJSON []byte) string {
	status, body := s.do("GET", path, nil, "Accept", runtime.ContentTypeProtobuf)
	if status == http.StatusNotAcceptable {
		return ""
	}
	if status != http.StatusOK {
		return fmt.Sprintf("GET protobuf: %d %s", status, body)
	}
	obj, gvk, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		if runtime.IsNotRegisteredError(err) {
			return "" // definitions and API services: client-go does not know them
		}
		return fmt.Sprintf("GET protobuf: %v", err)
	}
	obj.GetObjectKind().SetGroupVersionKind(*gvk)
	again, err := json.Marshal(obj)
	if err != nil {
		return fmt.Sprintf("GET protobuf: %v", err)
	}
	var want, got map[string]any
	if err := errors.Join(json.Unmarshal(asJSON, &want), json.Unmarshal(again, &got)); err != nil {
		return fmt.Sprintf("GET protobuf: %v", err)
	}
	// Types of objects within objects are not part of the protobuf form.
	spec, _ := want["spec"].(map[string]any)
	claims, _ := spec["volumeClaimTemplates"].([]any)
	for _, claim := range claims {
		delete(claim.(map[string]any), "apiVersion")
		delete(claim.(map[string]any), "kind")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return "GET (- JSON, + protobuf):\n" + diff
	}
	return ""
}

// manager is who wrote an object.
func manager(obj map[string]any) string {
	entries, _ := obj["metadata"].(map[string]any)["managedFields"].([]any)
	for _, e := range entries {
		if e := e.(map[string]any); e["operation"] == "Update" && e["subresource"] == nil {
			return e["manager"].(string)
		}
	}
	return "Python-urllib"
}

// spaced puts a space behind the commas and colons of compact JSON: so the recording's client wrote it. Raw
// values (of runtime.RawExtension) are stored as they are sent, so the spaces count.
func spaced(compact []byte) []byte {
	var out []byte
	text := false
	for i, c := range compact {
		out = append(out, c)
		switch {
		case c == '"' && (i == 0 || compact[i-1] != '\\' || escaped(compact[:i])):
			text = !text
		case !text && (c == ',' || c == ':'):
			out = append(out, ' ')
		}
	}
	return out
}

// escaped reports whether the backslash at the end of b is itself escaped.
func escaped(b []byte) bool {
	n := 0
	for n < len(b) && b[len(b)-1-n] == '\\' {
		n++
	}
	return n%2 == 0
}
