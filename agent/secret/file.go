package secret

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// file reads a regular file at each use, so that a rotation in place, by rename or by symlink swap is seen at once.
type file string

func newFile(place string) (Source, error) {
	if !filepath.IsAbs(place) {
		return nil, fmt.Errorf("%s is not an absolute path", place)
	}
	return file(place), nil
}

func (f file) Reveal(context.Context) (Value, error) {
	b, _, err := f.read()
	if err != nil {
		return Value{}, err
	}
	return text(b)
}

func (f file) Changed(context.Context) (time.Time, error) {
	info, err := os.Stat(string(f))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// read opens without blocking, because a FIFO in the place of the file would hold the run up for ever.
func (f file) read() ([]byte, fs.FileInfo, error) {
	fd, err := os.OpenFile(string(f), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("no such file: %w", ErrNotFound)
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, errors.New("permission denied; the file must be readable by the user authvigil runs as")
	case err != nil:
		return nil, nil, errors.Unwrap(err)
	}
	defer fd.Close()
	info, err := fd.Stat()
	if err != nil {
		return nil, nil, errors.Unwrap(err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.New("is not a regular file")
	}
	if info.Mode().Perm()&0o002 != 0 {
		return nil, nil, fmt.Errorf("can be written by everybody (mode %04o); chmod o-w it", info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(fd, maxBytes+1))
	return b, info, err
}

// newCredential names a credential that systemd put into $CREDENTIALS_DIRECTORY (LoadCredential= and its kin).
func newCredential(place string) (Source, error) {
	if filepath.Base(place) != place || place == "." || place == ".." {
		return nil, fmt.Errorf("%q is not the name of a credential", place)
	}
	return credential(place), nil
}

type credential string

func (c credential) Reveal(ctx context.Context) (Value, error) {
	f, err := c.file()
	if err != nil {
		return Value{}, err
	}
	return f.Reveal(ctx)
}

func (c credential) Changed(ctx context.Context) (time.Time, error) {
	f, err := c.file()
	if err != nil {
		return time.Time{}, err
	}
	return f.Changed(ctx)
}

func (c credential) file() (file, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", fmt.Errorf("$CREDENTIALS_DIRECTORY is not set; the unit needs LoadCredential=%s:…: %w", string(c), ErrNotFound)
	}
	return file(filepath.Join(dir, string(c))), nil
}
