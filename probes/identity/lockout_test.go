package identity

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

// Three refusals close the gate of a password; a restart does not open it, and another password does, at once.
func TestLockout_outlivesARestart(t *testing.T) {
	path, store := filepath.Join(t.TempDir(), "password"), newKept()
	start := func() Identity {
		id, err := New("basic", func(into any) error {
			v := reflect.ValueOf(into).Elem()
			v.FieldByName("Username").SetString("probe")
			v.FieldByName("Password").Set(ref("file:" + path))
			return nil
		}, Env{Name: "x", Store: store, Jitter: func() float64 { return 0.5 }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	write(t, path, []byte("wrong-password"))
	id, sent := start(), 0
	for range 10 {
		g, fault := apply(t, id)
		if fault == nil {
			sent++
			id.Settle(g, Outcome{Refused: true, Status: http.StatusUnauthorized})
			id = start()
		}
	}
	if sent > 3 {
		t.Fatalf("a refused password was sent %d times over restarts", sent)
	}
	write(t, path, []byte("right-password"))
	if _, fault := apply(t, id); fault != nil {
		t.Errorf("a new password waits for the old one's gate: %v", fault)
	}
	if _, fault := apply(t, start()); fault != nil {
		t.Errorf("a new password waits for the old one's gate after a restart: %v", fault)
	}
}

// An issuer that refuses the client is left alone over restarts, and asked at once when the secret was changed.
func TestLockout_ofAClient(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		path, store := filepath.Join(t.TempDir(), "secret"), newKept()
		write(t, path, []byte("wrong-secret-0815"))
		start := func() Identity {
			return buildIn(t, Env{Name: "x", Net: n, Store: store, Jitter: func() float64 { return 0.5 }}, func(v reflect.Value) {
				v.FieldByName("Issuer").SetString(sandbox.Issuer)
				v.FieldByName("ClientID").SetString(sandbox.ClientID)
				v.FieldByName("ClientSecret").Set(ref("file:" + path))
			})
		}
		for range 60 { // an hour in which the daemon is started each minute
			if _, fault := apply(t, start()); fault == nil || !fault.Held() && fault.Symptom != evidence.SymptomTokenRefused {
				t.Fatalf("got %v", fault)
			}
			time.Sleep(time.Minute)
		}
		if n := w.IdP.TokenRequests(sandbox.ClientID); n > 8 {
			t.Errorf("%d token requests in an hour of invalid_client, want at most 8", n)
		}
		id := start()
		_, _ = apply(t, id)
		write(t, path, []byte(sandbox.ClientSecret))
		if _, fault := apply(t, id); fault != nil {
			t.Errorf("the right secret waits for the gate of the wrong one: %v", fault)
		}
	})
}

// A server that locks at the second failure gets one.
func TestLockout_keys(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.LockAfter = 2 })
		id := buildIn(t, Env{Name: "x", Net: n, Jitter: func() float64 { return 0.5 }}, sandboxClient, func(v reflect.Value) {
			v.FieldByName("ClientSecret").Set(ref("plain:wrong-secret-0815"))
			v.FieldByName("HoldAfter").SetInt(1)
			v.FieldByName("HoldFor").SetInt(int64(30 * time.Minute))
		})
		for range 14 {
			_, _ = apply(t, id)
			time.Sleep(time.Minute)
		}
		if n := w.IdP.TokenRequests(sandbox.ClientID); n != 1 {
			t.Errorf("%d token requests, want 1", n)
		}
	})
}

// TestLockout_saidByTheServer: an account that is locked is left alone at once, and not after two more tries.
func TestLockout_saidByTheServer(t *testing.T) {
	for _, body := range []string{
		`{"error":"invalid_grant","error_description":"AADSTS50053: You've tried to sign in too many times"}`,
		`{"error":"invalid_grant","error_description":"The user account is temporarily locked"}`,
		`{"error":"invalid_client","error_description":"Too many failed attempts"}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{answer: func(w http.ResponseWriter, _ int) {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, body)
			}}
			id := client(t, network(t, i), nil)
			for range 60 {
				_, _ = id.Apply(t.Context(), request())
				time.Sleep(2 * time.Second)
			}
			if n := i.count(); n != 1 || id.Status().Gate.Position != pace.Open {
				t.Errorf("%s: asked %d times in two minutes, gate %s", body, n, id.Status().Gate.Position)
			}
		})
	}
	for _, other := range []string{`{"error":"invalid_client"}`, `{"error_description":"client authentication failed"}`, `{"error_description":"the account was not found"}`} {
		if saysLocked(evidence.Exchange{Status: 401, Body: other}) {
			t.Errorf("%s is taken for a lockout", other)
		}
	}
}
