package pause

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestExecutableIsReproducible pins the bytes that Image's tag stands for.
// When they change on purpose, change the tag too.
func TestExecutableIsReproducible(t *testing.T) {
	if Image != "timonel.dev/pause:v1" {
		t.Fatalf("Image is %s: pin the digests of that tag here", Image)
	}
	for arch, want := range map[string]string{
		"amd64": "a12d7bb507c0fd43f1c956a237bbe8c112c9fe7320974f08796650f36f7f7ae4",
		"arm64": "d0ecda3373fd13fe7896fc2fbaa7467c2952d91a97c853f70a39cfce8e9acf38",
	} {
		program, err := Executable(arch)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(program)
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s: the program of %d bytes has digest %s, want %s", arch, len(program), got, want)
		}
		if len(program) > 512 {
			t.Errorf("%s: %d bytes, want at most 512", arch, len(program))
		}
		file, err := elf.NewFile(bytes.NewReader(program))
		if err != nil {
			t.Fatalf("%s: %v", arch, err)
		}
		if file.Type != elf.ET_EXEC || len(file.Progs) != 2 || file.Progs[0].Filesz != uint64(len(program)) {
			t.Errorf("%s: unexpected layout: %+v", arch, file.FileHeader)
		}
	}
	if _, err := Executable("mips"); err == nil {
		t.Error("mips: want an error")
	}
}

// TestDisassembly reads the code back with binutils, which knows both machines.
func TestDisassembly(t *testing.T) {
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("objdump is not installed")
	}
	for arch, machine := range map[string]string{"amd64": "i386:x86-64", "arm64": "aarch64"} {
		var code []byte
		var calls string
		if arch == "amd64" {
			code, calls = codeAMD64(), "syscall"
		} else {
			code, calls = codeARM64(), "svc"
		}
		path := filepath.Join(t.TempDir(), "code")
		if err := os.WriteFile(path, code[:len(code)-8], 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(objdump, "-D", "-b", "binary", "-m", machine, path).CombinedOutput()
		if err != nil {
			t.Logf("%s: this objdump does not know %s: %s", arch, machine, out)
			continue
		}
		if n := strings.Count(string(out), calls); n != 4 {
			t.Errorf("%s: %d system calls, want 4:\n%s", arch, n, out)
		}
		if strings.Contains(string(out), "(bad)") || strings.Contains(string(out), "undefined") {
			t.Errorf("%s: undecodable instructions:\n%s", arch, out)
		}
	}
}

func start(t *testing.T) *exec.Cmd {
	t.Helper()
	program, err := Executable(runtime.GOARCH)
	if err != nil || runtime.GOOS != "linux" {
		t.Skipf("cannot run it here: %v", err)
	}
	path := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
	return exec.Command(path)
}

func TestEndsOnSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := start(t)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitAsleep(t, cmd.Process.Pid) // earlier, the signal would kill it
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v, want exit status 0", sig, err)
		}
	}
}

// waitAsleep returns once the program waits for signals: /proc is the only one to tell.
func waitAsleep(t *testing.T, pid int) {
	t.Helper()
	number := map[string]string{"amd64": "128 ", "arm64": "137 "}[runtime.GOARCH]
	until(t, "the program never waited for signals", func() bool {
		call, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		return strings.HasPrefix(string(call), number)
	})
}

func until(t *testing.T, failure string, done func() bool) {
	t.Helper()
	for range 10_000 {
		if done() {
			return
		}
		time.Sleep(time.Millisecond) // the kernel offers no event for this
	}
	t.Fatal(failure)
}

// TestReapsChildren runs the program as pid 1 of a process namespace with an
// orphan in it, and expects the orphan to vanish.
func TestReapsChildren(t *testing.T) {
	unshare, err := exec.LookPath("unshare")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and unshare")
	}
	path := start(t).Path
	// The shell is pid 1; it leaves a child behind and becomes pause, whose child
	// it then is. The child ends when its standard input does.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sh := exec.Command(unshare, "--pid", "--fork", "--kill-child", "sh", "-c", `cat <&3 >/dev/null & exec "$0" 3<&-`, path)
	sh.ExtraFiles = []*os.File{r}
	if err := sh.Start(); err != nil {
		t.Skipf("no process namespaces here: %v", err)
	}
	r.Close()

	pid := 0
	until(t, "pause never appeared below unshare", func() bool {
		for _, child := range children(sh.Process.Pid) {
			if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", child)); exe == path {
				pid = child
			}
		}
		return pid != 0
	})
	waitAsleep(t, pid)
	if len(children(pid)) != 1 {
		t.Errorf("pause has children %v, want the one orphan", children(pid))
	}
	w.Close() // ends the orphan
	until(t, "pause still has a child", func() bool { return len(children(pid)) == 0 })
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := sh.Wait(); err != nil {
		t.Errorf("as pid 1: %v, want exit status 0 on SIGTERM", err)
	}
}

// children lists the processes whose parent is pid, zombies included.
func children(pid int) []int {
	var found []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		data, _ := os.ReadFile(stat)
		_, rest, _ := strings.Cut(string(data), ") ") // pid (name) state parent …
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
			found = append(found, n)
		}
	}
	return found
}

func TestArchive(t *testing.T) {
	first, err := Archive("amd64")
	if err != nil {
		t.Fatal(err)
	}
	second, _ := Archive("amd64")
	if !bytes.Equal(first, second) {
		t.Error("two archives differ")
	}
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(first)); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name], _ = io.ReadAll(r)
	}
	for name, content := range files {
		if hash, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != hash {
				t.Errorf("%s does not match its content", name)
			}
		}
	}
	if !strings.Contains(string(files["index.json"]), Image) {
		t.Errorf("index.json does not name the image: %s", files["index.json"])
	}
}
