package secret

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// vaultLogin is how one reference proves itself to Vault. References with the same words share it, so that a hundred secrets
// cost one login.
type vaultLogin struct {
	address, namespace, ca string
	method, mount, role    string
	credential             Ref // token, secret_id or jwt

	turn chan struct{} // holds one: only one logs in

	mu    sync.Mutex // owns what follows
	token Value
	until time.Time // when the token is to be replaced; zero: never
}

// logins are shared by the process, like what they protect: tokens of Vault are counted there.
var logins struct {
	sync.Mutex
	by map[string]*vaultLogin
}

// errLogin marks errors of a login, which say all there is to say.
var errLogin = errors.New("login refused")

// serviceAccountToken is where Kubernetes puts the token of a pod.
const serviceAccountToken = "file:/var/run/secrets/kubernetes.io/serviceaccount/token"

// maxStoreAnswer bounds what is read of an answer of a secret store.
const maxStoreAnswer = 1 << 20

func newVaultLogin(o url.Values) (*vaultLogin, error) {
	l := &vaultLogin{address: o.Get("address"), namespace: o.Get("namespace"), ca: o.Get("ca_file"), method: cmp.Or(o.Get("auth"), "token"), role: o.Get("role"), turn: make(chan struct{}, 1)}
	l.mount = strings.Trim(cmp.Or(o.Get("auth_mount"), l.method), "/")
	var errs []error
	wrong := func(found bool, text string) {
		if found {
			errs = append(errs, errors.New(text))
		}
	}
	needs := map[string]string{"token": "token", "approle": "secret_id", "kubernetes": "jwt", "agent": ""}
	need, known := needs[l.method]
	wrong(!known, "auth: is none of token, approle, kubernetes, agent")
	for _, name := range []string{"token", "secret_id", "jwt"} {
		text := o.Get(name)
		if text == "" && name == need && name == "jwt" {
			text = serviceAccountToken
		}
		if text == "" && name == need && name == "token" {
			text = "env:" + api.EnvVaultToken
		}
		if text == "" {
			wrong(name == need, name+": is missing for auth="+l.method)
			continue
		}
		wrong(name != need, name+": does not go with auth="+l.method)
		ref, err := Parse(text)
		wrong(err != nil || ref.Scheme() == "plain" || ref.Scheme() == "vault", name+": must be a reference, such as file:/run/secrets/"+name)
		l.credential = ref
	}
	wrong((l.method == "approle" || l.method == "kubernetes") != (l.role != ""), "role: goes with auth=approle and auth=kubernetes, and they need it")
	if u, err := url.Parse(l.address); l.address != "" {
		wrong(err != nil || (u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "unix") || u.User != nil, "address: begins with none of https://, http:// and unix://")
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	logins.Lock()
	defer logins.Unlock()
	same := strings.Join([]string{l.address, l.namespace, l.ca, l.method, l.mount, l.role, o.Get(need)}, "\x00")
	if known := logins.by[same]; known != nil {
		return known, nil
	}
	if logins.by == nil {
		logins.by = map[string]*vaultLogin{}
	}
	logins.by[same] = l
	return l, nil
}

// client gives a client with a token, logged in where the method wants that. used names the token.
func (l *vaultLogin) client(ctx context.Context) (*api.Client, Value, error) {
	c, err := l.connect()
	if err != nil || l.method == "agent" {
		return c, Value{}, err
	}
	if l.method == "token" {
		token, err := l.credential.Reveal(ctx)
		if err != nil {
			return nil, token, fmt.Errorf("the token for vault: %w", err)
		}
		c.SetToken(token.Expose())
		return c, token, nil
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, Value{}, fmt.Errorf("%w: no answer in time", ErrAway)
	}
	l.mu.Lock()
	token, until := l.token, l.until
	l.mu.Unlock()
	if token.IsZero() || !until.IsZero() && time.Now().After(until) {
		if token, until, err = l.logIn(ctx, c); err != nil {
			return nil, token, err
		}
		l.mu.Lock()
		l.token, l.until = token, until
		l.mu.Unlock()
	}
	c.SetToken(token.Expose())
	return c, token, nil
}

// drop forgets a token that was refused; it says whether another can be had.
func (l *vaultLogin) drop(used Value) bool {
	if l.method != "approle" && l.method != "kubernetes" {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.token.Expose() == used.Expose() {
		l.token = Value{}
	}
	return true
}

// logIn obtains a token, which is used for two thirds of its life.
func (l *vaultLogin) logIn(ctx context.Context, c *api.Client) (token Value, until time.Time, err error) {
	v, err := l.credential.Reveal(ctx)
	if err != nil {
		return token, until, fmt.Errorf("the login at vault: %w", err)
	}
	body := map[string]any{"role": l.role, "jwt": v.Expose()}
	if l.method == "approle" {
		body = map[string]any{"role_id": l.role, "secret_id": v.Expose()}
	}
	at := "auth/" + l.mount + "/login"
	c.ClearToken()
	s, err := c.Logical().WriteWithContext(ctx, at, body)
	var answer *api.ResponseError
	switch {
	case errors.As(err, &answer) && isSealed(answer):
		return token, until, fmt.Errorf("%w: vault is sealed; vault operator unseal opens it", ErrAway)
	case errors.As(err, &answer) && (answer.StatusCode >= 470 || answer.StatusCode == 429):
		return token, until, fmt.Errorf("%w: vault answered %d at %s", ErrAway, answer.StatusCode, at)
	case errors.As(err, &answer):
		return token, until, fmt.Errorf("%w: vault answered %d at %s; is role right, is %s still good, and may it be used from here", errLogin, answer.StatusCode, at, l.credential.Scheme())
	case err != nil:
		return token, until, away(err)
	case s == nil || s.Auth == nil || s.Auth.ClientToken == "":
		return token, until, fmt.Errorf("%w: vault answered at %s without a token", errLogin, at)
	}
	if s.Auth.LeaseDuration > 0 {
		until = time.Now().Add(time.Duration(s.Auth.LeaseDuration) * time.Second * 2 / 3)
	}
	return New(s.Auth.ClientToken), until, nil
}

// connect makes a client that neither repeats nor follows anything, verifies certificates whatever the environment says, and
// reads no more than it should.
func (l *vaultLogin) connect() (*api.Client, error) {
	address := cmp.Or(l.address, os.Getenv(api.EnvVaultAddress))
	if address == "" {
		return nil, errors.New("vault has no address; set VAULT_ADDR, or write ?address=https://vault.example.com:8200")
	}
	t := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, TLSHandshakeTimeout: 5 * time.Second}
	if socket, unix := strings.CutPrefix(address, "unix://"); unix {
		if !filepath.IsAbs(socket) {
			return nil, errors.New("address: unix:// wants an absolute path")
		}
		address = "http://vault.agent"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	if ca := cmp.Or(l.ca, os.Getenv(api.EnvVaultCACert)); ca != "" {
		pem, err := os.ReadFile(ca) // #nosec G304 -- the operator names the file
		pool := x509.NewCertPool()
		if err != nil || !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM form that can be read", ca)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	c, err := api.NewClient(&api.Config{Address: address, HttpClient: &http.Client{Transport: bounded{t}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, DisableRedirects: true})
	if err != nil {
		return nil, errors.New("the environment has settings for vault that cannot be read")
	}
	c.ClearToken() // that of the environment belongs to auth=token alone
	if l.namespace != "" {
		c.SetNamespace(l.namespace)
	}
	return c, nil
}

// errElsewhere is a redirect, which is not followed.
var errElsewhere = errors.New("leads elsewhere")

// bounded cuts answers that are longer than any secret.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.Transport.RoundTrip(r)
	if err == nil && answer.StatusCode/100 == 3 {
		answer.Body.Close()
		return nil, errElsewhere
	}
	return cut(answer, err)
}

func cut(answer *http.Response, err error) (*http.Response, error) {
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxStoreAnswer), answer.Body}
	}
	return answer, err
}
