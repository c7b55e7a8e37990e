//go:build linux

package etcd

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// pages are the memory into which etcd maps its database file. What was read
// through it once stays in this process's resident memory, up to the whole file,
// although the kernel caches the file anyway and the watch cache has the objects. So, after every
// so many bytes read, the pages are given back; they come again when they are needed.
type pages struct {
	start, length uintptr
	read          atomic.Int64 // bytes since the last release, about
}

// releaseEvery is how many bytes may be read through the mapping before it is released.
const releaseEvery = 8 << 20

// findPages finds the mapping of the file in this process; nil where it cannot be found.
func findPages(file string) *pages {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil
	}
	if file, err = filepath.Abs(file); err != nil {
		return nil
	}
	if file, err = filepath.EvalSymlinks(file); err != nil {
		return nil
	}
	// 7f0c8c000000-7f0f4c000000 r--s 00000000 fe:01 1835073     /path
	for line := range bytes.Lines(maps) {
		line = bytes.TrimRight(line, "\n")
		if !bytes.HasSuffix(line, []byte(" "+file)) {
			continue
		}
		span, _, _ := bytes.Cut(line, []byte(" "))
		from, to, _ := bytes.Cut(span, []byte("-"))
		start, err1 := strconv.ParseUint(string(from), 16, 64)
		end, err2 := strconv.ParseUint(string(to), 16, 64)
		if err1 == nil && err2 == nil && end > start {
			return &pages{start: uintptr(start), length: uintptr(end - start)}
		}
	}
	return nil
}

// touched notes a read of about so many bytes.
func (p *pages) touched(n int) {
	if p == nil || p.read.Add(int64(n)) < releaseEvery {
		return
	}
	p.read.Store(0)
	p.release()
}

// release gives the pages back. That changes no content: the mapping is of a file and
// nobody writes through it.
func (p *pages) release() {
	if p != nil {
		unix.Syscall(unix.SYS_MADVISE, p.start, p.length, unix.MADV_DONTNEED)
	}
}
