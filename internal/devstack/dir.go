package devstack

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// dirLock keeps a second stack out of a directory. The kernel drops it with the process, however
// that ends.
type dirLock struct{ file *os.File }

func lockDir(dir string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("create the data directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(file.Name())
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the directory %s is in use by process %s: stop that one, or choose another directory with --data-dir",
				dir, bytes.TrimSpace(holder))
		}
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	if err := file.Truncate(0); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if _, err := file.WriteString(strconv.Itoa(os.Getpid()) + "\n"); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &dirLock{file}, nil
}

// release leaves the file where it is: removing it would let two processes lock two files of one name.
func (l *dirLock) release() error { return l.file.Close() }

// EnvFile is where a stack in dir says how to reach it.
func EnvFile(dir string) string { return filepath.Join(dir, "env") }

// OwnEnvFile is where a stack in dir keeps which of its addresses are those of servers that it started
// itself. Unlike EnvFile it stays: a shell may have the addresses of a stack that has ended.
func OwnEnvFile(dir string) string { return filepath.Join(dir, "own-env") }

// writeEnv replaces a file of shell lines in one step, so that a reader finds all of it or nothing.
func writeEnv(path string, values map[string]string) error {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&text, "export %s='%s'\n", name, strings.ReplaceAll(values[name], "'", `'\''`))
	}
	return writeFile(path, text.String())
}

func removeEnv(dir string) error {
	if err := os.Remove(EnvFile(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeFile writes a file of its own to path in one step. It may hold a password, so only its
// owner can read it.
func writeFile(path, text string) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
