package identity

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
)

// A Store keeps small pieces of state over restarts, sealed. A missing key is no error and gives nil.
type Store interface {
	// Load gives what was saved last. ErrOlder stands beside a value that was saved before the last one, because the last
	// one cannot be read; ErrDamaged stands alone when there was something and none of it can be read.
	Load(key string) ([]byte, error)
	// Save returns when the value is on disk; on an error the one before is still there.
	Save(key string, value []byte) error
}

var (
	// ErrOlder means that a value is the one before the last. What must not be done twice must not be done by it.
	ErrOlder = errors.New("the last state cannot be read; this is the one before")
	// ErrDamaged means that something was kept and cannot be read; the file is set aside when the key is saved next.
	ErrDamaged = errors.New("the state that was kept cannot be read")
	// ErrInUse means that another process has the store open; stop it, or give this one another state_directory.
	ErrInUse = errors.New("the state directory is in use by another authvigil")
)

const (
	sealedMagic = "authvigil sealed 1\n" // form and version of a file
	maxSealed   = 64 << 20               // bytes of a value
	leastKey    = 32                     // characters of a key's text
	ownKeyFile  = "key"
	lockFile    = "lock"
)

// A SealedStore keeps each value in a file of its own, sealed with AES-256-GCM (NIST SP 800-38D) and bound to its key, so
// that files cannot be swapped. A file is replaced whole or not at all, and the one before is kept beside it.
//
//	authvigil sealed 1\n | id of the key, 8 bytes | nonce, 12 bytes | sealed value and tag
type SealedStore struct {
	dir  string
	ring []ringKey // the first one seals, all open
	lock *os.File
	log  *slog.Logger

	mu      sync.Mutex // owns what follows, and is held while a file is written
	last    map[string][sha256.Size]byte
	damaged map[string]bool
}

type ringKey struct {
	id   [8]byte
	aead cipher.AEAD
}

// OpenStore opens the store in a directory, which it makes when it is not there, and locks it against other processes. The
// first of the keys seals and all of them open, so that a key is replaced by putting a new one before it. Without any key
// one is made in the directory itself: that keeps tokens from grep and from a stray copy of one file, and not from who can
// read the directory.
func OpenStore(dir string, keys []secret.Value, log *slog.Logger) (*SealedStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &SealedStore{dir: dir, log: log, last: map[string][sha256.Size]byte{}, damaged: map[string]bool{}}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w (%s%s)", ErrInUse, dir, holder(lock))
		}
		return nil, err
	}
	s.lock = lock
	if err := lock.Truncate(0); err == nil {
		_, _ = fmt.Fprintln(lock, os.Getpid()) // for people; on a full disk the lock holds all the same
	}
	stray, _ := filepath.Glob(filepath.Join(dir, ".new-*")) // of a process that was killed while it wrote
	for _, path := range stray {
		os.Remove(path)
	}
	if len(keys) == 0 {
		own, err := s.ownKey()
		if err != nil {
			lock.Close()
			return nil, err
		}
		keys = []secret.Value{own}
	}
	for i, key := range keys {
		k, err := newRingKey(key)
		if err != nil {
			lock.Close()
			return nil, fmt.Errorf("key %d of the state: %w", i+1, err)
		}
		s.ring = append(s.ring, k)
	}
	return s, nil
}

// holder names the process that has the lock, as it wrote it.
func holder(lock *os.File) string {
	b := make([]byte, 16)
	n, _ := lock.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(", process %d", pid)
}

// Close lets another process open the store.
func (s *SealedStore) Close() error { return s.lock.Close() }

// ownKey reads the key in the directory, or makes one.
func (s *SealedStore) ownKey() (secret.Value, error) {
	path := filepath.Join(s.dir, ownKeyFile)
	b, err := os.ReadFile(path)
	text := string(bytes.TrimSpace(b))
	switch {
	case err == nil && len(text) >= leastKey:
		return secret.New(text), nil
	case err == nil: // cut off: what it sealed is lost, and what comes must not be
		aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405")
		s.log.Error("the key of the sealed state is damaged and was set aside; a new one is made, and what the old one sealed cannot be read", "path", path, "aside", aside)
		if err := os.Rename(path, aside); err != nil {
			return secret.Value{}, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return secret.Value{}, err
	}
	random := make([]byte, 32)
	rand.Read(random)
	text = hex.EncodeToString(random)
	return secret.New(text), ReplaceFile(path, "", []byte(text+"\n"))
}

func newRingKey(text secret.Value) (k ringKey, err error) {
	if len(text.Expose()) < leastKey {
		return k, fmt.Errorf("is shorter than %d characters; make one with: head -c 32 /dev/urandom | base64", leastKey)
	}
	derived, err := hkdf.Key(sha256.New, []byte(text.Expose()), nil, "authvigil state", 32)
	if err != nil {
		return k, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return k, err
	}
	k.aead, err = cipher.NewGCM(block)
	sum := sha256.Sum256(append([]byte("id of "), derived...))
	copy(k.id[:], sum[:])
	return k, err
}

// path gives the file of a key.
func (s *SealedStore) path(key string) string {
	name := url.PathEscape(key)
	if len(name) > 150 {
		sum := sha256.Sum256([]byte(key))
		name = hex.EncodeToString(sum[:])
	}
	return filepath.Join(s.dir, name+".sealed")
}

// Load implements Store. It changes nothing on disk.
func (s *SealedStore) Load(key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.path(key)
	value, err := s.open(key, path)
	if err == nil {
		return value, nil
	}
	before, beforeErr := s.open(key, path+".before")
	missing, never := errors.Is(err, fs.ErrNotExist), errors.Is(beforeErr, fs.ErrNotExist)
	if missing && never {
		return nil, nil
	}
	if !missing {
		s.damaged[key] = true
	}
	s.log.Error("state cannot be read; a file that is there is set aside when it is written next", "path", path, "error", err)
	if beforeErr == nil {
		return before, fmt.Errorf("%s: %w (%w)", path, ErrOlder, err)
	}
	return nil, fmt.Errorf("%s: %w (%w)", path, ErrDamaged, err)
}

func (s *SealedStore) open(key, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSealed+1024))
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(b, []byte(sealedMagic))
	if !ok {
		return nil, errors.New("is not in the form of this version")
	}
	if len(rest) < 8+12+16 {
		return nil, errors.New("is cut off")
	}
	id, nonce, sealed := [8]byte(rest[:8]), rest[8:20], rest[20:]
	for _, k := range s.ring {
		if k.id == id {
			value, err := k.aead.Open(nil, nonce, sealed, bound(id, key))
			if err != nil {
				return nil, errors.New("was changed or damaged")
			}
			return value, nil
		}
	}
	return nil, errors.New("was sealed with a key that is neither state_key nor state_key_before")
}

// bound is what a sealed value is bound to besides its key.
func bound(id [8]byte, key string) []byte {
	return append(append([]byte(sealedMagic), id[:]...), key...)
}

// Save implements Store. Saving the same value again costs nothing.
func (s *SealedStore) Save(key string, value []byte) error {
	if len(value) > maxSealed {
		return fmt.Errorf("state %s is larger than %d MiB", key, maxSealed>>20)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256(value)
	if s.last[key] == sum {
		return nil
	}
	k := s.ring[0]
	b := append([]byte(sealedMagic), k.id[:]...)
	nonce := make([]byte, 12)
	rand.Read(nonce)
	b = k.aead.Seal(append(b, nonce...), nonce, value, bound(k.id, key)) // #nosec G407 -- the nonce is random, see above
	path := s.path(key)
	before := path + ".before"
	if s.damaged[key] {
		before = path + ".damaged-" + time.Now().UTC().Format("20060102T150405")
	}
	delete(s.last, key)
	if err := ReplaceFile(path, before, b); err != nil {
		return err
	}
	if s.damaged[key] {
		delete(s.damaged, key)
		s.log.Warn("damaged state was set aside", "path", before)
	}
	s.last[key] = sum
	return nil
}

// ReplaceFile replaces a file by one that is complete: a temporary file beside it, synced, renamed, and the directory
// synced. What was there gets the name before, unless that is empty. On any error the file stays as it was.
func ReplaceFile(path, before string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	if before != "" {
		link := f.Name() + ".before"
		switch err := os.Link(path, link); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			if err := os.Rename(link, before); err != nil {
				os.Remove(link)
				return err
			}
			os.Remove(link) // rename leaves it when both names are of one file
		}
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
