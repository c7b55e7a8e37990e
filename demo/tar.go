package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// tarCommand is a parsed command line.
type tarCommand struct {
	mode    byte // 'c' or 'x'
	verbose bool
	now     bool   // m: do not restore times
	archive string // "-" for standard input or output
	dir     string
	files   []string
}

// parseTar reads what kubectl cp and people write: the letters with or without
// a dash, f's value attached or next, -C DIR, and long options that only say
// what we do anyway.
func parseTar(args []string) (tarCommand, error) {
	cmd := tarCommand{archive: "-", dir: "."}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		next := func(what string) (string, error) {
			i++
			if i >= len(args) {
				return "", fmt.Errorf("%s is missing", what)
			}
			return args[i], nil
		}
		switch {
		case arg == "--":
			cmd.files = append(cmd.files, args[i+1:]...)
			i = len(args)
		case arg == "--no-same-permissions", arg == "--no-same-owner", arg == "--no-overwrite-dir":
		case strings.HasPrefix(arg, "--"):
			return cmd, fmt.Errorf("no option %s", arg)
		case i == 0 || len(arg) > 1 && arg[0] == '-':
			letters := strings.TrimPrefix(arg, "-")
			for at, letter := range letters {
				var err error
				switch letter {
				case 'c', 'x':
					cmd.mode = byte(letter)
				case 'v':
					cmd.verbose = true
				case 'm':
					cmd.now = true
				case 'p', 'o':
				case 'f', 'C':
					value := letters[at+1:]
					if value == "" {
						value, err = next("the value of -" + string(letter))
					}
					if letter == 'f' {
						cmd.archive = value
					} else {
						cmd.dir = value
					}
				default:
					err = fmt.Errorf("no option -%c", letter)
				}
				if err != nil {
					return cmd, err
				}
				if letter == 'f' || letter == 'C' {
					break
				}
			}
		default:
			cmd.files = append(cmd.files, arg)
		}
	}
	if cmd.mode == 0 {
		return cmd, errors.New("say c to pack or x to unpack")
	}
	if cmd.mode == 'c' && len(cmd.files) == 0 {
		return cmd, errors.New("nothing to pack")
	}
	return cmd, nil
}

func tarTool(args []string, io stdio) int {
	cmd, err := parseTar(args)
	if err != nil {
		fail(io, "tar", err)
		return 2
	}
	if cmd.mode == 'c' {
		err = cmd.pack(io)
	} else {
		err = cmd.unpack(io)
	}
	if err != nil {
		fail(io, "tar", err)
		return 2
	}
	return 0
}

func (cmd tarCommand) pack(std stdio) (err error) {
	out := std.out
	if cmd.archive != "-" {
		f, err := os.Create(cmd.archive)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	w := tar.NewWriter(out)
	for _, file := range cmd.files {
		from := file
		if !filepath.IsAbs(from) {
			from = filepath.Join(cmd.dir, file)
		}
		err := filepath.WalkDir(from, func(at string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			inside, err := filepath.Rel(from, at)
			if err != nil {
				return err
			}
			return cmd.packOne(w, at, strings.TrimLeft(path.Join(file, inside), "/"), std)
		})
		if err != nil {
			return err
		}
	}
	return w.Close()
}

func (cmd tarCommand) packOne(w *tar.Writer, at, name string, std stdio) error {
	info, err := os.Lstat(at)
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(at); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return fmt.Errorf("pack %s: %w", at, err) // a socket
	}
	header.Name = name
	if info.IsDir() {
		header.Name += "/"
	}
	if cmd.verbose {
		fmt.Fprintln(std.err, header.Name)
	}
	if err := w.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(at)
	if err != nil {
		return err
	}
	defer f.Close()
	// A file that grows meanwhile is cut at the size that the header promised.
	_, err = io.CopyN(w, f, header.Size)
	return err
}

// unpack writes files only below cmd.dir: os.Root refuses names and links that lead out.
func (cmd tarCommand) unpack(std stdio) error {
	in := std.in
	if cmd.archive != "-" {
		f, err := os.Open(cmd.archive)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	root, err := os.OpenRoot(cmd.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(in); ; {
		header, err := r.Next()
		if err == io.EOF {
			// What follows the end is padding: take it, or the sender gets an error.
			return copyAll(io.Discard, in)
		}
		if err != nil {
			return err
		}
		if cmd.verbose {
			fmt.Fprintln(std.err, header.Name)
		}
		if err := cmd.unpackOne(root, r, header); err != nil {
			return fmt.Errorf("unpack %s: %w", header.Name, err)
		}
	}
}

func (cmd tarCommand) unpackOne(root *os.Root, r io.Reader, header *tar.Header) error {
	name := strings.TrimLeft(path.Clean(header.Name), "/")
	if name == "" || name == "." {
		return nil
	}
	if parent := path.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	mode := fs.FileMode(header.Mode).Perm()
	switch header.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, mode|0o700)
	case tar.TypeSymlink:
		root.Remove(name)
		return root.Symlink(header.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, r); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil || cmd.now {
			return err
		}
		return root.Chtimes(name, time.Now(), header.ModTime)
	}
	return fmt.Errorf("cannot make a file of type %q", header.Typeflag)
}
