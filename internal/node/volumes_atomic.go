package node

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Files of a projected volume change all at once, or not at all, for whoever
// reads them:
//
//	volume/name            -> ..data/name       stays
//	volume/..data          -> ..2024_05_06_...  replaced by one rename
//	volume/..2024_05_06_.../name                the files, never changed
//
// A container sees either the old directory or the new one. This is the
// kubelet's scheme, and programs that watch "..data" rely on its names.
const (
	dataLink    = "..data"
	dataLinkNew = "..data_tmp"
)

// writeAtomically makes files the content of a volume. When they are its
// content already, nothing is touched.
func writeAtomically(dir string, files map[string]volumeFile, group *int64) error {
	current, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if current != "" && sameFiles(filepath.Join(dir, current), files) {
		return linkFiles(dir, files)
	}

	fresh, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := writeFiles(fresh, files, group); err != nil {
		_ = os.RemoveAll(fresh)
		return err
	}
	temporary := filepath.Join(dir, dataLinkNew)
	_ = os.Remove(temporary)
	if err := os.Symlink(filepath.Base(fresh), temporary); err != nil {
		_ = os.RemoveAll(fresh)
		return err
	}
	if err := os.Rename(temporary, filepath.Join(dir, dataLink)); err != nil {
		_ = os.RemoveAll(fresh)
		return err
	}
	if err := linkFiles(dir, files); err != nil {
		return err
	}
	return removeOutdated(dir, filepath.Base(fresh))
}

func writeFiles(dir string, files map[string]volumeFile, group *int64) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for name, file := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, file.data, 0o600); err != nil {
			return err
		}
		if file.owner != nil {
			if err := os.Chown(full, int(*file.owner), -1); err != nil {
				return err
			}
		}
		if err := os.Chmod(full, unixMode(file.mode)); err != nil {
			return err
		}
	}
	return giveToGroup(dir, group, true)
}

// sameFiles reports whether dir holds exactly these files. Modes only differ
// when the pod's spec does, which it cannot.
func sameFiles(dir string, files map[string]volumeFile) bool {
	seen := 0
	err := filepath.WalkDir(dir, func(full string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return nil
		}
		name, err := filepath.Rel(dir, full)
		if err != nil {
			return err
		}
		file, ok := files[name]
		if !ok {
			return errors.New("extra file")
		}
		b, err := os.ReadFile(full)
		if err != nil {
			return err
		}
		if string(b) != string(file.data) {
			return errors.New("changed file")
		}
		seen++
		return nil
	})
	return err == nil && seen == len(files)
}

// linkFiles makes the stable names that users see.
func linkFiles(dir string, files map[string]volumeFile) error {
	wanted := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		wanted[top] = true
	}
	for top := range wanted {
		link := filepath.Join(dir, top)
		if _, err := os.Lstat(link); err == nil {
			continue
		}
		if err := os.Symlink(path.Join(dataLink, top), link); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "..") && !wanted[entry.Name()] {
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeOutdated drops data directories other than the current one.
func removeOutdated(dir, current string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() && strings.HasPrefix(name, "..") && name != current {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("remove outdated volume content: %w", err)
			}
		}
	}
	return nil
}
