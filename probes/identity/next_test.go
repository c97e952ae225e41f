package identity

import (
	"fmt"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// TestNext_ofAClient is a rotation of a client secret: the next one is refused, accepted beside the old one, and left alone.
// Fifty probes and a restart try it once an hour.
func TestNext_ofAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		used, next := filepath.Join(dir, "used"), filepath.Join(dir, "next")
		write(t, used, []byte("old-secret-0123"))
		write(t, next, []byte("new-secret-0123"))
		good := map[string]bool{"old-secret-0123": true}
		tries := map[string]int{}
		i := &issuer{}
		i.answer = func(w http.ResponseWriter, n int) {
			shown := i.last.Get("client_secret")
			tries[shown]++
			if !good[shown] {
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprint(w, `{"error":"invalid_client"}`)
				return
			}
			token(w, fmt.Sprintf("token-number-%d", n), 3600)
		}
		n, store := network(t, i), newKept()
		make := func() Identity {
			return buildIn(t, Env{Name: "x", Net: n, Store: store, Jitter: func() float64 { return 0.5 }}, func(v reflect.Value) {
				v.FieldByName("TokenURL").SetString("http://auth.example.test/token")
				v.FieldByName("ClientID").SetString("probe")
				v.FieldByName("ClientAuth").SetString("post")
				v.FieldByName("ClientSecret").Set(ref("file:" + used))
				v.FieldByName("NextSecret").Set(ref("file:" + next))
			})
		}
		id := make()
		all := func() (last Grant, err error) {
			var group sync.WaitGroup
			var mu sync.Mutex
			for range 50 {
				group.Go(func() {
					g, e := id.Apply(t.Context(), request())
					mu.Lock()
					defer mu.Unlock()
					last, err = g, e
				})
			}
			group.Wait()
			return last, err
		}
		state := func(g Grant) string {
			accepted, known := valueOf(g.Readings, NextAccepted, "")
			overlap, both := valueOf(g.Readings, NextOverlap, "")
			return fmt.Sprintf("%v %v, %v %v, %s", known, accepted, both, overlap, noteCodes(g.Notes))
		}
		_, _ = all()
		g, err := all()
		if err != nil || state(g) != "true 0, false 0, next_secret_refused" || tries["new-secret-0123"] != 1 {
			t.Fatalf("before it is valid: %v, %s, tried %d times", err, state(g), tries["new-secret-0123"])
		}
		id = make()
		time.Sleep(30 * time.Minute)
		if _, _ = all(); tries["new-secret-0123"] != 1 {
			t.Fatalf("a restart tried it %d times", tries["new-secret-0123"])
		}
		good["new-secret-0123"] = true
		time.Sleep(31 * time.Minute)
		_, _ = all()
		if g, _ = all(); state(g) != "true 1, true 0, " || tries["new-secret-0123"] != 2 {
			t.Fatalf("once it is valid: %s, tried %d times", state(g), tries["new-secret-0123"])
		}
		time.Sleep(45 * time.Minute)
		if g, _ = all(); state(g) != "true 1, true 2700, " {
			t.Fatalf("both for 45 minutes: %s", state(g))
		}
		good["old-secret-0123"] = false
		for range 6 { // the token in use lives on for a while
			time.Sleep(10 * time.Minute)
			if g, err = id.Apply(t.Context(), request()); err != nil {
				break
			}
		}
		if f := evidence.AsFault(err); f == nil || f.Code != "invalid_client" || !strings.Contains(state(g), "next_secret_accepted") {
			t.Fatalf("when the old one was withdrawn: %v, %s", err, state(g))
		}
		write(t, used, []byte("new-secret-0123"))
		before := tries["new-secret-0123"]
		if _, err = all(); err != nil || tries["new-secret-0123"] != before+1 {
			t.Errorf("when it took over: %v, %d requests", err, tries["new-secret-0123"]-before)
		}
		if g, err = all(); err != nil || state(g) != "false 0, false 0, " {
			t.Errorf("after it took over: %v, %s", err, state(g))
		}
		for _, kept := range store.values {
			if strings.Contains(string(kept), "new-secret") {
				t.Error("a secret is kept in clear")
			}
		}
	})
}

// TestNext_anHourOfInvalidClient: with a wrong next secret too, the token endpoint sees no more than is safe.
func TestNext_anHourOfInvalidClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{answer: func(w http.ResponseWriter, _ int) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"invalid_client"}`)
		}}
		id := client(t, network(t, i), func(v reflect.Value) { v.FieldByName("NextSecret").Set(ref("plain:another-wrong-secret")) })
		for range 3600 {
			_, _ = id.Apply(t.Context(), request())
			time.Sleep(time.Second)
		}
		if n := i.count(); n > 8 {
			t.Errorf("the token endpoint saw %d requests in an hour, want at most 8", n)
		}
	})
}

// TestNext_settings: where a second secret cannot be tried without harm, it is refused.
func TestNext_settings(t *testing.T) {
	for name, set := range map[string]func(v reflect.Value){
		"private_key_jwt": func(v reflect.Value) {
			v.FieldByName("ClientAuth").SetString("private_key_jwt")
			v.FieldByName("PrivateKey").Set(ref("plain:x"))
		},
		"refresh_token": func(v reflect.Value) {
			v.FieldByName("Grant").SetString("refresh_token")
			v.FieldByName("RefreshToken").Set(ref("plain:x"))
			v.FieldByName("Exclusive").SetBool(true)
		},
	} {
		_, err := New("oauth2", func(into any) error {
			v := reflect.ValueOf(into).Elem()
			v.FieldByName("TokenURL").SetString("http://auth.example.test/token")
			v.FieldByName("ClientID").SetString("c")
			v.FieldByName("ClientSecret").Set(ref("plain:" + canary))
			v.FieldByName("NextSecret").Set(ref("plain:next-secret"))
			set(v)
			return nil
		}, Env{Jitter: func() float64 { return 0 }})
		if err == nil || !strings.HasPrefix(err.Error(), "next_secret: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
