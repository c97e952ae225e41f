package probes

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

const (
	maxKeySet     = 512 << 10 // bytes of a key set; the largest seen have 30 KiB
	leastRSA      = 2048      // bits, RFC 7518 section 3.3
	usualRSA      = 4096      // bits, the most that common libraries take
	mostRSA       = 16384     // bits that are looked at: verifying costs time
	mostKeyText   = 8 << 10   // bytes of one member of a key
	mostX5c       = 8         // certificates of one key
	shownProblems = 8         // keys of which one kind of problem is told
)

// A publishedKey is one key of a set.
type publishedKey struct {
	evidence.Key
	thumb  string // RFC 7638 for keys that can be read, else of their text
	key    jose.JSONWebKey
	signs  bool      // it can verify signatures
	x5cEnd time.Time // end of its certificate; zero: none
}

// caching is what an answer says of how long it may be kept.
type caching struct {
	known   bool
	maxAge  time.Duration
	noStore bool
}

// fetchKeys gets the key set and reads it key by key. Without one nothing else can be checked: that is the error.
func (p *issuerProbe) fetchKeys(ctx context.Context, l *look, header ...string) error {
	at, err := url.Parse(l.doc.JWKSURI)
	if err != nil || (at.Scheme != "https" && at.Scheme != p.url.Scheme) || at.Hostname() == "" || at.User != nil {
		return nil // said by checkMetadata
	}
	fail := func(code, format string, args ...any) error {
		l.note(code, format, args...)
		return l.problems[len(l.problems)-1].fault()
	}
	a, err := p.get(ctx, l.doc.JWKSURI, maxKeySet, p.guardFor(at, l), l, header...)
	where := wire.ShowURL(at)
	switch fault := evidence.AsFault(err); {
	case fault != nil && (fault.Symptom == evidence.SymptomBadCertificate || fault.Own()):
		l.report.Chain = a.Chain
		if l.report.Chain != nil {
			l.report.Chain.Address = hostPort(at)
		}
		return fault
	case fault != nil:
		return fail("jwks_unreachable", "the key set at %s cannot be had: %s", where, causeOf(fault))
	case a.Exchange.Status != http.StatusOK:
		return fail("jwks_unreachable", "the key set at %s %s", where, refusal(a))
	case a.Exchange.BodyCut:
		return fail("jwks_unusable", "the key set at %s is longer than %d KiB", where, maxKeySet>>10)
	}
	keys, problems, err := parseKeySet(a.Body, l.clock.at())
	if err != nil {
		return fail("jwks_unusable", "the key set at %s %s", where, err)
	}
	l.keys, l.problems = keys, append(l.problems, problems...)
	for _, k := range keys {
		l.seen.Keys = append(l.seen.Keys, k.Key)
	}
	l.cache, l.cached = readCaching(a.Header), len(a.Header["Age"]) > 0 && a.Header.Get("Age") != "0" || strings.HasPrefix(strings.ToUpper(a.Header.Get("X-Cache")), "HIT")
	switch {
	case l.cache.noStore:
		l.note("cache_none", "the key set may not be kept by caches: verifiers that obey ask for each token")
	case l.cache.known && l.cache.maxAge > p.MaxCache:
		l.note("cache_long", "caches may keep the key set for %s, longer than max_cache %s: a new or withdrawn key is noticed that late", evidence.Span(l.cache.maxAge), evidence.Span(p.MaxCache))
	}
	if !slices.ContainsFunc(keys, func(k publishedKey) bool { return k.signs }) {
		return fail("jwks_unusable", "none of the %d keys at %s can verify a signature", len(keys), where)
	}
	return nil
}

// guardFor keeps a public issuer from leading us into private networks: its metadata are a stranger's word.
func (p *issuerProbe) guardFor(at *url.URL, l *look) func(netip.Addr) error {
	if strings.EqualFold(at.Hostname(), p.url.Hostname()) || len(l.report.Exchanges) == 0 {
		return nil
	}
	for _, x := range l.report.Exchanges {
		if remote, err := netip.ParseAddrPort(x.Remote); err == nil && x.Stage == evidence.StageDiscovery && wire.Public(remote.Addr().Unmap()) == nil {
			return wire.Public
		}
	}
	return func(ip netip.Addr) error {
		if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
			return wire.Public(ip)
		}
		return nil
	}
}

// parseKeySet reads a key set (RFC 7517 section 5) key by key: one that cannot be used hides none of the others. The error
// continues a sentence about the set.
func parseKeySet(b []byte, now time.Time) (keys []publishedKey, problems []problem, err error) {
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	switch trimmed := bytes.TrimSpace(b); {
	case len(trimmed) == 0:
		return nil, nil, errors.New("is empty")
	case trimmed[0] == '<':
		return nil, nil, errors.New("is a page (HTML) and no JSON document")
	case json.Unmarshal(trimmed, &set) != nil:
		return nil, nil, errors.New("is no JSON document with a list of keys")
	case set.Keys == nil:
		return nil, nil, errors.New("has no member keys")
	case len(*set.Keys) == 0:
		return nil, nil, errors.New("holds no key")
	}
	list := *set.Keys
	found := map[string][]string{} // names of keys by kind of problem
	note := func(code, name, reason string) { found[code] = append(found[code], name+" "+reason) }
	for i, raw := range list[:min(len(list), maxKeys)] {
		keys = append(keys, readKey(raw, i, now, note))
	}
	if len(list) > maxKeys {
		note("keys_many", fmt.Sprintf("the set holds %d keys,", len(list)), fmt.Sprintf("of which %d are looked at", maxKeys))
	}
	compareNames(keys, note)
	for code, texts := range found {
		detail := strings.Join(texts[:min(len(texts), shownProblems)], "; ")
		if len(texts) > shownProblems {
			detail += fmt.Sprintf("; and %d more", len(texts)-shownProblems)
		}
		problems = append(problems, problem{code, evidence.Clean(detail, 640)})
	}
	slices.SortFunc(problems, func(a, b problem) int { return strings.Compare(a.code, b.code) })
	return keys, problems, nil
}

// A rawKey holds the members of a JWK that are looked at (RFC 7517 section 4, RFC 7518 section 6, RFC 8037).
type rawKey struct {
	Kty, Kid, Alg, Use, Crv, N, E, X, Y string
	Ops                                 []string `json:"key_ops"`
	X5c                                 []string `json:"x5c"`
}

// readKey reads one key, and notes what is wrong with it.
func readKey(raw json.RawMessage, index int, now time.Time, note func(code, name, reason string)) publishedKey {
	sum := sha256.Sum256(raw)
	k := publishedKey{thumb: hex.EncodeToString(sum[:])}
	name := fmt.Sprintf("key number %d", index+1)
	bad := func(code, format string, args ...any) publishedKey {
		k.Problem = evidence.Clean(fmt.Sprintf(format, args...), 200)
		note(code, name, k.Problem)
		return k
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return bad("key_unusable", "is no JSON object")
	}
	var r rawKey
	if json.Unmarshal(members["kid"], &r.Kid) == nil && r.Kid != "" {
		k.Kid = evidence.Clean(r.Kid, 128)
		name = fmt.Sprintf("key %q", k.Kid)
	}
	if held := privateMembers(members); len(held) > 0 {
		note("jwks_private_key", name, "is published with its private part ("+strings.Join(held, ", ")+"): whoever reads it signs tokens")
	}
	for member, into := range map[string]*string{"kid": &r.Kid, "kty": &r.Kty, "alg": &r.Alg, "use": &r.Use, "crv": &r.Crv, "n": &r.N, "e": &r.E, "x": &r.X, "y": &r.Y} {
		if v, ok := members[member]; ok && (len(v) > mostKeyText || json.Unmarshal(v, into) != nil) {
			return bad("key_unusable", "has a member %s that is no text of sensible length", member)
		}
	}
	_ = json.Unmarshal(members["key_ops"], &r.Ops)
	k.Type, k.Alg, k.Use = evidence.Clean(r.Kty, 16), evidence.Clean(r.Alg, 32), evidence.Clean(r.Use, 16)
	code, reason := k.build(&r)
	if code != "" {
		return bad(code, "%s", reason)
	}
	if thumb, err := k.key.Thumbprint(crypto.SHA256); err == nil {
		k.thumb = hex.EncodeToString(thumb)
	}
	k.signs = r.Use != "enc" && (len(r.Ops) == 0 || slices.Contains(r.Ops, "verify"))
	if public, ok := k.key.Key.(*rsa.PublicKey); ok {
		switch bits := public.N.BitLen(); {
		case bits < leastRSA:
			note("key_weak", name, fmt.Sprintf("is RSA of %d bits; RFC 7518 wants %d", bits, leastRSA))
		case bits > usualRSA:
			note("key_large", name, fmt.Sprintf("is RSA of %d bits, more than some verifiers take", bits))
		}
		if public.E < 3 {
			note("key_weak", name, fmt.Sprintf("is RSA with exponent %d: its signatures prove nothing", public.E))
		}
	}
	if missing := missingMembers(&r); len(missing) > 0 {
		note("key_sparse", name, "says no "+strings.Join(missing, " and no ")+", so that verifiers must guess what it is for")
	}
	if _, has := members["x5c"]; has {
		k.readCertificate(members["x5c"], now, func(reason string) { note("key_certificate", name, reason) })
	}
	return k
}

func missingMembers(r *rawKey) (missing []string) {
	if r.Alg == "" {
		missing = append(missing, "alg")
	}
	if r.Use == "" && len(r.Ops) == 0 {
		missing = append(missing, "use")
	}
	return missing
}

// privateMembers names the members of a key that only its owner may know (RFC 7518 section 6).
func privateMembers(members map[string]json.RawMessage) (held []string) {
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} {
		if v := bytes.TrimSpace(members[name]); len(v) > 0 && !bytes.Equal(v, []byte("null")) && !bytes.Equal(v, []byte(`""`)) {
			held = append(held, name)
		}
	}
	return held
}

// familyOf gives key type and curve that an algorithm needs (RFC 7518 section 3.1, RFC 8037, RFC 9864).
var familyOf = map[string]struct{ kty, crv string }{
	"RS256": {"RSA", ""}, "RS384": {"RSA", ""}, "RS512": {"RSA", ""}, "PS256": {"RSA", ""}, "PS384": {"RSA", ""}, "PS512": {"RSA", ""},
	"ES256": {"EC", "P-256"}, "ES384": {"EC", "P-384"}, "ES512": {"EC", "P-521"}, "EdDSA": {"OKP", ""}, "Ed25519": {"OKP", "Ed25519"},
}

// build makes the public key. A code says that it cannot be used, and why.
func (k *publishedKey) build(r *rawKey) (code, reason string) {
	if family, ok := familyOf[r.Alg]; ok && r.Use != "enc" {
		switch {
		case r.Kty != "" && family.kty != r.Kty:
			return "key_unusable", fmt.Sprintf("is of type %s and says alg %s, which needs %s", k.Type, r.Alg, family.kty)
		case family.crv != "" && r.Crv != "" && family.crv != r.Crv:
			return "key_unusable", fmt.Sprintf("is on curve %s and says alg %s, which needs %s", evidence.Clean(r.Crv, 32), r.Alg, family.crv)
		}
	} else if r.Alg == "none" || strings.HasPrefix(r.Alg, "HS") {
		return "key_unusable", fmt.Sprintf("says alg %s, which no published key can verify", k.Alg)
	}
	switch r.Kty {
	case "":
		return "key_unusable", "has no type (kty)"
	case "RSA":
		public, reason := rsaPublic(r)
		if reason != "" {
			return "key_unusable", reason
		}
		k.key = jose.JSONWebKey{Key: public, KeyID: r.Kid, Algorithm: r.Alg, Use: r.Use}
		return "", ""
	case "EC", "OKP":
		if !slices.Contains([]string{"P-256", "P-384", "P-521", "Ed25519", ""}, r.Crv) {
			return "key_unknown", fmt.Sprintf("is on curve %s, which many verifiers do not know", evidence.Clean(r.Crv, 32))
		}
		public, _ := json.Marshal(map[string]string{"kty": r.Kty, "crv": r.Crv, "x": r.X, "y": r.Y})
		if r.Kty == "OKP" {
			public, _ = json.Marshal(map[string]string{"kty": r.Kty, "crv": r.Crv, "x": r.X})
		}
		if err := json.Unmarshal(public, &k.key); err != nil || !k.key.Valid() {
			return "key_unusable", "holds no point of its curve (x, y)"
		}
		k.key.KeyID, k.key.Algorithm, k.key.Use = r.Kid, r.Alg, r.Use
		return "", ""
	case "oct":
		return "key_unusable", "is a symmetric key: who verifies with it could sign with it"
	default:
		return "key_unknown", fmt.Sprintf("is of type %s, which many verifiers do not know", k.Type)
	}
}

// rsaPublic reads an RSA key by ourselves: the library refuses what is long in place of saying so.
func rsaPublic(r *rawKey) (public *rsa.PublicKey, reason string) {
	n, err := base64.RawURLEncoding.DecodeString(r.N)
	if err != nil || len(n) == 0 {
		return nil, "has a modulus (n) that is not base64url"
	}
	e, err := base64.RawURLEncoding.DecodeString(r.E)
	if err != nil || len(e) == 0 {
		return nil, "has an exponent (e) that is not base64url"
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	switch {
	case modulus.BitLen() > mostRSA:
		return nil, fmt.Sprintf("is RSA of %d bits, too long to be used", modulus.BitLen())
	case modulus.Bit(0) == 0 || modulus.BitLen() < 16:
		return nil, "has a modulus (n) that is none"
	case exponent.BitLen() > 31 || exponent.Bit(0) == 0:
		return nil, "has an exponent (e) that many verifiers refuse"
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, ""
}

// readCertificate looks at the certificate chain of a key (RFC 7517 section 4.7), which some verifiers trust in place of the
// key itself.
func (k *publishedKey) readCertificate(raw json.RawMessage, now time.Time, note func(reason string)) {
	var list []string
	if json.Unmarshal(raw, &list) != nil || len(list) == 0 || len(list) > mostX5c {
		note("has an x5c that is no list of certificates")
		return
	}
	der, err := base64.StdEncoding.DecodeString(list[0])
	if err != nil {
		note("has an x5c that is not base64")
		return
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		note("has an x5c whose certificate cannot be read")
		return
	}
	k.x5cEnd = c.NotAfter
	same, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !same.Equal(k.key.Key):
		note("has an x5c with the certificate of another key")
	case now.After(c.NotAfter):
		note(fmt.Sprintf("has an x5c whose certificate ended %s ago", evidence.Span(now.Sub(c.NotAfter))))
	case now.Before(c.NotBefore):
		note(fmt.Sprintf("has an x5c whose certificate begins in %s", evidence.Span(c.NotBefore.Sub(now))))
	}
}

// compareNames finds keys that cannot be told apart. Keys of different types may share a name (RFC 7517 section 4.5).
func compareNames(keys []publishedKey, note func(code, name, reason string)) {
	first := map[string]*publishedKey{}
	nameless := 0
	for i := range keys {
		k := &keys[i]
		if k.Problem != "" {
			continue
		}
		if k.Kid == "" {
			if k.signs {
				nameless++
			}
			continue
		}
		before := first[k.Kid+" "+k.Type+" "+k.Use]
		switch {
		case before == nil:
			first[k.Kid+" "+k.Type+" "+k.Use] = k
		case before.thumb != k.thumb:
			note("key_duplicate", fmt.Sprintf("kid %q", k.Kid), "names two different keys: which of them is tried is chance")
		}
	}
	if nameless > 0 && len(keys) > 1 {
		note("key_nameless", fmt.Sprintf("%d of the %d keys", nameless, len(keys)), "have no kid: verifiers cannot choose (RFC 7517 section 4.5)")
	}
}

// readCaching reads Cache-Control (RFC 9111 section 5.2.2), and Expires where it is absent.
func readCaching(h http.Header) (c caching) {
	for directive := range strings.SplitSeq(strings.ToLower(strings.Join(h.Values("Cache-Control"), ",")), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch name {
		case "no-store", "no-cache":
			c.known, c.noStore = true, true
		case "max-age":
			var seconds int64
			if _, err := fmt.Sscanf(strings.Trim(value, `"`), "%d", &seconds); err == nil && seconds >= 0 {
				c.known, c.maxAge = true, time.Duration(min(seconds, 10*365*86400))*time.Second
			}
		}
	}
	if expires, err := http.ParseTime(h.Get("Expires")); err == nil && !c.known {
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			c.known, c.maxAge = true, max(expires.Sub(date), 0)
		}
	}
	if c.known && c.maxAge == 0 {
		c.noStore = true
	}
	return c
}
