// Package pause makes the image of the process that holds a pod's namespaces.
//
// Every pod sandbox needs one process that does nothing: it keeps the network
// and IPC namespaces alive while containers come and go, and, when a pod shares
// one process namespace, it is pid 1 there and must collect orphans. Clusters
// usually pull it from a registry. A cluster that must start offline cannot, so
// this package writes the program itself: an ELF file of about 300 bytes with
// no libc, no runtime and one page of memory, packed as an image archive that
// containerd imports.
//
// Promises: the bytes depend on nothing but the architecture, so the image
// digest is the same on every machine; the process ends with status 0 on
// SIGTERM or SIGINT, reaps every child, and otherwise sleeps in the kernel.
//
// Does not know: containerd, or any other runtime. Start reading at Executable;
// Archive wraps its result.
package pause

import (
	"encoding/binary"
	"fmt"
)

// Image is the reference under which the archive registers itself. The tag
// changes whenever the bytes of the program change, so that a cluster that has
// the old image imports the new one.
const Image = "timonel.dev/pause:v1"

// The signals the program waits for: the same numbers on amd64 and arm64.
const (
	sigint  = 2
	sigterm = 15
	sigchld = 17
)

// loadAddress is where the one segment goes: above the lowest address Linux
// lets a process map, and a multiple of every page size in use (4 to 64 KiB).
const loadAddress = 0x400000

// Executable returns the pause program for an architecture as Go names it
// ("amd64" or "arm64"), or an error for any other.
//
// The program never installs a signal handler. As pid 1 of a namespace it would
// not be sent signals it neither handles nor blocks; signals it blocks are
// queued for it, so it blocks the three it cares about and asks for them:
//
//	rt_sigprocmask(SIG_BLOCK, {INT, TERM, CHLD})
//	for {
//		switch rt_sigtimedwait({INT, TERM, CHLD}, no timeout) {
//		case CHLD:
//			for wait4(-1, WNOHANG) > 0 {
//			}
//		case INT, TERM:
//			exit_group(0)
//		}
//	}
func Executable(arch string) ([]byte, error) {
	switch arch {
	case "amd64":
		return link(machineAMD64, codeAMD64()), nil
	case "arm64":
		return link(machineARM64, codeARM64()), nil
	}
	return nil, fmt.Errorf("no pause program for architecture %q: only amd64 and arm64 are known", arch)
}

// waitedSignals is the kernel's signal set: bit n-1 stands for signal n.
func waitedSignals() []byte {
	return binary.LittleEndian.AppendUint64(nil, 1<<(sigint-1)|1<<(sigterm-1)|1<<(sigchld-1))
}

// ELF constants, from the System V ABI and its processor supplements.
const (
	machineAMD64 = 62
	machineARM64 = 183

	headerSize        = 64
	programHeaderSize = 56

	segmentLoad  = 1          // PT_LOAD
	segmentStack = 0x6474e551 // PT_GNU_STACK: only its flags matter
	executable   = 1
	writable     = 2
	readable     = 4
)

// link puts an ELF64 header in front of code: one segment with headers and code,
// readable and executable, and a stack that is not executable.
func link(machine uint16, code []byte) []byte {
	const segments = 2
	start := uint64(headerSize + segments*programHeaderSize)
	size := start + uint64(len(code))

	le := binary.LittleEndian
	out := []byte{0x7f, 'E', 'L', 'F', 2 /* 64 bit */, 1 /* little endian */, 1 /* version */, 0 /* System V */, 0, 0, 0, 0, 0, 0, 0, 0}
	out = le.AppendUint16(out, 2) // an executable at fixed addresses
	out = le.AppendUint16(out, machine)
	out = le.AppendUint32(out, 1) // version
	out = le.AppendUint64(out, loadAddress+start)
	out = le.AppendUint64(out, headerSize) // program headers follow at once
	out = le.AppendUint64(out, 0)          // no sections
	out = le.AppendUint32(out, 0)          // flags
	out = le.AppendUint16(out, headerSize)
	out = le.AppendUint16(out, programHeaderSize)
	out = le.AppendUint16(out, segments)
	out = append(out, 0, 0, 0, 0, 0, 0) // no sections

	segment := func(kind, flags uint32, address, size, align uint64) {
		out = le.AppendUint32(out, kind)
		out = le.AppendUint32(out, flags)
		out = le.AppendUint64(out, 0) // from the first byte of the file
		out = le.AppendUint64(out, address)
		out = le.AppendUint64(out, address)
		out = le.AppendUint64(out, size) // in the file
		out = le.AppendUint64(out, size) // in memory
		out = le.AppendUint64(out, align)
	}
	segment(segmentLoad, readable|executable, loadAddress, size, 0x10000)
	segment(segmentStack, readable|writable, 0, 0, 16)
	return append(out, code...)
}
