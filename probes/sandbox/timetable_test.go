package sandbox

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestTimetable_playsRoundsAndTakesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, v := world(t)
		table := Timetable{Round: time.Minute, Entries: []Entry{{
			Name: "down", At: 10 * time.Second, For: 20 * time.Second,
			Begin: func(w *World) { w.API.Set(func(f *APIFaults) { f.Answer = Status(503) }) },
			End:   func(w *World) { w.API.Reset() },
		}}}
		var told []string
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 75*time.Second)
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			table.Run(ctx, w, func(e Entry, begins bool) {
				told = append(told, e.Name+map[bool]string{true: " begins ", false: " ends "}[begins]+time.Since(start).String())
			})
		}()
		for _, look := range []struct {
			at     time.Duration
			status int
		}{{5 * time.Second, 200}, {15 * time.Second, 503}, {35 * time.Second, 200}, {72 * time.Second, 503}} {
			time.Sleep(time.Until(start.Add(look.at)))
			want(t, v.get(Audience+"/v2/health"), look.status, "")
		}
		<-done
		want(t, v.get(Audience+"/v2/health"), 200, "")
		if len(told) != 3 || told[0] != "down begins 10s" || told[1] != "down ends 30s" || told[2] != "down begins 1m10s" {
			t.Errorf("told %q", told)
		}
	})
}

// Every fault of the demo is one that a visitor meets, and none is left behind.
func TestDemo_everyFaultBites(t *testing.T) {
	w, v := world(t)
	partner := w.IdP.Mint(PartnerID, nil)
	bearer := func(path, token string) int {
		return v.get(Audience+path, "Authorization", "Bearer "+token).status
	}
	client := func(id, secret string) int {
		return v.post(Issuer+"/token", form("grant_type", "client_credentials", "client_id", id, "client_secret", secret)).status
	}
	look := map[string]func() bool{
		"insufficient_scope":         func() bool { return bearer("/v2/devices", w.IdP.Mint(ClientID, nil)) == 200 },
		"tls_cert_expired":           func() bool { return v.get("https://"+PartnerHost+"/v2/health").status == 200 },
		"client_credentials_invalid": func() bool { return client(OrdersID, OrdersSecret) == 200 },
		"token_revoked":              func() bool { return bearer("/v2/orders", partner) == 200 },
		"tls_cert_expiring":          func() bool { return time.Until(leafOf(t, w, PartnerHost).NotAfter) > 30*24*time.Hour },
		"authorization_too_open":     func() bool { return v.get(Audience+"/v2/devices").status == 401 },
		"blocked_by_gateway":         func() bool { return v.get(Audience+"/v2/health").status == 200 },
		"idp_unavailable":            func() bool { return client(ReportsID, ReportsSecret) == 200 },
		"api_key_invalid":            func() bool { return v.get(Audience+"/key", "X-Api-Key", APIKey).status == 200 },
		"dns_failure":                func() bool { return v.get("https://"+PartnerHost+"/v2/health").err == nil },
		"clock_skew":                 func() bool { r, err := query(t, w, NTPHost1); return err == nil && near(r.ClockOffset, 0) },
	}
	table := Demo(12 * time.Second)
	for _, e := range table.Entries {
		good := look[e.Cause]
		if good == nil || e.Name == "" || e.Story == "" || e.At+e.For > table.Round {
			t.Fatalf("entry %q of cause %q", e.Name, e.Cause)
		}
		if !good() {
			t.Errorf("%s: not good before", e.Name)
		}
		e.Begin(w)
		if good() {
			t.Errorf("%s: nothing happens", e.Name)
		}
		e.End(w)
		if !good() {
			t.Errorf("%s: not good afterwards", e.Name)
		}
	}
}
