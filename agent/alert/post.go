package alert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/authvigil/authvigil/agent/secret"
)

const (
	// maxAnswer is how much of an answer is read: enough for the reason of a refusal.
	maxAnswer = 64 << 10
	// maxReason is how much of it is told.
	maxReason = 200
	// longestPause bounds how long a receiver may ask to be left alone.
	longestPause = 5 * time.Minute
)

// poster are the keys of every sink that posts over HTTP.
type poster struct {
	CAFile        string     `koanf:"ca_file" help:"PEM file with the certificate authorities to trust in place of the system's"`
	ServerName    string     `koanf:"server_name" help:"name to ask for in TLS (SNI) and to expect in the certificate; default: the host of the address"`
	Username      string     `koanf:"username" help:"user name for basic authentication"`
	Password      secret.Ref `koanf:"password" help:"password for basic authentication"`
	Token         secret.Ref `koanf:"token" help:"bearer token"`
	Identity      string     `koanf:"identity" help:"name of an identity to send as: client certificates, OAuth 2.0 and whatever else identities can; default: none"`
	Proxy         string     `koanf:"proxy" help:"URL of an HTTP proxy, or env for HTTPS_PROXY and its kin; default: none"`
	ProxyUsername string     `koanf:"proxy_username" help:"user name for the proxy"`
	ProxyPassword secret.Ref `koanf:"proxy_password" help:"password for the proxy"`

	client *http.Client
	proof  Proof
}

func (p *poster) build(env Env) error {
	roots := env.Roots
	if p.CAFile != "" {
		b, err := os.ReadFile(p.CAFile)
		if err != nil {
			return fmt.Errorf("ca_file: %w", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(b) {
			return fmt.Errorf("ca_file: %s holds no certificate in PEM form", p.CAFile)
		}
	}
	ways := 0
	for _, given := range []bool{p.Username != "", !p.Token.IsZero(), p.Identity != ""} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		return errors.New("identity: give one of username, token and identity")
	}
	proxy, err := p.proxy()
	if err != nil {
		return err
	}
	settings := &tls.Config{RootCAs: roots, ServerName: p.ServerName, MinVersion: tls.VersionTLS12}
	if p.Identity != "" {
		if p.proof, err = env.Proof(p.Identity); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
		settings.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c, err := p.proof.ClientCertificate(info.Context()); c != nil || err != nil {
				return c, err
			}
			return &tls.Certificate{}, nil
		}
	}
	p.client = &http.Client{
		Transport:     &http.Transport{DialContext: env.Dial, Proxy: proxy, TLSClientConfig: settings, MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 1},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

func (p *poster) proxy() (func(*http.Request) (*url.URL, error), error) {
	switch p.Proxy {
	case "":
		return nil, nil
	case "env":
		return http.ProxyFromEnvironment, nil
	}
	u, err := url.Parse(p.Proxy)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil {
		return nil, errors.New("proxy: want a URL such as http://proxy.example.com:3128, or env; user and password have keys of their own")
	}
	return func(req *http.Request) (*url.URL, error) {
		with := *u
		if p.ProxyUsername != "" {
			v, err := p.ProxyPassword.Reveal(req.Context())
			if err != nil {
				return nil, fmt.Errorf("proxy_password: %w", err)
			}
			with.User = url.UserPassword(p.ProxyUsername, v.Expose())
		}
		return &with, nil
	}, nil
}

// Close lets go of the connection that is kept.
func (p *poster) Close() error {
	p.client.CloseIdleConnections()
	return nil
}

// A answer is what a receiver said.
type answer struct {
	status      int
	contentType string
	header      http.Header
	body        []byte // cut at maxAnswer
}

// post sends a document. Refusals that sending again will not change wrap ErrPermanent.
func (p *poster) post(ctx context.Context, where string, body []byte, header http.Header) (*answer, error) {
	a, err := p.ask(ctx, http.MethodPost, where, body, header)
	if err != nil {
		return nil, err
	}
	return a, a.verdict(where)
}

// ask sends a request, once more where the identity's protocol wants it.
func (p *poster) ask(ctx context.Context, method, where string, body []byte, header http.Header) (*answer, error) {
	for again := false; ; again = true {
		req, err := http.NewRequestWithContext(ctx, method, where, bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("%w: the address is not usable", ErrPermanent)
		}
		for name, values := range header {
			req.Header[name] = values
		}
		req.Header.Set("User-Agent", "authvigil")
		settle, err := p.prove(ctx, req)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %s", method, req.URL.Host, secret.Scrub(err.Error()))
		}
		a, err := p.do(req)
		if err != nil {
			return nil, err
		}
		if settle == nil || !settle(a.status, a.header) || again {
			return a, nil
		}
	}
}

func (p *poster) prove(ctx context.Context, req *http.Request) (settle func(int, http.Header) bool, err error) {
	switch {
	case p.proof != nil:
		return p.proof.Apply(ctx, req)
	case !p.Token.IsZero():
		v, err := p.Token.Reveal(ctx)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+v.Expose())
	case p.Username != "":
		v, err := p.Password.Reveal(ctx)
		if err != nil {
			return nil, fmt.Errorf("password: %w", err)
		}
		req.SetBasicAuth(p.Username, v.Expose())
	}
	return nil, nil
}

func (p *poster) do(req *http.Request) (*answer, error) {
	r, err := p.client.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) { // its text repeats the URL
			err = wrapped.Err
		}
		return nil, fmt.Errorf("%s %s: %s", req.Method, req.URL.Host, secret.Scrub(err.Error()))
	}
	defer r.Body.Close()
	a := &answer{status: r.StatusCode, contentType: r.Header.Get("Content-Type"), header: r.Header}
	a.body, _ = io.ReadAll(io.LimitReader(r.Body, maxAnswer)) // what is cut off says nothing more
	return a, nil
}

// verdict makes an error of an answer that is no success.
func (a *answer) verdict(where string) error {
	if a.status/100 == 2 {
		return nil
	}
	host := where
	if u, err := url.Parse(where); err == nil {
		host = u.Host
	}
	err := fmt.Errorf("POST %s answered %d", host, a.status)
	if reason := a.reason(); reason != "" {
		err = fmt.Errorf("%w: %s", err, reason)
	}
	switch {
	case a.status == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: %w", err, ErrTooLarge)
	case a.status == http.StatusTooManyRequests, a.status == http.StatusServiceUnavailable:
		return &pauseError{err, a.retryAfter()}
	case a.status >= 500, a.status == http.StatusUnauthorized, a.status == http.StatusForbidden, a.status == http.StatusProxyAuthRequired, a.status == http.StatusRequestTimeout:
		return err
	default:
		return fmt.Errorf("%w: %w", err, ErrPermanent)
	}
}

// reason is why the receiver refused, where it says so in a form made for programs. Pages are not repeated.
func (a *answer) reason() string {
	text := ""
	switch kind, _, _ := strings.Cut(a.contentType, ";"); kind {
	case "text/html":
		return "a web page, so this may be another server, or a login before it"
	case "text/plain":
		text = string(a.body)
	case "application/json":
		var said struct{ Message, Error string }
		if json.Unmarshal(a.body, &text) != nil && json.Unmarshal(a.body, &said) == nil {
			if text = said.Message; text == "" {
				text = said.Error
			}
		}
	}
	text = secret.Scrub(strings.ToValidUTF8(text, "\uFFFD"))
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	return cut(strings.TrimSpace(text), maxReason)
}

// isPage says whether the answer is a web page: no receiver of alerts answers with one.
func (a *answer) isPage() bool {
	return strings.HasPrefix(a.contentType, "text/html") || bytes.HasPrefix(bytes.TrimSpace(bytes.ToLower(a.body[:min(len(a.body), 64)])), []byte("<!doctype html"))
}

func (a *answer) retryAfter() time.Duration {
	text := a.header.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return min(time.Duration(min(n, 1<<20))*time.Second, longestPause)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), longestPause)
	}
	return 0
}

// A pauseError is one after which the receiver wants to be left alone for a while.
type pauseError struct {
	error
	pause time.Duration
}

func (e *pauseError) Unwrap() error { return e.error }

// askedPause is how long the receiver wants to be left alone.
func askedPause(err error) time.Duration {
	if e, ok := errors.AsType[*pauseError](err); ok {
		return e.pause
	}
	return 0
}

// cut shortens a text to n bytes, at a letter.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n-len("…")], "") + "…"
}

// address reads one that alerts are posted to.
func address(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil {
		return nil, errors.New("want an http or https address without user and password")
	}
	return u, nil
}
