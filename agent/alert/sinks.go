package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
)

// Env is what a sink may touch.
type Env struct {
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	Roots *x509.CertPool // nil: the system's
}

// sinks is the table of kinds. A kind gives one Sink for each instance of its receiver: all are told, each at its own pace.
var sinks = map[string]func(decode func(any) error, env Env) ([]Sink, error){
	"alertmanager": newAlertmanager,
	"webhook":      newWebhook,
}

// Kinds lists the kinds of sinks, sorted.
func Kinds() []string {
	var names []string
	for name := range sinks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// NewSink makes the sinks of a section. It does no I/O but reading a CA file.
func NewSink(kind string, decode func(any) error, env Env) ([]Sink, error) {
	build, ok := sinks[kind]
	if !ok {
		return nil, fmt.Errorf("unknown kind %q; there are %s", kind, strings.Join(Kinds(), ", "))
	}
	return build(decode, env)
}

// poster are the keys of every sink that posts over HTTP.
type poster struct {
	CAFile   string     `koanf:"ca_file" help:"PEM file with the certificate authorities to trust in place of the system's"`
	Username string     `koanf:"username" help:"user name for basic authentication"`
	Password secret.Ref `koanf:"password" help:"password for basic authentication"`
	Token    secret.Ref `koanf:"token" help:"bearer token"`

	client *http.Client
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
	p.client = &http.Client{
		Transport:     &http.Transport{DialContext: env.Dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 1},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// post sends a document. Refusals that sending again will not change wrap ErrPermanent.
func (p *poster) post(ctx context.Context, where string, body []byte, header http.Header) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, where, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPermanent, err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "authvigil")
	switch {
	case !p.Token.IsZero():
		v, err := p.Token.Reveal(ctx)
		if err != nil {
			return fmt.Errorf("token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+v.Expose())
	case p.Username != "":
		v, err := p.Password.Reveal(ctx)
		if err != nil {
			return fmt.Errorf("password: %w", err)
		}
		req.SetBasicAuth(p.Username, v.Expose())
	}
	r, err := p.client.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) { // its text repeats the URL
			err = wrapped.Err
		}
		return fmt.Errorf("POST %s: %s", req.URL.Host, secret.Scrub(err.Error()))
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 64<<10)) // so that the connection can be used again
	switch {
	case r.StatusCode/100 == 2:
		return nil
	case r.StatusCode == http.StatusTooManyRequests || r.StatusCode >= 500 || r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusForbidden || r.StatusCode == http.StatusRequestTimeout:
		return fmt.Errorf("POST %s answered %d", req.URL.Host, r.StatusCode)
	default:
		return fmt.Errorf("POST %s answered %d: %w", req.URL.Host, r.StatusCode, ErrPermanent)
	}
}

// alertmanager posts to the v2 API of one Alertmanager. All instances of a cluster are told, without a load balancer.
type alertmanager struct {
	URLs   []string `koanf:"urls" help:"addresses of all Alertmanagers of the cluster; required"`
	poster `koanf:",squash"`
}

func newAlertmanager(decode func(any) error, env Env) ([]Sink, error) {
	a := &alertmanager{}
	if err := decode(a); err != nil {
		return nil, err
	}
	if len(a.URLs) == 0 {
		return nil, errors.New("urls: is missing")
	}
	var list []Sink
	var errs []error
	for _, text := range a.URLs {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil {
			errs = append(errs, errors.New("urls: want addresses such as http://am1.example.com:9093"))
			continue
		}
		p := a.poster
		if err := p.build(env); err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, &instance{poster: p, where: u.JoinPath("api/v2/alerts").String()})
	}
	return list, errors.Join(errs...)
}

type instance struct {
	poster
	where string
}

// posted is an alert as the v2 API takes it.
type posted struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
	Generator   string            `json:"generatorURL,omitempty"`
}

func (i *instance) Send(ctx context.Context, batch []Notice) error {
	list := make([]posted, len(batch))
	for k, n := range batch {
		list[k] = postedOf(n)
	}
	body, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPermanent, err)
	}
	return i.post(ctx, i.where, body, nil)
}

func postedOf(n Notice) posted {
	p := posted{Labels: map[string]string{"alertname": n.Name, "severity": string(n.Severity), "culprit": n.Culprit}, Annotations: map[string]string{"summary": n.Summary}, StartsAt: n.StartsAt.UTC(), EndsAt: n.EndsAt.UTC()}
	for name, value := range n.Labels {
		p.Labels[name] = value
	}
	for name, value := range n.Details {
		if name == "generator_url" {
			p.Generator = value
			continue
		}
		p.Annotations[name] = value
	}
	return p
}

// webhook posts a JSON document, signed when it has a key: X-Authvigil-Signature is sha256= and the HMAC, in hexadecimal,
// over X-Authvigil-Timestamp, a full stop and the body.
type webhook struct {
	URL    string     `koanf:"url" help:"address to post to; required"`
	Key    secret.Ref `koanf:"signing_key" help:"key of the HMAC-SHA256 over time and body"`
	poster `koanf:",squash"`
}

func newWebhook(decode func(any) error, env Env) ([]Sink, error) {
	w := &webhook{}
	if err := decode(w); err != nil {
		return nil, err
	}
	if u, err := url.Parse(w.URL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("url: want an http or https address")
	}
	if err := w.build(env); err != nil {
		return nil, err
	}
	return []Sink{w}, nil
}

func (w *webhook) Send(ctx context.Context, batch []Notice) error {
	type item struct {
		posted
		Status string `json:"status"`
	}
	document := struct {
		Version int    `json:"version"`
		Alerts  []item `json:"alerts"`
	}{Version: 1}
	for _, n := range batch {
		status := "firing"
		if n.Resolved {
			status = "resolved"
		}
		document.Alerts = append(document.Alerts, item{postedOf(n), status})
	}
	body, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPermanent, err)
	}
	header := http.Header{}
	if !w.Key.IsZero() {
		key, err := w.Key.Reveal(ctx)
		if err != nil {
			return fmt.Errorf("signing_key: %w", err)
		}
		now := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, []byte(key.Expose()))
		mac.Write([]byte(now + "."))
		mac.Write(body)
		header.Set("X-Authvigil-Timestamp", now)
		header.Set("X-Authvigil-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	return w.post(ctx, w.URL, body, header)
}

// close lets go of the connection that is kept.
func (p *poster) close() { p.client.CloseIdleConnections() }
