package identity

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"sync"

	digestauth "github.com/icholy/digest"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// digest proves a password without sending it (RFC 7616). The first request to a server goes without proof, because only
// its challenge says how to prove; after that the challenge is used until the server says another one.
type digest struct {
	Username       string     `koanf:"username" help:"user name; required"`
	Password       secret.Ref `koanf:"password" help:"password; required"`
	credentialKeys `koanf:",squash"`
	lockoutKeys    `koanf:",squash"`
	common         `koanf:",squash"`
	*fixed

	mu         sync.Mutex // owns challenges
	challenges map[string]*digestChallenge
}

// A digestChallenge is what an origin said, and how often it was used.
type digestChallenge struct {
	digestauth.Challenge
	count int
}

// mostChallenges bounds how many origins an identity remembers.
const mostChallenges = 64

func newDigest(decode func(any) error, env Env) (Identity, error) {
	d := &digest{fixed: newFixed(env, lockout), challenges: map[string]*digestChallenge{}}
	if err := decode(d); err != nil {
		return nil, err
	}
	d.of("password", d.Password, env)
	errs := d.limit(d.credentialGate)
	if d.Username == "" {
		errs = append(errs, errors.New("username: is missing"))
	}
	if d.Password.IsZero() {
		errs = append(errs, errors.New("password: is missing"))
	}
	return d, errors.Join(errs...)
}

func (d *digest) Apply(ctx context.Context, req *http.Request) (Grant, error) {
	g := Grant{Scheme: "digest"}
	if err := d.allows(req); err != nil {
		return g, err
	}
	v, err := reveal(ctx, "password", d.Password)
	if err != nil {
		return g, err
	}
	g.Readings, g.Notes = d.about(ctx, v)
	if req.URL.Host == "" {
		return g, nil
	}
	if g.ID, err = d.admit(d.Username + ":" + v.Expose()); err != nil {
		return g, err
	}
	g.origin = wire.Origin(req.URL)
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.challenges[g.origin]
	if c == nil {
		return g, nil
	}
	c.count++
	proof, err := digestauth.Digest(&c.Challenge, digestauth.Options{Method: req.Method, URI: req.URL.RequestURI(), GetBody: req.GetBody, Count: c.count, Username: d.Username, Password: v.Expose()})
	if err != nil {
		delete(d.challenges, g.origin)
		return g, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Code: "digest", Err: err}
	}
	g.proved = true
	req.Header.Set("Authorization", proof.String())
	return g, nil
}

// Settle takes over the challenge of a refusal. The request goes again when it was without proof, or when its nonce was too
// old (stale); a refused proof is a refused password.
func (d *digest) Settle(g Grant, o Outcome) (again bool) {
	if o.Refused {
		c, stale, found := readDigest(o.Header)
		if found {
			d.mu.Lock()
			if len(d.challenges) >= mostChallenges {
				clear(d.challenges)
			}
			d.challenges[g.origin] = c
			d.mu.Unlock()
		}
		if found && (!g.proved || stale) || !g.proved {
			d.settle(g, Outcome{Status: o.Status}) // says nothing about the password
			return found
		}
	} else if next := parameterOf(o.Header.Get("Authentication-Info"), "nextnonce"); next != "" && g.proved {
		d.mu.Lock()
		if c := d.challenges[g.origin]; c != nil {
			c.Nonce, c.count = next, 0
		}
		d.mu.Unlock()
	}
	d.settle(g, o)
	return false
}

func parameterOf(header, name string) string {
	if header == "" {
		return ""
	}
	for _, c := range evidence.ParseChallenges("x " + header) {
		if v := c.Parameters[name]; v != "" {
			return v
		}
	}
	return ""
}

// readDigest gives the strongest challenge of a refusal that can be answered.
func readDigest(h http.Header) (best *digestChallenge, stale, found bool) {
	strength := map[string]int{"SHA-512": 4, "SHA-512-256": 3, "SHA-256": 2, "MD5": 1}
	for _, c := range evidence.ParseChallenges(h.Values("WWW-Authenticate")...) {
		p := c.Parameters
		if !strings.EqualFold(c.Scheme, "digest") || p["nonce"] == "" {
			continue
		}
		one := &digestChallenge{Challenge: digestauth.Challenge{Realm: p["realm"], Nonce: p["nonce"], Opaque: p["opaque"], Algorithm: strings.ToUpper(p["algorithm"]), Charset: p["charset"], Userhash: strings.EqualFold(p["userhash"], "true")}}
		for q := range strings.FieldsFuncSeq(p["qop"], func(r rune) bool { return r == ',' || r == ' ' }) {
			one.QOP = append(one.QOP, strings.ToLower(q))
		}
		if !digestauth.CanDigest(&one.Challenge) {
			continue
		}
		if best == nil || strength[cmp.Or(one.Algorithm, "MD5")] > strength[cmp.Or(best.Algorithm, "MD5")] {
			best, stale = one, strings.EqualFold(p["stale"], "true")
		}
	}
	return best, stale, best != nil
}

func (d *digest) ClientCertificate(context.Context) (*tls.Certificate, error) { return nil, nil }

func (d *digest) Status() Status {
	return Status{Kind: "digest", Scheme: "digest", Gate: d.state(), Origin: d.Origins}
}
