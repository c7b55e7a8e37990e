package server

import (
	"runtime"
	"testing"
	"time"
)

// TestMemoryIsGivenBackWhenItIsQuiet: once after each time that there was much to do, and not when there was little.
func TestMemoryIsGivenBackWhenItIsQuiet(t *testing.T) {
	trimmed := make(chan int64, 100)
	g := giveBack(time.Millisecond, 200*time.Millisecond, func() {
		runtime.GC()
		trim()
		trimmed <- spare()
	})
	defer g.end()
	wait := func(what string) {
		t.Helper()
		select {
		case left := <-trimmed:
			if left > worthGivenBack {
				t.Errorf("%s: %d bytes are still spare", what, left)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: nothing was given back", what)
		}
	}
	wait("after the start")
	for range 2 {
		var garbage [][]byte
		for range 64 {
			garbage = append(garbage, make([]byte, 1<<20))
		}
		runtime.KeepAlive(garbage)
		garbage = nil
		runtime.GC()
		wait("after a burst")
	}
	runtime.GC()
	select {
	case <-trimmed:
		t.Error("it was given back though there was nothing")
	case <-time.After(time.Second):
	}
	g.end()
	_ = make([]byte, 64<<20)
	runtime.GC()
	select {
	case <-trimmed:
		t.Error("it was given back after the end")
	case <-time.After(time.Second):
	}
}
