package pause

import "encoding/binary"

// assembly collects instructions; targets remembers where a label stands and
// patches where a reference to one waits for it.
type assembly struct {
	code    []byte
	targets map[string]int
	patches []func()
}

func newAssembly() *assembly { return &assembly{targets: map[string]int{}} }

func (a *assembly) emit(b ...byte) { a.code = append(a.code, b...) }

func (a *assembly) label(name string) { a.targets[name] = len(a.code) }

func (a *assembly) finish() []byte {
	for _, patch := range a.patches {
		patch()
	}
	return a.code
}

// codeAMD64 assembles the program for x86-64. Arguments of a system call go in
// rdi, rsi, rdx, r10, its number and result in eax.
func codeAMD64() []byte {
	a := newAssembly()
	relative32 := func(label string) { // a displacement counted from the next instruction
		at := len(a.code)
		a.emit(0, 0, 0, 0)
		a.patches = append(a.patches, func() {
			binary.LittleEndian.PutUint32(a.code[at:], uint32(int32(a.targets[label]-(at+4))))
		})
	}
	jump := func(opcode byte, label string) { // short jumps: everything is near
		a.emit(opcode, 0)
		at := len(a.code)
		a.patches = append(a.patches, func() { a.code[at-1] = byte(int8(a.targets[label] - at)) })
	}
	const (
		always      = 0xeb
		ifEqual     = 0x74
		ifDifferent = 0x75
		ifPositive  = 0x7f
	)
	call := func(number byte) {
		a.emit(0xb8, number, 0, 0, 0) // mov eax, number
		a.emit(0x0f, 0x05)            // syscall
	}

	a.emit(0x31, 0xff)       // xor edi, edi: SIG_BLOCK
	a.emit(0x48, 0x8d, 0x35) // lea rsi, [rip+set]
	relative32("set")
	a.emit(0x31, 0xd2)                // xor edx, edx: the old set is not wanted
	a.emit(0x41, 0xba, 0x08, 0, 0, 0) // mov r10d, 8: bytes in a set
	call(14)                          // rt_sigprocmask
	a.label("wait")                   //
	a.emit(0x48, 0x8d, 0x3d)          // lea rdi, [rip+set]
	relative32("set")                 //
	a.emit(0x31, 0xf6)                // xor esi, esi: no siginfo
	a.emit(0x31, 0xd2)                // xor edx, edx: no timeout
	a.emit(0x41, 0xba, 0x08, 0, 0, 0) // mov r10d, 8
	call(128)                         // rt_sigtimedwait
	a.emit(0x83, 0xf8, sigchld)       // cmp eax, SIGCHLD
	jump(ifEqual, "reap")             //
	a.emit(0x83, 0xf8, sigint)        // cmp eax, SIGINT
	jump(ifEqual, "exit")             //
	a.emit(0x83, 0xf8, sigterm)       // cmp eax, SIGTERM
	jump(ifDifferent, "wait")         //
	a.label("exit")                   //
	a.emit(0x31, 0xff)                // xor edi, edi: status 0
	call(231)                         // exit_group
	a.label("reap")                   //
	a.emit(0x48, 0x83, 0xcf, 0xff)    // or rdi, -1: any child
	a.emit(0x31, 0xf6)                // xor esi, esi: no status
	a.emit(0xba, 0x01, 0, 0, 0)       // mov edx, WNOHANG
	a.emit(0x45, 0x31, 0xd2)          // xor r10d, r10d: no rusage
	call(61)                          // wait4
	a.emit(0x85, 0xc0)                // test eax, eax
	jump(ifPositive, "reap")          //
	jump(always, "wait")              //
	a.label("set")                    //
	a.emit(waitedSignals()...)        //
	return a.finish()
}

// codeARM64 assembles the program for 64-bit ARM. Arguments of a system call go
// in x0 to x3, its number in x8, the result in x0.
func codeARM64() []byte {
	a := newAssembly()
	word := func(w uint32) { a.code = binary.LittleEndian.AppendUint32(a.code, w) }
	patchWord := func(w uint32, label string, place func(distance int) uint32) {
		at := len(a.code)
		word(w)
		a.patches = append(a.patches, func() {
			binary.LittleEndian.PutUint32(a.code[at:], w|place(a.targets[label]-at))
		})
	}
	move := func(register, value uint32) { word(0xd2800000 | value<<5 | register) } // movz x, #value
	address := func(register uint32, label string) {                                // adr x, label
		patchWord(0x10000000|register, label, func(d int) uint32 {
			return uint32(d)&3<<29 | uint32(d>>2)&0x7ffff<<5
		})
	}
	const (
		equal     = 0
		different = 1
		greater   = 12
	)
	jumpIf := func(condition uint32, label string) { // b.cond label
		patchWord(0x54000000|condition, label, func(d int) uint32 { return uint32(d>>2) & 0x7ffff << 5 })
	}
	jump := func(label string) { // b label
		patchWord(0x14000000, label, func(d int) uint32 { return uint32(d>>2) & 0x3ffffff })
	}
	compare := func(value uint32) { word(0x7100001f | value<<10) } // cmp w0, #value
	call := func(number uint32) {
		move(8, number)
		word(0xd4000001) // svc #0
	}

	move(0, 0)        // SIG_BLOCK
	address(1, "set") //
	move(2, 0)        // the old set is not wanted
	move(3, 8)        // bytes in a set
	call(135)         // rt_sigprocmask
	a.label("wait")   //
	address(0, "set") //
	move(1, 0)        // no siginfo
	move(2, 0)        // no timeout
	move(3, 8)        //
	call(137)         // rt_sigtimedwait
	compare(sigchld)
	jumpIf(equal, "reap")
	compare(sigint)
	jumpIf(equal, "exit")
	compare(sigterm)
	jumpIf(different, "wait")
	a.label("exit")
	move(0, 0) // status 0
	call(94)   // exit_group
	a.label("reap")
	word(0x92800000) // movn x0, #0: -1, any child
	move(1, 0)       // no status
	move(2, 1)       // WNOHANG
	move(3, 0)       // no rusage
	call(260)        // wait4
	compare(0)
	jumpIf(greater, "reap")
	jump("wait")
	a.label("set")
	a.emit(waitedSignals()...)
	return a.finish()
}
