package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/authvigil/authvigil/probes/evidence"
)

// TestClient_followsNoRedirect draws chains of redirects over four origins: other hosts, sub-domains, from https to http,
// and back to where it began. The first server is asked once, with the credential, and nobody else at all.
func TestClient_followsNoRedirect(t *testing.T) {
	origins := []string{"http://a.test", "http://evil.test", "http://sub.a.test", "https://a.test"}
	var asked atomic.Int64
	var chain atomic.Pointer[[]string]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		to := *chain.Load()
		w.Header().Set("Location", to[int(n-1)%len(to)])
		w.WriteHeader(map[byte]int{'0': 301, '1': 302, '2': 303, '3': 307}[r.URL.Path[1]])
	}))
	defer server.Close()
	address := server.Listener.Addr().(*net.TCPAddr)
	var dialled atomic.Int64
	n := Net{
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			dialled.Add(1)
			return new(net.Dialer).DialContext(ctx, network, address.String())
		},
	}
	c, err := New(n, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		asked.Store(0)
		dialled.Store(0)
		to := rapid.SliceOfN(rapid.SampledFrom(origins), 1, 5).Draw(t, "chain")
		for i := range to {
			to[i] += "/" + fmt.Sprint(i)
		}
		chain.Store(&to)
		status := rapid.IntRange(0, 3).Draw(t, "status")
		r, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://a.test/%d", status), strings.NewReader("client_secret=x"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Api-Key", "key")
		r.Header.Set("Authorization", "Bearer token")
		a, err := c.Ask(t.Context(), Question{Request: r})
		if err != nil || a.Exchange.Status/100 != 3 || asked.Load() != 1 || dialled.Load() != 1 {
			t.Fatalf("status %d, %v; %d questions, %d connections", a.Exchange.Status, err, asked.Load(), dialled.Load())
		}
	})
}

// TestDialAny_resolvesOnce: a name is resolved once, and what it led to then is what is connected to, so that an answer that
// changes between the look at an address and the connection to it changes nothing.
func TestDialAny_resolvesOnce(t *testing.T) {
	looked, dialled := 0, []string{}
	n := Net{
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			looked++
			if looked == 1 {
				return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("127.0.0.1")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		},
		Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			dialled = append(dialled, address)
			return nil, errors.New("refused")
		},
	}
	_, _, err := DialAny(t.Context(), n, "tcp", "flips.test:443", Public)
	if err == nil || looked != 1 || len(dialled) != 1 || dialled[0] != "192.0.2.1:443" {
		t.Errorf("looked up %d times, connected to %v, error %v", looked, dialled, err)
	}
}

// TestDialAny_forbiddenAddresses: a name that leads to the metadata service of a cloud, or nowhere, is not connected to; an
// address that somebody wrote down is.
func TestDialAny_forbiddenAddresses(t *testing.T) {
	for _, ip := range []string{"169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"} {
		dialled := 0
		n := Net{
			Lookup: func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr(ip)}, nil },
			Dial:   func(context.Context, string, string) (net.Conn, error) { dialled++; return nil, errors.New("refused") },
		}
		_, _, err := DialAny(t.Context(), n, "tcp", "metadata.test:80", nil)
		if f := Classify(t.Context(), evidence.StageConnect, err); f == nil || f.Code != "forbidden_address" || f.Stage != evidence.StageResolve || dialled != 0 {
			t.Errorf("a name that leads to %s: %+v, %d connections", ip, f, dialled)
		}
		if _, _, err := DialAny(t.Context(), n, "tcp", net.JoinHostPort(ip, "80"), nil); err == nil || dialled != 1 {
			t.Errorf("%s itself: %v, %d connections", ip, err, dialled)
		}
	}
}
