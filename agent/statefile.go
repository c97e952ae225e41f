package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/authvigil/authvigil/probes/identity"
)

const (
	// stateMagic begins the file; the version of its form and the hash of what follows complete the line.
	stateMagic = "authvigil state %d sha256:%s\n"
	// keptCorrupt is how many files that could not be read are kept for a look at them.
	keptCorrupt = 3
)

// errNewer means that a later version wrote the file; it is kept under another name for that version's return.
var errNewer = errors.New("was written by a later version")

// readState reads what was stored last or, where that cannot be read, the one before, or what was kept for this version's
// return when an earlier one ran meanwhile. What cannot be read is set aside under a name that is told, and nothing of it
// keeps anybody from starting.
func readState(dir string, tell func(msg string, args ...any)) (s *stored) {
	stray, _ := filepath.Glob(filepath.Join(dir, ".new-*")) // of a process that was killed while it wrote
	for _, path := range stray {
		os.Remove(path)
	}
	waiting := fmt.Sprintf("%s.version-%d", stateFile, stateVersion)
	for _, name := range []string{stateFile, stateFile + ".before", waiting} {
		path := filepath.Join(dir, name)
		read, version, err := openState(path)
		switch {
		case err == nil:
			if name == waiting {
				os.Rename(path, filepath.Join(dir, stateFile))
			} else {
				os.Remove(filepath.Join(dir, waiting)) // it is older
			}
			return read
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, errNewer):
			aside := fmt.Sprintf("%s.version-%d", filepath.Join(dir, stateFile), version)
			moved := os.Rename(path, aside)
			tell("state of a later version was set aside for its return; going on without it", "file", path, "error", err, "aside", aside, "moved", moved == nil)
			return nil
		}
		setAside(path, err, tell)
	}
	return nil
}

// setAside gives a file that cannot be used another name, and keeps the latest few of that kind.
func setAside(path string, why error, tell func(msg string, args ...any)) {
	aside := path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000")
	moved := os.Rename(path, aside)
	tell("state cannot be used and was set aside; going on without it", "file", path, "error", why, "aside", aside, "moved", moved == nil)
	corrupt, _ := filepath.Glob(path + ".corrupt-*")
	slices.Sort(corrupt) // by time
	for _, old := range corrupt[:max(len(corrupt)-keptCorrupt, 0)] {
		os.Remove(old)
	}
}

func openState(path string) (s *stored, version int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, 0, err
	}
	return parseState(b)
}

// parseState reads the text of a state file.
func parseState(b []byte) (s *stored, version int, err error) {
	if len(b) > maxState {
		return nil, 0, fmt.Errorf("is larger than %d MiB", maxState>>20)
	}
	line, body, ok := bytes.Cut(b, []byte("\n"))
	var sum string
	if _, err := fmt.Sscanf(string(line)+"\n", stateMagic, &version, &sum); !ok || err != nil {
		return nil, 0, errors.New("does not begin as a state file does")
	}
	switch {
	case sumOf(version, body) != sum:
		return nil, version, errors.New("is cut off or was changed: its hash is another")
	case version > stateVersion:
		return nil, version, fmt.Errorf("%w (form %d, this one knows %d)", errNewer, version, stateVersion)
	case version < stateVersion:
		return nil, version, fmt.Errorf("has form %d, which this version no longer reads", version)
	}
	s = &stored{}
	if err := json.Unmarshal(body, s); err != nil {
		return nil, version, err
	}
	return s, version, nil
}

// sumOf is the hash of a file's version and body; every version of the form begins so.
func sumOf(version int, body []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d\n", version)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// writeState replaces the file, whole or not at all, and keeps the one before.
func writeState(dir string, s *stored) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	b := append(fmt.Appendf(nil, stateMagic, stateVersion, sumOf(stateVersion, body)), body...)
	path := filepath.Join(dir, stateFile)
	return identity.ReplaceFile(path, path+".before", b)
}
