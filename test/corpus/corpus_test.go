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
	cluster, err := timonel.Start(context.Background(), timonel.Config{AllowPrivileged: true, EnableAdmissionPlugins: []string{"NodeRestriction"}, ServiceAccountIssuer: "https://kubernetes.default.svc"})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Stop()

	args := []string{"-url", cluster.URL(), "-token", cluster.RESTConfig().BearerToken, "-cases", filepath.Join(dir, "cases")}
	if *area != "" {
		args = append(args, "-area", *area)
	}
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
	compare(t, failed)
}

// compare holds the steps that differ against those that are known to.
func compare(t *testing.T, failed map[string]string) {
	known := map[string]string{} // step → reason
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
		wanted := *area == ""
		for a := range strings.SplitSeq(*area, ",") {
			wanted = wanted || strings.HasPrefix(step, a+"/")
		}
		if _, differs := failed[step]; !differs && wanted {
			t.Errorf("%s: passes now: remove it from known.txt", step)
		}
	}
}
