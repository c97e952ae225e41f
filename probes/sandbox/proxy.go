package sandbox

import (
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"sync"
)

// The login at the proxy, where it wants one.
const (
	ProxyUser     = "proxy-user"
	ProxyPassword = "proxy-password-Ug3oEl8jPw"
)

// A Proxy is an HTTP proxy at http://proxy.example.test:3128 that takes CONNECT to the hosts of the World (RFC 9110 section
// 9.3.6).
type Proxy struct {
	host *Host

	mu     sync.Mutex // owns what follows
	faults ProxyFaults
}

// ProxyFaults are what can go wrong at the proxy. The zero value is one in good health.
type ProxyFaults struct {
	Faults

	// RequireLogin answers 407 to who does not show ProxyUser and ProxyPassword.
	RequireLogin bool
	// Forbid answers 403 to every CONNECT, as by a rule.
	Forbid bool
}

func newProxy(w *World) *Proxy {
	p := &Proxy{}
	p.host = w.Serve("http://"+ProxyHost+":3128", http.HandlerFunc(p.serveHTTP))
	return p
}

// Set changes what is wrong with the proxy.
func (p *Proxy) Set(change func(f *ProxyFaults)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.host.Set(func(common *Faults) {
		p.faults.Faults = *common
		change(&p.faults)
		*common = p.faults.Faults
	})
}

// Reset takes all faults away.
func (p *Proxy) Reset() { p.Set(func(f *ProxyFaults) { *f = ProxyFaults{} }) }

// Faults gives a copy of what is wrong at present.
func (p *Proxy) Faults() ProxyFaults {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.faults
	f.Faults = p.host.Faults()
	return f
}

func (p *Proxy) serveHTTP(rw http.ResponseWriter, r *http.Request) {
	f := p.Faults()
	login := "Basic " + base64.StdEncoding.EncodeToString([]byte(ProxyUser+":"+ProxyPassword))
	switch {
	case r.Method != http.MethodConnect:
		http.Error(rw, "only CONNECT is offered", http.StatusMethodNotAllowed)
	case f.RequireLogin && r.Header.Get("Proxy-Authorization") != login:
		rw.Header().Set("Proxy-Authenticate", `Basic realm="proxy"`)
		http.Error(rw, "Proxy Authentication Required", http.StatusProxyAuthRequired)
	case f.Forbid:
		http.Error(rw, "this address is not allowed", http.StatusForbidden)
	default:
		up, err := p.host.w.Dial(r.Context(), "tcp", r.Host)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		down := hijack(rw)
		_, _ = io.WriteString(down, "HTTP/1.1 200 Connection established\r\n\r\n")
		p.host.w.couple(down, up)
	}
}

// couple carries bytes both ways until both ends have ended, or the World is closed.
func (w *World) couple(a, b net.Conn) {
	defer a.Close()
	defer b.Close()
	stop := context.AfterFunc(w.ctx, func() { _ = a.Close(); _ = b.Close() })
	defer stop()
	var both sync.WaitGroup
	carry := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}
	both.Go(func() { carry(a, b) })
	both.Go(func() { carry(b, a) })
	both.Wait()
}
