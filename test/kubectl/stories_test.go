//go:build stories

// Package kubectl tells stories that a user would recognise, with the real kubectl, a real
// etcd and real containers. A story is a file in testdata; each has a namespace of its own, $NS.
package kubectl

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var kubectlName = flag.String("kubectl", "kubectl", "which kubectl of bin/ to use")

// shared is the cluster that the stories run on.
var shared *cluster

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if shared, err = up(bin); err != nil {
		fmt.Fprintln(os.Stderr, "start the cluster:", err)
		return 1
	}
	defer shared.stop()
	return m.Run()
}

func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			name := strings.ToLower(strings.TrimPrefix(filepath.Base(e.WorkDir), "script-"))
			ns := "story-" + strings.ReplaceAll(name, "_", "-")
			e.Setenv("NS", ns)
			e.Setenv("KUBECONFIG", shared.kubeconfig)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("TIMONEL", filepath.Join(shared.bin, "timonel"))
			e.Setenv("URL", shared.url)
			e.Setenv("NODE", shared.node)
			e.Setenv("DATA", shared.dir)
			if out, err := shared.kubectl("create", "namespace", ns); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			e.Defer(func() { _, _ = shared.kubectl("delete", "namespace", ns, "--wait=false") })
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"kubectl": func(ts *testscript.TestScript, neg bool, args []string) {
				execute(ts, neg, *kubectlName, inNamespace(ts, args))
			},
			"timonel": func(ts *testscript.TestScript, neg bool, args []string) { execute(ts, neg, "timonel", args) },
			"until":   until,
		},
	})
}

// inNamespace adds the story's namespace unless the command names one.
func inNamespace(ts *testscript.TestScript, args []string) []string {
	for _, a := range args {
		if a == "-n" || a == "-A" || strings.HasPrefix(a, "--namespace") || a == "--" {
			break
		}
	}
	return append([]string{"--namespace", ts.Getenv("NS")}, args...)
}

func execute(ts *testscript.TestScript, neg bool, name string, args []string) {
	err := ts.Exec(filepath.Join(shared.bin, name), args...)
	switch {
	case err == nil && neg:
		ts.Fatalf("%s %s: success where a failure was expected", name, strings.Join(args, " "))
	case err != nil && !neg:
		ts.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
}

// patience is how long `until` waits for something to become true.
const patience = 60 * time.Second

// until runs a kubectl command until its output contains a text:
//
//	until 'Running' kubectl get pod web
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || args[1] != "kubectl" {
		ts.Fatalf("usage: until TEXT kubectl ARGS")
	}
	deadline := time.Now().Add(patience)
	for {
		cmd := exec.Command(filepath.Join(shared.bin, *kubectlName), inNamespace(ts, args[2:])...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+shared.kubeconfig)
		cmd.Dir = ts.Getenv("WORK")
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q did not come within %s (%v):\n%s", args[0], patience, err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
