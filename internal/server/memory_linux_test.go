package server

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestPagesOfTheProgramAreGivenBack: what this test was linked into has touched most of its pages to start.
func TestPagesOfTheProgramAreGivenBack(t *testing.T) {
	before := pagesOfFiles(t)
	trimFiles()
	if after := pagesOfFiles(t); after > before/2 {
		t.Errorf("%d kB of files are in memory, %d before", after, before)
	}
}

// pagesOfFiles is how many kB of files are mapped and in memory.
func pagesOfFiles(t *testing.T) (kB int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		t.Fatal(err)
	}
	return kB
}
