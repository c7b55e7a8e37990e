package server

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// trim gives back memory that is not needed: free heap, and pages of files.
func trim() {
	debug.FreeOSMemory()
	trimFiles()
}

// trimFiles gives back the pages of files that were touched once (of the program: type registration,
// first boot; of etcd's database: loading). What is needed again is mapped again
// from the page cache.
func trimFiles() {
	program, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		// 7f0c8c000000-7f0f4c000000 r--s 00000000 fe:01 1835073     /path
		var start, end uintptr
		var mode, offset, device, file string
		var inode uint64
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %d %s", &start, &end, &mode, &offset, &device, &inode, &file); err != nil || inode == 0 {
			continue
		}
		// Code, constants and what is shared with the file; never data. In a library, what is read-only now may have been written when it was loaded.
		if mode[0] == 'r' && mode[1] == '-' && (mode[3] == 's' || file == program) {
			// A failure leaves the pages where they are.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}
