//go:build integration

package integration

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/exporters"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

// nightConfig is what is watched on the pages of which pictures are taken: two teams, one issuer, one partner.
func nightConfig(partner string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
[defaults]
every = "1m"
[identity.billing]
kind = "oauth2"
issuer = "https://auth.example.test"
client_id = %q
client_secret = "plain:%s"
audience = "https://api.example.test"
[identity.orders]
kind = "oauth2"
token_url = "https://auth.example.test/token"
client_id = %q
client_secret = "plain:%s"
[identity.partner]
kind = "bearer"
token = "plain:%s"
[identity.key]
kind = "api_key"
key = "plain:%s"
[identity.legacy]
kind = "basic"
username = %q
password = "plain:%s"
`, sandbox.ClientID, sandbox.ClientSecret, sandbox.OrdersID, sandbox.OrdersSecret, partner, sandbox.APIKey, sandbox.User, sandbox.Password)
	probe := func(name, owner, text string) {
		fmt.Fprintf(&b, "[probe.%s]\n%s\nlabels = { owner = %q }\n", name, text, owner)
	}
	for _, path := range []string{"carts", "invoices", "orders", "payouts", "prices", "refunds", "shipments", "vouchers"} {
		probe(path, "payments", fmt.Sprintf("kind = \"http\"\nurl = \"https://api.example.test/v2/orders?of=%s\"\nidentity = \"orders\"", path))
	}
	probe("orders-token", "payments", "kind = \"token\"\nidentity = \"orders\"")
	probe("devices", "fleet", "kind = \"http\"\nurl = \"https://api.example.test/v2/devices\"\nidentity = \"billing\"")
	probe("devices-closed", "fleet", "kind = \"http\"\nurl = \"https://api.example.test/v2/devices\"\nexpect = \"deny\"")
	probe("partner", "partners", "kind = \"http\"\nurl = \"https://partner.example.test/v2/orders\"\nidentity = \"partner\"")
	probe("partner-certificate", "partners", "kind = \"certificate\"\naddress = \"partner.example.test:443\"")
	probe("reports", "partners", "kind = \"http\"\nurl = \"https://api.example.test/key\"\nidentity = \"key\"")
	probe("legacy", "fleet", "kind = \"http\"\nurl = \"https://api.example.test/basic\"\nidentity = \"legacy\"")
	probe("api-certificate", "fleet", "kind = \"certificate\"\naddress = \"api.example.test:443\"")
	probe("clock", "platform", "kind = \"ntp\"\nservers = [\"ntp1.example.test\", \"ntp2.example.test\", \"ntp3.example.test\"]")
	return b.String()
}

// night is when the pictures are taken.
var night = time.Date(2026, 11, 28, 2, 20, 0, 0, time.UTC)

// nightPages lets a daemon of one piece live through a quiet half hour and twelve bad minutes, in virtual time and in a
// sandbox, and gives its pages as they are before and after, by path. They come out the same each time.
func nightPages(t *testing.T) (healthy, failing map[string]saved) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(night))
		world := sandbox.New()
		defer world.Close()
		for host, delay := range map[string]time.Duration{sandbox.APIHost: 34 * time.Millisecond, sandbox.PartnerHost: 61 * time.Millisecond, sandbox.AuthHost: 87 * time.Millisecond} {
			world.Host(host).Set(func(f *sandbox.Faults) { f.Delay = delay })
		}
		c, err := agent.Parse("night", nightConfig(world.IdP.Mint(sandbox.PartnerID, nil)))
		if err != nil {
			t.Fatal(err)
		}
		var ag *agent.Agent
		health := func() agent.Health { return ag.Health() }
		status, metrics := exporters.NewStatus(time.Now()), exporters.NewPrometheus("1.0.0", "", "", health)
		env := agent.Env{Net: wire.Net{Lookup: world.Lookup, Dial: world.Dial, Roots: world.Roots()}, Jitter: func() float64 { return 0.5 }, Log: slog.New(slog.DiscardHandler)}
		if ag, err = agent.New(c, env, status, metrics); err != nil {
			t.Fatal(err)
		}
		status.Start(ag.Planned())
		web := &exporters.Web{Status: status, Prometheus: metrics, Version: "1.0.0", Ready: func() bool { return true }}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- ag.Run(ctx) }()
		time.Sleep(40*time.Minute + 7*time.Second)
		healthy = pagesOf(t, web, "orders", "partner-certificate", "clock")
		world.IdP.Set(func(f *sandbox.IdPFaults) {
			f.Answer, f.Only = sandbox.Status(http.StatusServiceUnavailable), []string{"/token"}
		})
		world.API.Set(func(f *sandbox.APIFaults) { f.WantScope = "devices:own" })
		world.Host(sandbox.PartnerHost).Set(func(f *sandbox.Faults) {
			f.Certificate = sandbox.Certificate{NotBefore: time.Now().Add(-88 * 24 * time.Hour), NotAfter: time.Now().Add(51 * time.Hour)}
		})
		time.Sleep(12 * time.Minute)
		failing = pagesOf(t, web, "orders", "devices", "partner-certificate", "clock")
		stop()
		<-ended
	})
	return healthy, failing
}

// A saved page is what was answered, to be shown later.
type saved struct {
	header http.Header
	body   []byte
}

// pagesOf renders the pages that there are, and what they refer to.
func pagesOf(t *testing.T, web *exporters.Web, probes ...string) map[string]saved {
	paths := []string{"/", "/page.css", "/refresh.js", "/good.svg", "/bad.svg", "/runbooks/", "/runbooks/idp_unavailable", "/?state=failing", "/?q=partner"}
	for _, name := range probes {
		paths = append(paths, "/probes/"+name)
	}
	handler, pages := web.Handler(), map[string]saved{}
	for _, path := range paths {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = "localhost"
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Errorf("%s answers %d", path, w.Code)
		}
		pages[path] = saved{w.Header(), w.Body.Bytes()}
	}
	return pages
}

// serveSaved serves pages as they were.
func serveSaved(t *testing.T, pages map[string]saved) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[r.URL.RequestURI()]
		if !ok {
			http.NotFound(w, r)
			return
		}
		maps.Copy(w.Header(), page.header)
		_, _ = w.Write(page.body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}
