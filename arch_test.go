package timonel

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// importLaw says who may not know whom. A line is
//
//	WHO imports|reaches WHAT: the reason
//
// and forbids it: "imports" counts direct imports, "reaches" also what those import. WHO and WHAT are
// paths, of rooms below internal/ or of other modules; a path stands for everything below it, except
// what stands after "but". "*" is every package of the product. Tests may import what they like.
//
// To let a new arrow in, change the line and its reason here, so that the change is seen.
const importLaw = `
* reaches k8s.io/kubernetes, k8s.io/apiserver, k8s.io/apiextensions-apiserver/pkg/apiserver: they are what we replace, and carry its memory and start-up cost
* imports testkit: it is for tests
* but cmd imports server: it knows every room, so whoever imports it would too
* but storage/etcd imports go.etcd.io: only one room talks to etcd, so that the store is one contract and not a library
* but storage/storagetest, api/apitest, proxy/stream/streamtest, testkit imports testing: it would add its flags to the program

object imports *: the value that all rooms pass must not know any of them
user imports *: who asks is a word in the language of every room
trace imports *: a room that measures others must not need them
pki imports *: certificates are made before anything else exists

storage imports * but storage: keys, bytes and revisions mean nothing to it; kinds, HTTP and users would make a second contract
patch imports * but patch, object: how two trees merge is arithmetic
kind imports * but object, patch: a definition describes an object and knows nobody who uses it
http2 imports *: it carries requests to a handler, whatever they ask
cel imports * but cel: the language is the same whoever writes in it
route imports * but kind: a path becomes a request by looking at it, which can be fuzzed
codec imports httpapi, engine, api, server: forms of an object are the same for all who ask
engine imports api, crd: it would know kinds, and a built-in one would no longer be served like a custom one
engine imports httpapi, route, authn, authz: a verb is the same from wherever it is called
admission imports httpapi, engine: the engine asks it, not the other way round
authz imports httpapi, engine, storage, kind: a decision is a lookup in what it was given
authn imports httpapi, engine, storage: who it is follows from the request and what it was given
election imports httpapi, engine, api, authn, authz, admission: it reads and writes like any room of the server, and knows two kinds
api imports httpapi, engine, storage, codec: a kind is data and pure functions
httpapi imports api, crd, authn, admission: it runs the ten steps and knows no kind and no user store
proxy imports engine, storage, codec, api: it passes bytes

controller reaches engine, storage, httpapi, codec: it is an ordinary API client, also in the same process (of admission it uses the arithmetic of quotas)
scheduler reaches engine, storage, httpapi, codec, kind: it is an ordinary API client, also in the same process
node reaches engine, storage, httpapi, codec, kind: it is an ordinary API client, also in the same process
node/cri imports * but node/cri: the agent's view of a container runtime, which must stay small
node/containerd imports * but node/containerd: a container runtime knows no pods
`

const (
	module = "github.com/timonel/timonel"
	house  = module + "/internal/"
)

type archPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImportLaw(t *testing.T) {
	if testing.Short() {
		t.Skip("it lists all packages")
	}
	packages := listPackages(t)
	for line := range strings.Lines(importLaw) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		checkLaw(t, line, packages)
	}
}

// listPackages lists the packages of this module, and what they need.
func listPackages(t *testing.T) []archPackage {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v: %s", err, &problem)
	}
	var all []archPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p archPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		// Tools, examples and what only tests are made of are not the product.
		if p.ImportPath == module || strings.HasPrefix(p.ImportPath, house) || strings.HasPrefix(p.ImportPath, module+"/cmd/") {
			all = append(all, p)
		}
	}
}

func checkLaw(t *testing.T, line string, packages []archPackage) {
	rule, reason, ok := strings.Cut(line, ": ")
	verb := " imports "
	if strings.Contains(rule, " reaches ") {
		verb = " reaches "
	}
	who, what, found := strings.Cut(rule, verb)
	if !ok || !found {
		t.Fatalf("cannot read the line %q", line)
	}
	from, to := newPaths(who), newPaths(what)
	applies := false
	for _, p := range packages {
		if !from.has(p.ImportPath) {
			continue
		}
		applies = true
		needs := p.Imports
		if verb == " reaches " {
			needs = p.Deps
		}
		for _, need := range needs {
			if to.has(need) && !(verb == " imports " && need == p.ImportPath) {
				t.Errorf("%s%s%s, which is forbidden: %s", room(p.ImportPath), verb, room(need), reason)
			}
		}
	}
	if !applies && !slices.Contains(planned, who) {
		t.Errorf("no package is meant by %q: remove the line, or mend it", line)
	}
}

// planned rooms have a law before they have code.
var planned = []string{}

// paths is a set of packages: those below one of some paths, except those below others.
type paths struct{ in, out []string }

func newPaths(text string) paths {
	in, out, _ := strings.Cut(text, " but ")
	return paths{splitPaths(in), splitPaths(out)}
}

func splitPaths(text string) []string {
	if text == "" {
		return nil
	}
	var all []string
	for p := range strings.SplitSeq(text, ", ") {
		switch {
		case p == "*", p == "cmd", p == "testing", p == "net/http", strings.Contains(strings.Split(p, "/")[0], "."):
			all = append(all, p)
		default:
			all = append(all, house+p)
		}
	}
	return all
}

func (s paths) has(path string) bool { return below(path, s.in) && !below(path, s.out) }

func below(path string, all []string) bool {
	for _, p := range all {
		switch {
		case p == "*" && (strings.HasPrefix(path, house) || path == module || strings.HasPrefix(path, module+"/cmd/")),
			p == "cmd" && (path == module || strings.HasPrefix(path, module+"/cmd/")), // the root is what programs import
			path == p, strings.HasPrefix(path, p+"/"):
			return true
		}
	}
	return false
}

func room(path string) string { return strings.TrimPrefix(path, house) }

// The law itself is tested: it must be able to fail.
func TestLawReads(t *testing.T) {
	check := func(set, path string, want bool) {
		t.Helper()
		if got := newPaths(set).has(path); got != want {
			t.Errorf("%q contains %s: %v, want %v", set, path, got, want)
		}
	}
	check("*", house+"engine", true)
	check("*", "net/http", false)
	check("* but cmd", module, false)
	check("* but cmd", module+"/cmd/timonel", false)
	check("* but cmd", house+"server", true)
	check("storage", house+"storage/etcd", true)
	check("storage", house+"storages", false)
	check("* but storage", house+"storage/etcd", false)
	check("go.etcd.io", "go.etcd.io/etcd/client/v3", true)
	check("net/http", "net/http", true)
	check("k8s.io/kubernetes, k8s.io/apiserver", "k8s.io/apiserver/pkg/server", true)
	check("k8s.io/kubernetes, k8s.io/apiserver", "k8s.io/apimachinery/pkg/labels", false)
}
