package etcd

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

// crashDir tells the test binary, started again by itself, to be the server that gets killed.
const crashDir = "TIMONEL_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		commitUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// commitUntilKilled commits with several writers and prints each commit that returned.
func commitUntilKilled(dir string) {
	s, err := Embedded(context.Background(), EmbeddedConfig{Dir: dir})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var mu sync.Mutex
	start := time.Now().UnixNano()
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("/%d/%d/%d", start, w, i)
				rev, err := s.Commit(context.Background(), storage.Txn{Then: []storage.Op{{Key: key, Value: []byte(key)}}})
				if err != nil {
					continue
				}
				mu.Lock()
				fmt.Println(key, int64(rev))
				mu.Unlock()
			}
		}()
	}
	select {}
}

// TestKilled kills the process, several times, and looks for everything that it acknowledged.
// That leaves out what only a loss of power shows: that etcd's log was synced.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]storage.Revision{}
	for round := range 3 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var key string
			var rev storage.Revision
			if _, err := fmt.Sscan(lines.Text(), &key, &rev); err != nil {
				t.Fatalf("round %d: %q", round, lines.Text())
			}
			acknowledged[key] = rev
			if n == 300 {
				child.Process.Kill()
			}
		}
		child.Wait()
		s := openEmbedded(t, EmbeddedConfig{Dir: dir})
		page, err := s.List(t.Context(), "/", storage.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]storage.Revision{}
		for _, e := range page.Entries {
			have[e.Key] = e.Modified
		}
		if len(acknowledged) < 300*(round+1) {
			t.Fatalf("round %d: only %d commits", round, len(acknowledged))
		}
		for key, rev := range acknowledged {
			if have[key] != rev {
				t.Fatalf("round %d: %s was acknowledged at %d, is at %d", round, key, rev, have[key])
			}
		}
		s.Close()
	}
}
