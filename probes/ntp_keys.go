package probes

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/beevik/ntp"
)

// keyTypes are the names that chrony and ntpd give to algorithms.
var keyTypes = map[string]ntp.AuthType{
	"MD5": ntp.AuthMD5, "M": ntp.AuthMD5, "SHA1": ntp.AuthSHA1, "SHA256": ntp.AuthSHA256, "SHA512": ntp.AuthSHA512,
	"AES128": ntp.AuthAES128, "AES256": ntp.AuthAES256,
}

// auth finds the key for a server; without one the server is not authenticated. It is read for each burst, so that a file may
// be replaced. Errors never hold a key.
func (p *ntpProbe) auth(ctx context.Context, server string) (ntp.AuthOptions, error) {
	ref, ok := p.Keys[server]
	if !ok {
		return ntp.AuthOptions{}, nil
	}
	key, err := ref.Reveal(ctx)
	if err != nil {
		return ntp.AuthOptions{}, fmt.Errorf("its key cannot be read: %w", err)
	}
	return readNTPKey(key.Expose())
}

// readNTPKey reads a line of chrony.keys or ntp.keys: a number, a type that may be left out (MD5), and the key as HEX:…, ASCII:…
// or plain text.
func readNTPKey(line string) (ntp.AuthOptions, error) {
	line, _, _ = strings.Cut(line, "#")
	fields := strings.Fields(line)
	kind := "MD5"
	switch len(fields) {
	case 2:
	case 3:
		kind = strings.ToUpper(fields[1])
	default:
		return ntp.AuthOptions{}, errors.New("its key wants a number, a type and the key, as a line of chrony.keys")
	}
	id, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil || id == 0 {
		return ntp.AuthOptions{}, errors.New("its key does not begin with a number")
	}
	algorithm, ok := keyTypes[kind]
	if !ok {
		return ntp.AuthOptions{}, errors.New("its key is of a type that is not known; MD5, SHA1, SHA256, SHA512, AES128 and AES256 are")
	}
	key := fields[len(fields)-1]
	if !strings.HasPrefix(key, "HEX:") && !strings.HasPrefix(key, "ASCII:") {
		key = "ASCII:" + key
	}
	return ntp.AuthOptions{Type: algorithm, Key: key, KeyID: uint32(id)}, nil
}
