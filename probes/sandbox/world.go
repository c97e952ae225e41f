package sandbox

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Names of the hosts that every World has.
const (
	AuthHost    = "auth.example.test"    // the identity provider, https
	APIHost     = "api.example.test"     // the API, https; http on port 80 redirects there
	PartnerHost = "partner.example.test" // the same API under another name, so that it can fail alone
	MTLSHost    = "mtls.example.test"    // the same API, where a client certificate is required
	PKIHost     = "pki.example.test"     // CRL, OCSP and issuer certificates, http
	EvilHost    = "evil.example.test"    // a stranger, http and https: accepts everything and remembers it
	ProxyHost   = "proxy.example.test"   // an HTTP proxy on port 3128
	NTPHost1    = "ntp1.example.test"    // time servers, udp port 123
	NTPHost2    = "ntp2.example.test"
	NTPHost3    = "ntp3.example.test"
)

// A World is a small internet. It is safe for concurrent use. Close it when done.
type World struct {
	IdP   *IdP
	API   *API
	Proxy *Proxy

	ca      *authority
	seen    *seen
	server  *http.Server
	accept  chan net.Conn // to server
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex // owns what follows
	hosts    map[string]*Host
	byIP     map[netip.Addr]*Host
	clocks   map[string]*TimeServer
	ports    int // last port given to a client
	loopback bool
	closed   bool
	closers  []io.Closer
}

// New makes a World in memory. Inside a bubble of testing/synctest it must be made, used and closed in the bubble.
func New() *World {
	w := &World{hosts: map[string]*Host{}, byIP: map[netip.Addr]*Host{}, clocks: map[string]*TimeServer{}, accept: make(chan net.Conn), ports: 40000, seen: newSeen()}
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.ca = newAuthority(time.Now())
	w.server = &http.Server{
		Handler:     http.HandlerFunc(w.serveHTTP),
		ErrorLog:    log.New(io.Discard, "", 0),
		ConnContext: withServed,
		ConnState: func(_ net.Conn, now http.ConnState) {
			if now == http.StateClosed || now == http.StateHijacked {
				w.running.Done() // added in handle
			}
		},
	}
	w.running.Go(func() { _ = w.server.Serve(listener{w}) })

	w.IdP = newIdP(w)
	w.API = newAPI(w)
	w.Proxy = newProxy(w)
	evil := http.HandlerFunc(w.serveEvil)
	w.Serve("https://"+EvilHost, evil)
	w.Serve("http://"+EvilHost, evil)
	w.Serve("http://"+PKIHost, http.HandlerFunc(w.servePKI))
	for _, name := range []string{NTPHost1, NTPHost2, NTPHost3} {
		w.ServeNTP(name)
	}
	return w
}

// Close ends all connections and waits until nothing of the World runs any more.
func (w *World) Close() {
	w.mu.Lock()
	w.closed = true
	closers := w.closers
	w.closers = nil
	w.mu.Unlock()
	w.stop()
	_ = w.server.Close()
	for _, c := range closers {
		_ = c.Close()
	}
	w.running.Wait()
}

// Roots gives the certificate authorities to trust in this World.
func (w *World) Roots() *x509.CertPool { return w.ca.roots() }

// RootsPEM gives the same as a file, for `ca_file` and for programs other than this one.
func (w *World) RootsPEM() []byte { return pemOf("CERTIFICATE", w.ca.root.cert.Raw) }

// Serve adds a server at a URL of scheme http or https, such as "https://vault.example.test:8200". Its handler may be any;
// its name gets an address and a certificate. A server that stood there is replaced.
func (w *World) Serve(at string, h http.Handler) *Host {
	u, err := url.Parse(at)
	if err != nil || u.Hostname() == "" {
		panic(fmt.Sprintf("sandbox: Serve: %q is no URL", at))
	}
	port := map[string]string{"https": "443", "http": "80"}[u.Scheme]
	if u.Port() != "" {
		port = u.Port()
	}
	return w.add(u.Hostname(), "tcp/"+port, &service{tls: u.Scheme == "https", handler: h})
}

// ServeConn adds a server at host:port over TCP that speaks what serve wants. The connection is closed when serve returns.
func (w *World) ServeConn(address string, serve func(ctx context.Context, c net.Conn)) *Host {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		panic("sandbox: ServeConn: " + err.Error())
	}
	return w.add(host, "tcp/"+port, &service{raw: serve})
}

func (w *World) add(name, port string, s *service) *Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hosts[name]
	if h == nil {
		n := len(w.hosts) + 10
		h = &Host{Name: name, IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), w: w, services: map[string]*service{}}
		w.hosts[name] = h
		w.byIP[h.IP] = h
	}
	s.host = h
	h.services[port] = s
	if w.loopback {
		if err := w.open(port, s); err != nil {
			panic("sandbox: " + err.Error())
		}
	}
	return h
}

// Host gives a host by its name. It panics when there is none, as it is asked for names that the caller writes down.
func (w *World) Host(name string) *Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hosts[name]
	if h == nil {
		panic("sandbox: there is no host " + name)
	}
	return h
}

// Lookup resolves an invented name, as net.Resolver.LookupNetIP.
func (w *World) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	w.mu.Lock()
	h := w.hosts[name]
	w.mu.Unlock()
	line := NoSuchName
	if h != nil {
		line = h.Faults().Line
	}
	failed := &net.DNSError{Name: name, Server: "192.0.2.53:53"}
	switch line {
	case NoSuchName:
		failed.Err, failed.IsNotFound = "no such host", true
	case NameServerDown:
		failed.Err, failed.IsTemporary = "server misbehaving", true
	case NameServerSilent:
		select {
		case <-ctx.Done():
		case <-w.ctx.Done(): // net/http goes on dialling when nobody waits any more
		case <-time.After(10 * time.Second): // a resolver's own patience
		}
		failed.Err, failed.IsTimeout, failed.IsTemporary = "i/o timeout", true, true
	default:
		return []netip.Addr{h.IP}, nil
	}
	return nil, failed
}

// Dial connects to host:port over tcp or udp, where host is an invented name or its address. It fails as net.Dialer does.
func (w *World) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, remote, err := w.dial(ctx, network, address)
	if err != nil {
		op := &net.OpError{Op: "dial", Net: network, Err: err}
		if remote != nil {
			op.Addr = remote
		}
		return nil, op
	}
	return c, nil
}

func (w *World) dial(ctx context.Context, network, address string) (net.Conn, net.Addr, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, dialContextError(err)
	}
	kind := strings.TrimRight(network, "46")
	if kind != "tcp" && kind != "udp" {
		return nil, nil, net.UnknownNetworkError(network)
	}
	name, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, nil, &net.AddrError{Err: "unknown port", Addr: address}
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		found, err := w.Lookup(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		ip = found[0]
	}
	ip = ip.Unmap()
	w.mu.Lock()
	h, loopback := w.byIP[ip], w.loopback
	w.ports++
	local := addrOf(kind, netip.AddrFrom4([4]byte{198, 51, 100, 7}), 40000+(w.ports-40000)%20000)
	w.mu.Unlock()
	remote := addrOf(kind, ip, port)
	if h == nil {
		if loopback && ip.IsLoopback() {
			var d net.Dialer
			c, err := d.DialContext(ctx, network, address)
			return c, nil, err
		}
		if ip.IsLoopback() {
			return nil, remote, os.NewSyscallError("connect", syscall.ECONNREFUSED)
		}
		return nil, remote, os.NewSyscallError("connect", syscall.EHOSTUNREACH)
	}
	w.seen.dialled(h.Name)
	s := h.service(kind + "/" + portText)
	line := h.Faults().Line
	switch {
	case line == BlackHole && kind == "tcp":
		select {
		case <-ctx.Done():
			return nil, remote, dialContextError(ctx.Err())
		case <-w.ctx.Done():
			return nil, remote, net.ErrClosed
		case <-time.After(127 * time.Second): // six repeats of a SYN
			return nil, remote, os.NewSyscallError("connect", syscall.ETIMEDOUT)
		}
	case line == Unreachable:
		return nil, remote, os.NewSyscallError("connect", syscall.EHOSTUNREACH)
	case s == nil || line == Refused:
		if kind == "udp" { // the refusal of a packet is told to the next read
			client, _ := newConnPair(kind, local, remote)
			client.in.leave(nil, syscall.ECONNREFUSED)
			return client, remote, nil
		}
		return nil, remote, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	if loopback {
		var d net.Dialer
		c, err := d.DialContext(ctx, kind, s.address)
		return c, remote, err
	}
	client, server := newConnPair(kind, local, remote)
	if !w.run(func() { w.handle(&served{Conn: server, service: s}) }) {
		return nil, remote, os.NewSyscallError("connect", syscall.ENETDOWN)
	}
	return client, remote, nil
}

// run starts a goroutine that Close waits for, unless the World is closed.
func (w *World) run(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.running.Go(f)
	}
	return !w.closed
}

// dialContextError is what net.Dialer says when a context ends.
func dialContextError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return os.ErrDeadlineExceeded // "i/o timeout"
	}
	return errors.New("operation was canceled")
}

func addrOf(kind string, ip netip.Addr, port int) net.Addr {
	at := netip.AddrPortFrom(ip, uint16(port))
	if kind == "udp" {
		return net.UDPAddrFromAddrPort(at)
	}
	return net.TCPAddrFromAddrPort(at)
}

// handle serves one connection.
func (w *World) handle(c *served) {
	own := true
	defer func() {
		if own {
			_ = c.Close()
		}
	}()
	stop := context.AfterFunc(w.ctx, func() { _ = c.Close() })
	defer stop()
	if c.service.packets != nil {
		w.servePackets(c)
		return
	}
	switch c.service.host.Faults().Line {
	case AcceptsOnly:
		_, _ = io.Copy(io.Discard, c)
		return
	case HangsUp:
		return
	case Resets:
		abort(c)
		return
	case SpeaksOther:
		_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n")
		_, _ = io.Copy(io.Discard, io.LimitReader(c, 1))
		return
	}
	switch {
	case c.service.raw != nil:
		c.service.raw(w.ctx, c)
	default:
		var conn net.Conn = c
		if c.service.tls {
			conn = tls.Server(c, &tls.Config{GetConfigForClient: c.service.host.tlsConfig})
		}
		w.running.Add(1)
		select {
		case w.accept <- conn:
			own = false
		case <-w.ctx.Done():
			w.running.Done()
		}
	}
}

// A served connection knows which service it leads to.
type served struct {
	net.Conn
	service *service
}

type servedKey struct{}

// underTLS gives the connection that carries the TLS one, if it is one.
func underTLS(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

func withServed(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, servedKey{}, underTLS(c))
}

// CloseWrite ends the direction away from the server.
func (s *served) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// abort ends a connection by a reset.
func abort(c net.Conn) {
	c = underTLS(c)
	if s, ok := c.(*served); ok {
		c = s.Conn
	}
	switch c := c.(type) {
	case *conn:
		c.reset()
	case *net.TCPConn:
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

// A listener hands connections to the HTTP server.
type listener struct{ w *World }

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.w.accept:
		return c, nil
	case <-l.w.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error   { return nil }
func (l listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} }
