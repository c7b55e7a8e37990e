//go:build stories

package kubectl

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// commands are what stories can say besides testscript's own words:
//
//	kubectl ARG…            the kubectl under test, in the story's namespace (in the background: exec kubectl … &)
//	curl ARG…               curl, trusting the cluster's certificate and failing quietly never
//	timonel ARG…            the program itself
//	until TEXT COMMAND …    repeat a command until what it prints matches a regular expression
//	let NAME COMMAND …      keep what a command prints as $NAME
//	envsubst FILE           replace $NAMEs in a file by their values
//	cluster up [ARG…]       start a cluster of the story's own, and use it from here on; or start it again
//	cluster stop            end it as Ctrl-C does
//	cluster kill            end it as a power cut would
//	cluster output          what it has printed, as stdout
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"kubectl":  program("kubectl"),
	"timonel":  program("timonel"),
	"curl":     curl,
	"until":    until,
	"let":      let,
	"envsubst": envsubst,
	"cluster":  clusterCommand,
}

// program runs a program that is in the story's PATH.
func program(name string) func(ts *testscript.TestScript, neg bool, args []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		err := ts.Exec(name, args...)
		switch {
		case err == nil && neg:
			ts.Fatalf("%s %s: success where a failure was expected", name, strings.Join(args, " "))
		case err != nil && !neg:
			ts.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
		}
	}
}

func curl(ts *testscript.TestScript, neg bool, args []string) {
	program("curl")(ts, neg, append([]string{"-sS", "--cacert", filepath.Join(ts.Getenv("PKI"), "ca.crt"), "--max-time", "20"}, args...))
}

// How long `until` waits for something to become true, and between attempts.
const (
	patience = 60 * time.Second
	pause    = 200 * time.Millisecond
)

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT COMMAND …")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		out, err := output2(ts, args[1], args[2:])
		if want.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q did not come within %s (%v):\n%s", args[0], patience, err, out)
		}
	}
}

// output2 runs a program in the story's environment and returns all it prints.
func output2(ts *testscript.TestScript, name string, args []string) (string, error) {
	cmd := command(ts, name, args)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// command is a program of the story's PATH, in its directory and environment.
func command(ts *testscript.TestScript, name string, args []string) *exec.Cmd {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path := filepath.Join(dir, name); executable(path) {
			name = path
			break
		}
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = ts.Getenv("WORK")
	for _, key := range []string{"PATH", "HOME", "KUBECONFIG", "KUBECACHEDIR"} {
		cmd.Env = append(cmd.Env, key+"="+ts.Getenv(key))
	}
	return cmd
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func let(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: let NAME COMMAND …")
	}
	cmd := command(ts, args[1], args[2:])
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		ts.Fatalf("%s: %v: %s", strings.Join(args[1:], " "), err, &problem)
	}
	value := strings.TrimSpace(string(out))
	ts.Logf("%s=%s", args[0], value)
	ts.Setenv(args[0], value)
}

func envsubst(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: envsubst FILE")
	}
	path := ts.MkAbs(args[0])
	text, err := os.ReadFile(path + ".template") // a file may be used again
	if errors.Is(err, os.ErrNotExist) {
		text = []byte(ts.ReadFile(args[0]))
		err = os.WriteFile(path+".template", text, 0o644)
	}
	ts.Check(err)
	ts.Check(os.WriteFile(path, []byte(os.Expand(string(text), ts.Getenv)), 0o644))
}

func clusterCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: cluster up|stop|kill|output")
	}
	mine := ts.Value(own{}).(*own)
	if mine.cluster == nil && args[0] != "up" {
		ts.Fatalf("cluster %s: this story has no cluster of its own yet", args[0])
	}
	switch args[0] {
	case "up":
		ts.Check(mine.up(ts, args[1:]))
	case "stop":
		ts.Check(mine.cluster.end(syscall.SIGINT))
		if status := mine.cluster.cmd.ProcessState; !status.Success() {
			ts.Fatalf("timonel up ended with %s:\n%s", status, &mine.cluster.output)
		}
	case "kill":
		ts.Check(mine.cluster.end(syscall.SIGKILL))
	case "output":
		fmt.Fprint(ts.Stdout(), mine.cluster.output.String())
	default:
		ts.Fatalf("cluster cannot %s", args[0])
	}
}

// up starts the story's own cluster for the first time, or again on the same directory and ports.
func (o *own) up(ts *testscript.TestScript, args []string) (err error) {
	first := o.cluster == nil
	if first {
		if o.cluster, err = newCluster(args...); err != nil {
			return err
		}
	} else if len(args) > 0 {
		return errors.New("a cluster keeps its arguments")
	}
	if err := o.cluster.start(); err != nil || !first {
		return err
	}
	ns := ts.Getenv("NS")
	ts.Setenv("KUBECACHEDIR", filepath.Join(o.cluster.dir, "cache"))
	if err := use(ts.Setenv, ts.Getenv("WORK"), ns, o.cluster); err != nil {
		return err
	}
	client, err := o.cluster.client()
	if err != nil {
		return err
	}
	return makeNamespace(client, ns)
}

// whatHappened tells about the pods and events of a story that failed.
func whatHappened(kubeconfig, ns string) string {
	var all strings.Builder
	for _, args := range [][]string{{"get", "pods", "-o", "wide"}, {"get", "events"}} {
		cmd := exec.Command(filepath.Join(bin, *kubectlName), append([]string{"--kubeconfig", kubeconfig, "--namespace", ns, "--request-timeout=5s"}, args...)...)
		out, _ := cmd.CombinedOutput()
		fmt.Fprintf(&all, "kubectl %s\n%s", strings.Join(args, " "), out)
	}
	return all.String()
}
