package server

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPagesOfTheProgramAreGivenBack: all of the program is touched once more, as a start touches much of it.
func TestPagesOfTheProgramAreGivenBack(t *testing.T) {
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	info, err := program.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b, err := unix.Mmap(int(program.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	sum := byte(0)
	for i := 0; i < len(b); i += os.Getpagesize() {
		sum += b[i]
	}
	before := pagesOfFiles(t)
	trimFiles()
	if after := pagesOfFiles(t); after > before/2 || before < len(b)>>10 {
		t.Errorf("%d kB of files are in memory, %d before (%d)", after, before, sum)
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
