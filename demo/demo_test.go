package main

import (
	"archive/tar"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets the test program stand in for /demo: the shell starts tools as
// processes of their own.
func TestMain(m *testing.M) {
	if len(os.Args) > 0 {
		if _, ok := tools[filepath.Base(os.Args[0])]; ok {
			main()
		}
	}
	os.Exit(m.Run())
}

// use runs a tool in this process.
func use(name, in string, args ...string) (out, errs string, status int) {
	var stdout, stderr collector
	status = tools[name].run(args, stdio{strings.NewReader(in), &stdout, &stderr})
	return stdout.text(), stderr.text(), status
}

func TestShell(t *testing.T) {
	t.Setenv("PATH", "")
	t.Setenv("GREETING", "hello  there")
	dir := t.TempDir()
	for _, name := range []string{"a.txt", "b.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(script, want string, wantStatus int) {
		t.Helper()
		out, errs, status := use("sh", "line one\nline two\n", "-c", "cd "+dir+"\n"+script, "name", "x", "y z")
		if out != want || status != wantStatus {
			t.Errorf("%s\ngot  %q, status %d (%s)\nwant %q, status %d", script, out, status, strings.TrimSpace(errs), want, wantStatus)
		}
	}
	check(`echo a   b`, "a b\n", 0)
	check(`echo 'a   b' "c   d" e\ f "a"'b'c`, "a   b c   d e f abc\n", 0)
	check(`echo $GREETING "$GREETING" '$GREETING' ${GREETING}s $NONE. ${NONE:-none at all}`, "hello there hello  there $GREETING hello theres . none at all\n", 0)
	check(`echo "$0 $1 $2 $#" $@; for i in "$@"; do echo $i; done`, "name x y z 2 x y z\nx\ny z\n", 0)
	check(`a=1; b="$a 2"; echo "$b"; a=3 env | cat >/dev/null; echo $a`, "1 2\n1\n", 0)
	check(`export A=1; A=2 B=3 sh -c 'echo $A $B'; echo $A $B; sh -c 'echo $A'; C=4; sh -c 'echo ${C:-unset}'`, "2 3\n1\n1\nunset\n", 0)
	check(`true && echo yes || echo no; false && echo yes || echo no; ! false; echo $?`, "yes\nno\n0\n", 0)
	check(`if false; then echo 1; elif true; then echo 2; else echo 3; fi`, "2\n", 0)
	check("if false\nthen echo 1\nelse\necho 3\nfi", "3\n", 0)
	check(`for i in 1 2 3; do if [ $i = 2 ]; then continue; fi; echo $i; done`, "1\n3\n", 0)
	check(`while true; do echo once; break; done; until [ "$n" = xx ]; do n=x$n; done; echo $n`, "once\nxx\n", 0)
	check(`echo one | cat | cat; echo two >out; echo three >>out; cat out <out`, "one\ntwo\nthree\n", 0)
	check(`(cd /; exit 5); echo $?; { echo grouped; } | cat; cat <b.txt`, "5\ngrouped\nb.txt\n", 0)
	check(`x=$(echo a; echo b; false); echo $? "$x"; echo "in $(echo "quotes $(echo deep)")"`, "1 a\nb\nin quotes deep\n", 0)
	check(`echo *.txt; echo "*.txt" *.none`, "a.txt b.txt\n*.txt *.none\n", 0)
	check(`read a b; echo "$b-$a"; cat`, "one-line\nline two\n", 0)
	check(`cat a.txt none 2>/dev/null; echo $?`, "a.txt\n1\n", 0)
	check(`echo err >&2; nothing; echo $?`, "127\n", 0)
	check(`sleep 0 & wait; echo waited # a comment`, "waited\n", 0)
	check(`exit 7; echo never`, "", 7)
	check(`for i in 1 2; do exit 4; done | cat; echo $?`, "0\n", 0)
	check(`test -f a.txt && [ ! -e none ] && [ 2 -gt 1 ] && [ -n x -o ]; echo $?`, "2\n", 0)
	check(`echo a; )`, "", 2)
	check(`if true; then`, "", 2)
	check(`echo $((1+1))`, "", 2)
	check(`echo "open`, "", 2)
	check(`trap x TERM; echo $?`, "1\n", 0)
}

// TestShellLines feeds a script through standard input, as kubectl exec -i does.
func TestShellLines(t *testing.T) {
	t.Setenv("PATH", "")
	out, _, status := use("sh", "echo one\nfor i in 2 3; do\necho $i\ndone\ncat\nthe rest is input\n")
	if out != "one\n2\n3\nthe rest is input\n" || status != 0 {
		t.Errorf("got %q, %d", out, status)
	}
	if out, _, status := use("sh", "echo a\nexit 3\necho b\n"); out != "a\n" || status != 3 {
		t.Errorf("got %q, %d", out, status)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{`a "$(b 'c')" | d && e || ! f; g & if h; then i; fi 2>&1 >x`, `for a in b; do c; done`, `${a:-$(b)}`, "a\\\nb", "( ( {"} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, text string) { parse(text) }) // it returns, without a panic
}

func TestTar(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "dir/inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "dir/inner/file"), []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("inner/file", filepath.Join(from, "dir/link")); err != nil {
		t.Fatal(err)
	}
	packed, errs, status := use("tar", "", "cf", "-", "-C", from, "dir")
	if status != 0 {
		t.Fatal(errs)
	}
	if _, errs, status := use("tar", packed, "-xmf", "-", "--no-same-permissions", "--no-same-owner", "-C", to); status != 0 {
		t.Fatal(errs)
	}
	if data, err := os.ReadFile(filepath.Join(to, "dir/link")); string(data) != "content" {
		t.Errorf("got %q, %v", data, err)
	}
	if info, err := os.Stat(filepath.Join(to, "dir/inner/file")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("got %v, %v", info, err)
	}
	// An absolute path is packed without its first slash, as kubectl cp expects.
	packed, _, _ = use("tar", "", "cf", "-", filepath.Join(from, "dir/inner/file"))
	if header, err := tar.NewReader(strings.NewReader(packed)).Next(); err != nil || header.Name != strings.TrimPrefix(from, "/")+"/dir/inner/file" {
		t.Errorf("got %+v, %v", header, err)
	}
	for _, bad := range [][]string{{}, {"f", "x"}, {"cf", "-"}, {"cf"}, {"c", "--wild", "x"}, {"cf", "-", "/does/not/exist"}} {
		if _, errs, status := use("tar", "", bad...); status == 0 || errs == "" {
			t.Errorf("tar %q succeeds", bad)
		}
	}
}

// TestTarStaysInside refuses archives that lead out of the directory.
func TestTarStaysInside(t *testing.T) {
	outside := t.TempDir()
	for what, headers := range map[string][]tar.Header{
		"a path": {{Name: "../escaped", Mode: 0o600, Size: 1}},
		"a link": {{Name: "out", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "out/escaped", Mode: 0o600, Size: 1}},
	} {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		for _, h := range headers {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			w.Write(make([]byte, h.Size))
		}
		w.Close()
		dir := filepath.Join(t.TempDir(), "dir")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, _, status := use("tar", archive.String(), "xf", "-", "-C", dir); status == 0 {
			t.Errorf("%s: unpacked", what)
		}
		for _, place := range []string{filepath.Join(dir, "../escaped"), filepath.Join(outside, "escaped")} {
			if _, err := os.Lstat(place); err == nil {
				t.Errorf("%s: %s exists", what, place)
			}
		}
	}
}

func TestTools(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	check := func(name, in, want string, wantStatus int, args ...string) {
		t.Helper()
		if out, errs, status := use(name, in, args...); out != want || status != wantStatus {
			t.Errorf("%s %q: got %q, %d (%s), want %q, %d", name, args, out, status, errs, want, wantStatus)
		}
	}
	check("touch", "", "", 0, file)
	check("mkdir", "", "", 0, "-p", filepath.Join(dir, "a/b"))
	check("ls", "", "a\nfile\n", 0, dir)
	check("ls", "", "", 1, filepath.Join(dir, "none"))
	check("rm", "", "", 1, filepath.Join(dir, "none"))
	check("rm", "", "", 0, "-f", filepath.Join(dir, "none"))
	check("rm", "", "", 0, "-r", filepath.Join(dir, "a"), file)
	check("ls", "", "", 0, dir)
	check("cat", "input", "input", 0)
	check("tail", "1\n2\n3\n", "2\n3\n", 0, "-n", "2")
	check("tail", "1\n2\n3\n", "2\n3\n", 0, "-n2")
	check("tail", "abcdef", "def", 0, "-c+4") // kubectl cp --retries
	check("tail", "abcdef", "ef", 0, "-c", "2")
	check("exit", "", "", 9, "9")
	check("sleep", "", "", 0, "0.001")
	check("sleep", "", "", 1, "soon")
	check("test", "", "", 0, "-d", dir)
	check("test", "", "", 1, "-f", dir)
	check("test", "", "", 0, "a", "!=", "b")
	check("test", "", "", 2, "a", "-eq", "b")
}

func TestServer(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "shop")
	t.Setenv("NODE_NAME", "n1")
	ended := make(chan int, 1)
	var log collector
	server := httptest.NewServer(logged(handler(whoAmI("<web>"), func(status int) { ended <- status }), &log))
	ask := func(method, path, accept, body string) string {
		t.Helper()
		request, err := http.NewRequest(method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept", accept)
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		data, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if page := ask("GET", "/", "*/*", ""); !strings.HasPrefix(page, "pod        <web>\nnamespace  shop\nnode       n1\n") || !strings.Contains(page, "request    1\n") {
		t.Errorf("got %s", page)
	}
	if page := ask("GET", "/", "text/html", ""); !strings.Contains(page, "<h1>&lt;web&gt;</h1>") || !strings.Contains(page, "<td>request<td>2") {
		t.Errorf("got %s", page)
	}
	if ask("GET", "/healthz", "", "") != "ok\n" || ask("POST", "/echo", "", "words") != "words" {
		t.Error("healthz or echo do not answer")
	}
	ask("POST", "/exit?status=3", "", "")
	if status := <-ended; status != 3 {
		t.Errorf("ended with %d", status)
	}
	out, _, status := use("fetch", "", strings.TrimPrefix(server.URL, "http://")+"/healthz")
	if out != "ok\n" || status != 0 {
		t.Errorf("fetch prints %q, %d", out, status)
	}
	if _, _, status := use("fetch", "", server.URL+"/none"); status != 1 {
		t.Errorf("fetch of nothing ends with %d", status)
	}
	server.Close()
	if !strings.Contains(log.text(), " GET / 200 ") || !strings.Contains(log.text(), " GET /none 404 ") {
		t.Errorf("the log is\n%s", log.text())
	}
}
