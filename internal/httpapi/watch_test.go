package httpapi

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestNextBookmark: there is one every minute, and one that a client can go on from shortly before its watch ends.
func TestNextBookmark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ left, in time.Duration }{
			{time.Hour, time.Minute},
			{62*time.Second + 1, time.Minute},
			{62*time.Second - 1, time.Minute - 1},
			{30 * time.Second, 28 * time.Second},
			{2*time.Second + 1, 1},
			{2 * time.Second, time.Minute}, // it has had its last
			{0, time.Minute},
		} {
			now := time.Now()
			if got := nextBookmark(now.Add(c.left)).Sub(now); got != c.in {
				t.Errorf("with %v left the next is in %v, not in %v", c.left, got, c.in)
			}
		}
	})
}
