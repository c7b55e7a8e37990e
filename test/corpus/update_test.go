//go:build corpus

package corpus

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// update writes known.txt anew.
func update(t *testing.T, failed, known map[string]string) {
	var b strings.Builder
	b.WriteString("# Steps of the corpus that are known to differ, with the reason behind two spaces and a #.\n")
	b.WriteString("# Remake with: make corpus ARGS=-update; then say why of each new line.\n")
	b.WriteString("# A name that ends with a slash is an area that is not replayed at all.\n")
	for step, reason := range known {
		if strings.HasSuffix(step, "/") {
			fmt.Fprintf(&b, "%s  # %s\n", step, reason)
		}
	}
	for _, step := range slices.Sorted(maps.Keys(failed)) {
		reason := known[step]
		if reason == "" {
			reason = "not looked at yet"
		}
		fmt.Fprintf(&b, "%s  # %s\n", step, reason)
	}
	if err := os.WriteFile("known.txt", []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d steps differ", len(failed))
}
