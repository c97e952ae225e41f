package probes

import (
	"context"
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

// auth finds the key for a server; without one the server is not authenticated. Keys are read for each burst, so that a file
// may be replaced. Errors never hold a key.
func (p *ntpProbe) auth(ctx context.Context, server string) (ntp.AuthOptions, error) {
	id, ok := p.KeyIDs[server]
	if !ok {
		return ntp.AuthOptions{}, nil
	}
	keys, err := p.Keys.Reveal(ctx)
	if err != nil {
		return ntp.AuthOptions{}, fmt.Errorf("keys: %w", err)
	}
	options, err := findKey(keys.Expose(), id)
	if err != nil {
		return options, fmt.Errorf("keys: %w", err)
	}
	return options, nil
}

// findKey looks for a key in the form of chrony.keys and ntp.keys: a number, a type that may be left out (MD5), and the key
// as HEX:…, ASCII:… or plain text.
func findKey(text string, id int) (ntp.AuthOptions, error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "!") || strings.HasPrefix(fields[0], "%") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		if number, err := strconv.Atoi(fields[0]); err != nil || number != id {
			continue
		}
		kind, key := "MD5", fields[len(fields)-1]
		switch len(fields) {
		case 2:
		case 3:
			kind = strings.ToUpper(fields[1])
		default:
			return ntp.AuthOptions{}, fmt.Errorf("line %d: want a number, a type and a key", n)
		}
		algorithm, ok := keyTypes[kind]
		if !ok {
			return ntp.AuthOptions{}, fmt.Errorf("line %d: a type of key that is not known", n)
		}
		if !strings.HasPrefix(key, "HEX:") && !strings.HasPrefix(key, "ASCII:") {
			key = "ASCII:" + key
		}
		return ntp.AuthOptions{Type: algorithm, Key: key, KeyID: uint32(id)}, nil
	}
	return ntp.AuthOptions{}, fmt.Errorf("there is no key %d", id)
}
