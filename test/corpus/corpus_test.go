//go:build corpus

// Package corpus replays the recorded corpus, requests with the answers that kube-apiserver
// gave, against a server of our own.
//
// A step that is known to differ stands in known.txt with the reason. The test fails when
// another step differs, and when a known one no longer does: then its line is to be removed.
package corpus

import (
	"bufio"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/timonel/timonel"
)

var (
	area   = flag.String("area", "", "replay these areas only (comma separated)")
	record = flag.Bool("update", false, "write the steps that differ into known.txt, keeping reasons")
)

// corpusDir is where the corpus is: $TIMONEL_CORPUS, or shared/corpus beside the checkout.
func corpusDir(t *testing.T) string {
	dir := os.Getenv("TIMONEL_CORPUS")
	if dir == "" {
		dir = "../../../shared/corpus"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "replay")); err != nil {
		t.Fatalf("the corpus is not there (set TIMONEL_CORPUS): %v", err)
	}
	return dir
}

var failLine = regexp.MustCompile(`^FAIL ([^:]+): (.*) \([A-Z]+ \S*\)$`)

func TestCorpus(t *testing.T) {
	dir := corpusDir(t)
	bin := filepath.Join(t.TempDir(), "replay")
	if out, err := exec.Command("go", "build", "-C", filepath.Join(dir, "replay"), "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the replayer: %v\n%s", err, out)
	}
	// The corpus was recorded by a user of this name, who shows in some answers.
	tokens := filepath.Join(t.TempDir(), "tokens.csv")
	if err := os.WriteFile(tokens, []byte("admintoken,admin,admin-uid,\"system:masters\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cluster, err := timonel.Start(context.Background(), timonel.Config{AllowPrivileged: true, TokenAuthFile: tokens, EnableAdmissionPlugins: []string{"NodeRestriction"}, ServiceAccountIssuer: "https://kubernetes.default.svc"})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Stop()

	known := readKnown(t)
	if *area == "" {
		*area = areas(t, filepath.Join(dir, "cases"), known)
	}
	args := []string{"-url", cluster.URL(), "-token", "admintoken", "-cases", filepath.Join(dir, "cases"), "-area", *area}
	out, err := exec.Command(bin, args...).CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	t.Log(lines[len(lines)-1])

	failed := map[string]string{} // step → what the replayer says
	for i := range lines {
		m := failLine.FindStringSubmatch(lines[i])
		if m == nil {
			continue
		}
		details := []string{}
		for _, more := range lines[i+1:] {
			if !strings.HasPrefix(more, " ") {
				break
			}
			details = append(details, more)
		}
		failed[m[1]+": "+m[2]] = strings.Join(details, "\n")
	}
	compare(t, failed, known)
}

// areas lists the areas to replay: all but those that known.txt says are not served at all
// (their steps would only wait for what never comes).
func areas(t *testing.T, dir string, known map[string]string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if reason, out := known[e.Name()+"/"]; out {
			t.Logf("area %s is left out: %s", e.Name(), reason)
			continue
		}
		names = append(names, e.Name())
	}
	return strings.Join(names, ",")
}

// readKnown reads the steps that are known to differ, with their reasons.
func readKnown(t *testing.T) map[string]string {
	known := map[string]string{}
	file, err := os.Open("known.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		step, reason, _ := strings.Cut(s.Text(), "  # ")
		if step = strings.TrimSpace(step); step != "" && !strings.HasPrefix(step, "#") {
			known[step] = reason
		}
	}
	return known
}

// compare holds the steps that differ against those that are known to.
func compare(t *testing.T, failed, known map[string]string) {
	if *record {
		update(t, failed, known)
		return
	}
	for step, details := range failed {
		if _, ok := known[step]; !ok {
			t.Errorf("%s\n%s", step, details)
		}
	}
	for step := range known {
		a, _, whole := strings.Cut(step, "/")
		if _, differs := failed[step]; !differs && !(whole && strings.HasSuffix(step, "/")) && slices.Contains(strings.Split(*area, ","), a) {
			t.Errorf("%s: passes now: remove it from known.txt", step)
		}
	}
}
