package identity

import (
	"context"
	"crypto/hmac"
	"crypto/md5" // #nosec G501 -- some APIs sign an MD5 of the body (Content-MD5)
	"crypto/rand"
	"crypto/sha1" // #nosec G505 -- some APIs sign by HMAC-SHA1
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
)

// signed signs requests by a shared key, in a form that the configuration describes: what is signed, and which headers carry
// the signature.
type signed struct {
	KeyID          string            `koanf:"key_id" help:"id of the key, for {key_id}"`
	Key            secret.Ref        `koanf:"key" help:"the shared key; required"`
	KeyForm        string            `koanf:"key_form" help:"how the key is written: text, base64 or hex; default text"`
	Algorithm      string            `koanf:"algorithm" help:"hash of the HMAC: sha256, sha512 or sha1; default sha256"`
	Sign           string            `koanf:"sign" help:"text that is signed, with parts in braces: {method} {path} {query} {target} (path and query) {host} {timestamp} {nonce} {key_id} {body} {body_sha256} {body_sha256_base64} {body_md5_base64} {header.NAME}; required"`
	Headers        map[string]string `koanf:"headers" help:"headers to set, with the same parts and {signature}; one of them must hold {signature}; required"`
	Form           string            `koanf:"signature_form" help:"how the signature is written: hex, base64 or base64url; default hex"`
	Timestamp      string            `koanf:"timestamp_form" help:"form of {timestamp}: unix, unix_ms, rfc3339, iso8601_basic or http_date; default unix"`
	credentialKeys `koanf:",squash"`
	common         `koanf:",squash"`
	*fixed
}

var (
	hashes         = map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New, "sha1": sha1.New}
	signatureForms = map[string]func([]byte) string{"hex": hex.EncodeToString, "base64": base64.StdEncoding.EncodeToString, "base64url": base64.RawURLEncoding.EncodeToString}
	timestampForms = map[string]func(time.Time) string{
		"unix":          func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) },
		"unix_ms":       func(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) },
		"rfc3339":       func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"iso8601_basic": func(t time.Time) string { return t.UTC().Format("20060102T150405Z") },
		"http_date":     func(t time.Time) string { return t.UTC().Format(http.TimeFormat) },
	}
	keyForms = map[string]func(string) ([]byte, error){
		"text":   func(s string) ([]byte, error) { return []byte(s), nil },
		"base64": func(s string) ([]byte, error) { return base64.StdEncoding.DecodeString(strings.TrimSpace(s)) },
		"hex":    func(s string) ([]byte, error) { return hex.DecodeString(strings.TrimSpace(s)) },
	}
	braces    = regexp.MustCompile(`\{[^{}]*\}`)
	partNames = []string{"method", "path", "query", "target", "host", "timestamp", "nonce", "key_id", "body", "body_sha256", "body_sha256_base64", "body_md5_base64"}
)

func newSigned(decode func(any) error, env Env) (Identity, error) {
	s := &signed{KeyForm: "text", Algorithm: "sha256", Form: "hex", Timestamp: "unix", fixed: newFixed(env, pace.Policy{})}
	if err := decode(s); err != nil {
		return nil, err
	}
	s.of("key", s.Key, env)
	var errs []error
	wrong := func(found bool, format string, args ...any) {
		if found {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(s.Key.IsZero(), "key: is missing")
	wrong(s.Sign == "", "sign: is missing; such as \"{method}\\n{target}\\n{timestamp}\\n{body_sha256}\"")
	wrong(keyForms[s.KeyForm] == nil, "key_form: %q is none of text, base64, hex", s.KeyForm)
	wrong(hashes[s.Algorithm] == nil, "algorithm: %q is none of sha256, sha512, sha1", s.Algorithm)
	wrong(signatureForms[s.Form] == nil, "signature_form: %q is none of hex, base64, base64url", s.Form)
	wrong(timestampForms[s.Timestamp] == nil, "timestamp_form: %q is none of %s", s.Timestamp, strings.Join(slices.Sorted(maps.Keys(timestampForms)), ", "))
	for _, part := range badParts(s.Sign, false) {
		wrong(true, "sign: there is no part %s", part)
	}
	carried := false
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		carried = carried || strings.Contains(s.Headers[name], "{signature}")
		for _, part := range badParts(s.Headers[name], true) {
			wrong(true, "headers: %s: there is no part %s", name, part)
		}
	}
	wrong(!carried, "headers: none holds {signature}")
	return s, errors.Join(errs...)
}

// badParts finds parts in braces that nothing stands for.
func badParts(text string, signature bool) (bad []string) {
	for _, part := range braces.FindAllString(text, -1) {
		name := part[1 : len(part)-1]
		if !slices.Contains(partNames, name) && !strings.HasPrefix(name, "header.") && (!signature || name != "signature") {
			bad = append(bad, part)
		}
	}
	return bad
}

func (s *signed) Apply(ctx context.Context, req *http.Request) (Grant, error) {
	g := Grant{Scheme: "hmac"}
	if err := s.allows(req); err != nil {
		return g, err
	}
	v, err := reveal(ctx, "key", s.Key)
	if err != nil {
		return g, err
	}
	g.Readings, g.Notes = s.about(ctx, v)
	key, err := keyForms[s.KeyForm](v.Expose())
	if err != nil {
		return g, badKey("key", "is not in the form "+s.KeyForm)
	}
	if req.URL.Host == "" {
		return g, nil
	}
	if g.ID, err = s.admit(v.Expose()); err != nil {
		return g, err
	}
	body, err := bodyOf(req)
	if err != nil {
		return g, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the body cannot be signed")}
	}
	parts := s.parts(req, body, time.Now())
	mac := hmac.New(hashes[s.Algorithm], key)
	mac.Write([]byte(fillParts(s.Sign, parts, req)))
	parts["signature"] = signatureForms[s.Form](mac.Sum(nil))
	secret.Remember(parts["signature"])
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		req.Header.Set(name, fillParts(s.Headers[name], parts, req))
	}
	return g, nil
}

// parts are what stands for the names in braces.
func (s *signed) parts(req *http.Request, body []byte, now time.Time) map[string]string {
	sum, old := sha256.Sum256(body), md5.Sum(body) // #nosec G401 -- as above
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	return map[string]string{
		"method": req.Method, "path": req.URL.EscapedPath(), "query": req.URL.RawQuery, "target": req.URL.RequestURI(), "host": host,
		"timestamp": timestampForms[s.Timestamp](now), "nonce": rand.Text(), "key_id": s.KeyID, "body": string(body),
		"body_sha256": hex.EncodeToString(sum[:]), "body_sha256_base64": base64.StdEncoding.EncodeToString(sum[:]), "body_md5_base64": base64.StdEncoding.EncodeToString(old[:]),
	}
}

func fillParts(text string, parts map[string]string, req *http.Request) string {
	return braces.ReplaceAllStringFunc(text, func(part string) string {
		name := part[1 : len(part)-1]
		if header, ok := strings.CutPrefix(name, "header."); ok {
			return req.Header.Get(header)
		}
		return parts[name]
	})
}

func (s *signed) Settle(g Grant, o Outcome) bool { s.settle(g, o); return false }
func (s *signed) ClientCertificate(context.Context) (*tls.Certificate, error) {
	return nil, nil
}

func (s *signed) Status() Status {
	return Status{Kind: "hmac", Scheme: "hmac", Gate: s.state(), Origin: s.Origins}
}
