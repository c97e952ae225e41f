// Package wire asks one question over HTTP and brings home one exchange: what was sent, how long each stage took, what
// came back and which certificates were shown, whether or not they were acceptable.
//
// Its client does not heal what it measures. It never retries, never follows a redirect, never takes a cookie, never
// falls back to another protocol, and reads no more than it was told to. A credential is only written to a connection
// whose certificate was verified, and only the caller can put one into a request. It is used by everything that speaks
// HTTP to a server under watch: identities that obtain tokens and probes that ask.
package wire

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
)

const (
	// DefaultBody is how much of a body is read unless a question says otherwise: enough for every error document.
	DefaultBody = 64 << 10
	// maxHeader bounds the header of an answer; Go's own limit of 10 MiB costs 100 MB of memory when it is used up.
	maxHeader = 64 << 10
	// keptBody is how much of the body of an unexpected answer is kept as evidence.
	keptBody = 4 << 10
	// maxAddresses bounds how many addresses of one name are tried in turn.
	maxAddresses = 8
)

// Net is the network as the client sees it, so that a sandbox can take its place.
type Net struct {
	// Lookup resolves a name; nil: names are handed to Dial as they are.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dial connects to host:port over tcp or udp.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Roots are the certificate authorities trusted by default; nil: those of the system.
	Roots *x509.CertPool
}

// System is the network of this machine.
func System() Net {
	var d net.Dialer
	return Net{
		Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		Dial: d.DialContext,
	}
}

// Settings are the keys that every kind which speaks HTTP or TLS understands in the same way.
type Settings struct {
	CAFile     string `koanf:"ca_file" help:"PEM file with the certificate authorities to trust in place of the system's"`
	ServerName string `koanf:"server_name" help:"name to ask for in TLS (SNI) and to expect in the certificate; default: the host of the URL"`
	Proxy      string `koanf:"proxy" help:"URL of an HTTP proxy, or env for HTTPS_PROXY and its kin; default: none"`
	HTTP2      bool   `koanf:"http2" help:"offer HTTP/2; default false"`
	Reuse      bool   `koanf:"reuse_connections" help:"keep connections between runs; default false: each run measures a fresh connection"`
}

// A Client asks questions. It may be used concurrently; with reused connections its questions take turns.
type Client struct {
	net      Net
	settings Settings
	roots    *x509.CertPool
	proxy    func(*http.Request) (*url.URL, error)

	mu   sync.Mutex // held during a question when connections are reused
	kept *http.Transport
	at   *trace
}

// New makes a client. It reads the CA file, and does no other I/O.
func New(n Net, s Settings) (*Client, error) {
	c := &Client{net: n, settings: s, roots: n.Roots}
	if s.CAFile != "" {
		pool, err := ReadRoots(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		c.roots = pool
	}
	switch s.Proxy {
	case "":
	case "env":
		c.proxy = http.ProxyFromEnvironment
	default:
		u, err := url.Parse(s.Proxy)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, errors.New("proxy: want a URL such as http://proxy.example.com:3128, or env")
		}
		c.proxy = http.ProxyURL(u)
	}
	return c, nil
}

// ReadRoots reads the certificates of a PEM file into a pool.
func ReadRoots(path string) (*x509.CertPool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 8<<20))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	return pool, nil
}

// Net gives the network and the roots that the client uses, for those who speak something other than HTTP.
func (c *Client) Net() Net {
	n := c.net
	n.Roots = c.roots
	return n
}

// A Question is one request with the limits of its answer.
type Question struct {
	Request     *http.Request
	Stage       evidence.Stage   // token, discovery or api
	Purpose     evidence.Purpose // why it is asked
	Scheme      string           // how the request proves who asks
	Grant       string           // name of the grant used
	MaxBody     int64            // bytes of body to read; 0: DefaultBody
	Expected    func(status int) bool
	Certificate func(ctx context.Context) (*tls.Certificate, error) // client certificate; nil: none
	Guard       func(netip.Addr) error                              // refuses addresses, for URLs that a server supplied
}

// An Answer is what came back. Exchange and Chain are filled as far as things got, also when there is an error.
type Answer struct {
	Exchange evidence.Exchange
	Header   http.Header
	Body     []byte // at most MaxBody bytes, decompressed
	Chain    *evidence.Chain
}

// Ask sends the question and reads the answer. The error is an *evidence.Fault and stands in the exchange too; an answer
// of any status is no error.
func (c *Client) Ask(ctx context.Context, q Question) (Answer, error) {
	at := &trace{guard: q.Guard, certificate: q.Certificate}
	transport := c.transport(at)
	if c.settings.Reuse {
		c.mu.Lock()
		defer c.mu.Unlock()
		transport = c.keptTransport(at)
	} else {
		defer transport.CloseIdleConnections()
	}
	x := evidence.Exchange{
		Stage: q.Stage, Purpose: q.Purpose, Method: q.Request.Method, URL: secret.Scrub(ShowURL(q.Request.URL)),
		Scheme: q.Scheme, Grant: q.Grant, Started: time.Now(), Unencrypted: q.Request.URL.Scheme == "http",
	}
	response, err := transport.RoundTrip(q.Request.WithContext(ctx))
	first := time.Now()
	a := Answer{}
	if err == nil {
		a.Header = response.Header
		x.Status, x.Proto = response.StatusCode, response.Proto
		a.Body, x.BodyCut, err = readBody(response, max(q.MaxBody, 0))
		x.BodyBytes = int64(len(a.Body))
		for name, values := range response.Trailer { // gRPC says there how it went
			if a.Header.Get(name) == "" && len(values) > 0 {
				a.Header[name] = values
			}
		}
		x.Timing.Body = time.Since(first)
		x.RetryAfter = evidence.RetryAfter(response.Header.Get("Retry-After"), response.Header.Get("Date"), first)
		if q.Expected == nil || !q.Expected(response.StatusCode) {
			x.Header = keepHeader(response.Header)
			x.Body = ShowBody(a.Body)
		}
	}
	x.Took = time.Since(x.Started)
	var stage evidence.Stage
	var sent time.Time
	a.Chain, stage, sent = at.fill(&x, first, q.Request.URL.Scheme == "https")
	if x.Status != 0 {
		x.Date = evidence.SampleDate(x.Status, a.Header, sent, first)
	}
	if err != nil {
		fault := Classify(ctx, stage, err)
		x.Fault = fault
		a.Exchange = x
		return a, fault
	}
	a.Exchange = x
	return a, nil
}

func (c *Client) keptTransport(at *trace) *http.Transport {
	if c.kept == nil {
		c.kept = c.transport(nil)
	}
	c.at = at
	return c.kept
}

// transport makes a transport for one question, or, without a trace, one that is kept and asks c.at.
func (c *Client) transport(at *trace) *http.Transport {
	now := func() *trace {
		if at != nil {
			return at
		}
		return c.at
	}
	t := &http.Transport{
		Proxy:                  c.proxy,
		DisableCompression:     true,
		DisableKeepAlives:      at != nil,
		MaxResponseHeaderBytes: maxHeader,
		ForceAttemptHTTP2:      c.settings.HTTP2,
		IdleConnTimeout:        5 * time.Minute,
		WriteBufferSize:        1 << 10, // a request is small
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.dial(ctx, network, address, now())
		},
		TLSClientConfig: c.tlsConfig(c.settings.ServerName, now),
	}
	return t
}

// tlsConfig verifies by itself, so that the chain is known also when it is not acceptable: Go's own verification keeps
// it back, and names only the first defect.
func (c *Client) tlsConfig(name string, now func() *trace) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         name,
		InsecureSkipVerify: true, // #nosec G402 -- VerifyConnection below verifies, and keeps the chain
		VerifyConnection: func(s tls.ConnectionState) error {
			return now().verify(s, c.roots)
		},
		GetClientCertificate: func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return now().clientCertificate(info.Context())
		},
	}
}

func (c *Client) dial(ctx context.Context, network, address string, at *trace) (net.Conn, error) {
	conn, took, err := DialAny(ctx, c.net, network, address, at.guard)
	remote := ""
	if err == nil && conn.RemoteAddr() != nil {
		remote = conn.RemoteAddr().String()
	}
	at.connected(took, remote, err == nil)
	return conn, err
}

// Dialled says how long the parts of a connection took.
type Dialled struct {
	Resolve, Connect time.Duration
	Resolved         bool // the name was resolved, so that an error is one of the connection
}

// DialAny resolves the host of address and connects to its addresses in turn, without the fallback races of net.Dialer,
// which hide an address family that is broken. guard may refuse addresses.
func DialAny(ctx context.Context, n Net, network, address string, guard func(netip.Addr) error) (net.Conn, Dialled, error) {
	var took Dialled
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, took, err
	}
	if n.Lookup == nil {
		took.Resolved = true
		start := time.Now()
		conn, err := n.Dial(ctx, network, address)
		took.Connect = time.Since(start)
		var dns *net.DNSError
		took.Resolved = !errors.As(err, &dns)
		return conn, took, err
	}
	var addresses []netip.Addr
	named := false
	if ip, err := netip.ParseAddr(host); err == nil {
		addresses = []netip.Addr{ip}
	} else {
		named = true
		start := time.Now()
		addresses, err = n.Lookup(ctx, host)
		took.Resolve = time.Since(start)
		if err != nil {
			return nil, took, err
		}
	}
	took.Resolved = true
	if len(addresses) == 0 {
		return nil, took, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	start := time.Now()
	var errs []error
	for _, ip := range addresses[:min(len(addresses), maxAddresses)] {
		ip = ip.Unmap()
		if err := nameMayLeadTo(ip); named && err != nil {
			errs = append(errs, err)
			continue
		}
		if guard != nil {
			if err := guard(ip); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		conn, err := n.Dial(ctx, network, net.JoinHostPort(ip.String(), port))
		if err == nil {
			took.Connect = time.Since(start)
			return conn, took, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	took.Connect = time.Since(start)
	return nil, took, errors.Join(errs...)
}

// Public refuses addresses that a URL supplied by a server must not lead to: this machine, private networks, link-local
// addresses (cloud metadata) and multicast.
func Public(ip netip.Addr) error {
	if ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		return fmt.Errorf("address %s is not public, and a server's word must not lead there", ip)
	}
	return nil
}

// nameMayLeadTo refuses addresses that no name of a server has, so that whoever answers for a name cannot have a credential
// shown to the metadata service of a cloud. Who means such an address writes it down.
func nameMayLeadTo(ip netip.Addr) error {
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		return &evidence.Fault{Stage: evidence.StageResolve, Symptom: evidence.SymptomDNS, Code: "forbidden_address", Err: fmt.Errorf("the name leads to %s, which is no address of a server", ip)}
	}
	return nil
}

// readBody reads at most limit bytes, also after decompression: a declared length is not believed.
func readBody(r *http.Response, limit int64) (body []byte, cut bool, err error) {
	defer r.Body.Close()
	if limit == 0 {
		limit = DefaultBody
	}
	var from io.Reader = r.Body
	if strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		unzip, err := gzip.NewReader(io.LimitReader(r.Body, limit))
		if err != nil {
			return nil, false, &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomBadAnswer, Code: "gzip", Err: errors.New("the body is declared as gzip and is not")}
		}
		from = unzip
	}
	var buffer bytes.Buffer
	n, err := io.Copy(&buffer, io.LimitReader(from, limit+1))
	if n > limit {
		return buffer.Bytes()[:limit], true, nil
	}
	if err != nil && n > 0 && r.Header.Get("Content-Encoding") != "" {
		return buffer.Bytes(), true, nil // the limit cut the compressed stream
	}
	return buffer.Bytes(), false, err
}

// keptHeaders are those that help to find a cause. Set-Cookie is only noted by name, in keepHeader.
var keptHeaders = []string{
	"Www-Authenticate", "Proxy-Authenticate", "Content-Type", "Date", "Age", "Server", "Via", "Location", "Retry-After",
	"X-Cache", "Cf-Ray", "Cf-Mitigated", "X-Amzn-Errortype", "X-Amz-Cf-Id", "X-Ms-Diagnostics", "Dpop-Nonce", "X-Request-Id",
	"Ratelimit", "Ratelimit-Policy", "Ratelimit-Limit", "Ratelimit-Remaining", "Ratelimit-Reset",
	"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset", "X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset",
	"Grpc-Status", "Grpc-Message", "Github-Authentication-Token-Expiration", "X-Oauth-Scopes", "X-Accepted-Oauth-Scopes",
	"X-Error", "X-Error-Code", "X-Error-Message", "X-Auth-Error", "X-Okta-Request-Id", "X-Github-Sso", "X-Powered-By", "Warning", "Allow", "Cache-Control",
	"X-Error-Detail", "X-Error-Description", "X-Error-Detail-Header", "X-Reason", "X-Mashery-Error-Code", "X-Ms-Error-Code", "X-Amz-Error-Code", "X-Databricks-Reason-Phrase", "X-Authentication-Denied-Reason", "X-Seraph-Loginreason",
}

// keepHeader copies what helps, cleaned and short.
func keepHeader(h http.Header) map[string][]string {
	kept := make(map[string][]string, 8)
	for _, name := range keptHeaders {
		for _, value := range h[name] {
			if len(kept[name]) < 8 {
				kept[name] = append(kept[name], secret.Scrub(evidence.Clean(value, 2048)))
			}
		}
	}
	if location := kept["Location"]; len(location) > 0 {
		if u, err := url.Parse(h.Get("Location")); err == nil {
			kept["Location"] = []string{secret.Scrub(ShowURL(u))}
		}
	}
	for _, cookie := range h["Set-Cookie"] {
		name, _, _ := strings.Cut(cookie, "=")
		kept["Set-Cookie"] = append(kept["Set-Cookie"], secret.Scrub(evidence.Clean(name, 64))+"=…")
		if len(kept["Set-Cookie"]) == 8 {
			break
		}
	}
	return kept
}

// ShowURL gives a URL as it may be shown: no user info, no fragment, query values replaced.
func ShowURL(u *url.URL) string {
	if u == nil {
		return ""
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath, Opaque: u.Opaque}
	text := evidence.Clean(shown.String(), 512)
	for i, part := range strings.Split(u.RawQuery, "&") {
		if part == "" || i == 16 {
			break
		}
		if i == 0 {
			text += "?"
		} else {
			text += "&"
		}
		key, _, _ := strings.Cut(part, "=")
		text += evidence.Clean(key, 64) + "=…"
	}
	return text
}

// ShowEndpoint gives a URL as a label value: host and path, nothing else.
func ShowEndpoint(u *url.URL) string {
	if u == nil {
		return ""
	}
	return secret.Scrub(evidence.Clean(u.Host+u.EscapedPath(), 256))
}

// Origin is scheme://host:port of a URL, with the port always written, in lower case.
func Origin(u *url.URL) string {
	if u == nil || u.Host == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return strings.ToLower(u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port))
}

// KeepHeader gives the header fields of an answer that help to find a cause, for answers of an expected status that turn out
// not to be right.
func KeepHeader(h http.Header) map[string][]string { return keepHeader(h) }

// ShowBody gives the beginning of a body as it may be shown.
func ShowBody(body []byte) string {
	return secret.Scrub(evidence.Clean(string(body[:min(len(body), keptBody)]), keptBody))
}
