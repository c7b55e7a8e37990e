// Command demoimage packs the demo program into an image archive, without a
// registry and without a container engine:
//
//	go run ./demoimage -program ../bin/demo -out ../bin/demo.tar
//
// The image holds the program, links to it under the names of its tools, a
// user, and a /tmp that anyone may write. Equal programs give equal archives.
// It lives in a module of its own so that the product does not depend on what
// only this needs.
package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// user is what the container runs as: the number that distributions without a
// shell call "nonroot", so that pods with runAsNonRoot take the image.
const user = 65532

func main() {
	program := flag.String("program", "", "the demo program, a static Linux executable")
	out := flag.String("out", "demo.tar", "the archive to write")
	// A tag other than latest: the kubelet then looks for the image before it pulls.
	image := flag.String("image", "timonel.dev/demo:v1", "the image's reference")
	arch := flag.String("arch", "", "the program's architecture; by default as `go version -m` says")
	links := flag.String("links", "cat,date,echo,env,false,fetch,hostname,id,ls,mkdir,rm,sh,sleep,tail,tar,test,touch,true", "names in /bin for the program")
	flag.Parse()
	if err := pack(*program, *out, *image, *arch, strings.Split(*links, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "demoimage:", err)
		os.Exit(1)
	}
}

func pack(program, out, image, arch string, links []string) error {
	binary, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("read the program: %w", err)
	}
	if err := checkStatic(binary); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	if arch == "" {
		if arch, err = architecture(program); err != nil {
			return err
		}
	}
	tag, err := name.NewTag(image)
	if err != nil {
		return fmt.Errorf("parse the image's reference: %w", err)
	}
	content, err := files(binary, links)
	if err != nil {
		return fmt.Errorf("pack the files: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		return fmt.Errorf("make the layer: %w", err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return fmt.Errorf("add the layer: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("read the image's configuration: %w", err)
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = arch, "linux"
	config.Config = v1.Config{
		Entrypoint:   []string{"/demo"},
		Cmd:          []string{"serve"},
		Env:          []string{"PATH=/bin", "HOME=/tmp"},
		User:         fmt.Sprintf("%d:%d", user, user),
		WorkingDir:   "/",
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return fmt.Errorf("set the image's configuration: %w", err)
	}
	next := out + ".next"
	if err := tarball.WriteToFile(next, tag, img); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	return os.Rename(next, out)
}

// checkStatic makes sure that the program runs in an image without libraries.
func checkStatic(program []byte) error {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("not a Linux executable: %w", err)
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return errors.New("needs shared libraries: build it with CGO_ENABLED=0")
		}
	}
	return nil
}

// architecture asks the go command what a Go program was built for.
func architecture(program string) (string, error) {
	info, err := exec.Command("go", "version", "-m", program).Output()
	if err != nil {
		return "", fmt.Errorf("learn the architecture of %s: %w", program, err)
	}
	for line := range strings.Lines(string(info)) {
		if _, arch, ok := strings.Cut(strings.TrimSpace(line), "GOARCH="); ok {
			return arch, nil
		}
	}
	return "", fmt.Errorf("%s does not say its architecture: use -arch", program)
}

// files is the image's one layer.
func files(binary []byte, links []string) ([]byte, error) {
	passwd := fmt.Sprintf("root:x:0:0:root:/:/bin/sh\nnonroot:x:%d:%[1]d:nonroot:/tmp:/bin/sh\n", user)
	group := fmt.Sprintf("root:x:0:\nnonroot:x:%d:\n", user)
	entries := []struct {
		tar.Header
		content []byte
	}{
		{tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755}, nil},
		{tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}, nil},
		{tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil},
		{tar.Header{Typeflag: tar.TypeReg, Name: "demo", Mode: 0o755}, binary},
		{tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte(passwd)},
		{tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte(group)},
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	write := func(header tar.Header, content []byte) error {
		header.Size, header.ModTime, header.Format = int64(len(content)), time.Unix(0, 0), tar.FormatUSTAR
		if err := w.WriteHeader(&header); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	for _, e := range entries {
		if err := write(e.Header, e.content); err != nil {
			return nil, err
		}
	}
	for _, link := range links {
		if err := write(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + link, Linkname: "/demo", Mode: 0o777}, nil); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}
