package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

// A kept is a store without a disk, which may fail.
type kept struct {
	values map[string][]byte
	fail   error
	saves  int
}

func (m *kept) Load(key string) ([]byte, error) { return m.values[key], nil }
func (m *kept) Save(key string, value []byte) error {
	m.saves++
	if m.fail != nil {
		return m.fail
	}
	m.values[key] = value
	return nil
}

func newKept() *kept { return &kept{values: map[string][]byte{}} }

// A consent is a grant of the sandbox's issuer that belongs to the monitor.
type consent struct {
	t    *testing.T
	w    *sandbox.World
	n    wire.Net
	path string // of the file with the first refresh token
	name string // of the identity
}

func newConsent(t *testing.T, w *sandbox.World, n wire.Net) *consent {
	c := &consent{t: t, w: w, n: n, path: filepath.Join(t.TempDir(), "refresh"), name: "web"}
	c.renew()
	return c
}

func (c *consent) renew() { write(c.t, c.path, []byte(c.w.IdP.Consent(sandbox.WebID))) }

func (c *consent) identity(store Store, more ...func(v reflect.Value)) Identity {
	return buildIn(c.t, Env{Name: c.name, Net: c.n, Store: store, Jitter: func() float64 { return 0.5 }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, append([]func(v reflect.Value){func(v reflect.Value) {
		v.FieldByName("Grant").SetString("refresh_token")
		v.FieldByName("Issuer").SetString(sandbox.Issuer)
		v.FieldByName("ClientID").SetString(sandbox.WebID)
		v.FieldByName("ClientSecret").Set(ref("plain:" + sandbox.WebSecret))
		v.FieldByName("RefreshToken").Set(ref("file:" + c.path))
		v.FieldByName("Exclusive").SetBool(true)
	}}, more...)...)
}

func buildIn(t *testing.T, env Env, set ...func(v reflect.Value)) Identity {
	t.Helper()
	id, err := New("oauth2", func(into any) error {
		for _, f := range set {
			f(reflect.ValueOf(into).Elem())
		}
		return nil
	}, env)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (c *consent) asked() int { return c.w.IdP.TokenRequests(sandbox.WebID) }

func apply(t *testing.T, id Identity) (Grant, *evidence.Fault) {
	t.Helper()
	g, err := id.Apply(t.Context(), request())
	return g, evidence.AsFault(err)
}

// A day with tokens of an hour and a restart in the middle: each refresh token is used once.
func TestRefresh_rotates(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		c, store := newConsent(t, w, n), newKept()
		id := c.identity(store)
		for hour := range 24 {
			if hour == 12 {
				id = c.identity(store)
			}
			if _, fault := apply(t, id); fault != nil {
				t.Fatalf("hour %d: %v", hour, fault)
			}
			time.Sleep(time.Hour)
		}
		if n := c.asked(); n != 24 {
			t.Errorf("%d token requests, want 24", n)
		}
	})
}

// TestRefresh_anotherName: an identity that was given another name goes on with the last token, and does not begin anew with the
// first one, which was spent; and two identities with one grant take turns.
func TestRefresh_anotherName(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		c, store := newConsent(t, w, n), newKept()
		if _, fault := apply(t, c.identity(store)); fault != nil {
			t.Fatal(fault)
		}
		c.name = "renamed"
		renamed := c.identity(store)
		if _, fault := apply(t, renamed); fault != nil {
			t.Fatalf("after renaming: %v", fault)
		}
		c.name = "other"
		other := c.identity(store)
		for range 6 {
			var group sync.WaitGroup
			for _, id := range []Identity{renamed, other} {
				group.Go(func() {
					if _, fault := apply(t, id); fault != nil {
						t.Errorf("in turns: %v", fault)
					}
				})
			}
			group.Wait()
			time.Sleep(2 * time.Hour)
		}
		if n := c.asked(); n != 2+5+6 {
			t.Errorf("%d token requests, want %d", n, 2+5+6)
		}
	})
}

func TestRefresh_lostAnswer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		c, store := newConsent(t, w, n), newKept()
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.LoseAnswer = true })
		id := c.identity(store)
		if _, fault := apply(t, id); fault == nil {
			t.Fatal("no fault")
		}
		w.IdP.Reset()
		for range 100 { // two hours, and a restart
			time.Sleep(time.Minute)
			_, fault := apply(t, id)
			if fault == nil || !fault.Held() && (fault.Symptom != evidence.SymptomIndeterminate || fault.Code != "answer_lost" || !strings.Contains(fault.Error(), c.path)) {
				t.Fatalf("got %v", fault)
			}
		}
		id = c.identity(store)
		if _, fault := apply(t, id); fault == nil || fault.Symptom != evidence.SymptomIndeterminate {
			t.Fatalf("after a restart: %v", fault)
		}
		if n := c.asked(); n != 1 {
			t.Fatalf("%d token requests, want 1: a second one revokes the grant", n)
		}
		c.renew() // the operator ran the consent again
		time.Sleep(time.Hour)
		if _, fault := apply(t, id); fault != nil {
			t.Errorf("with a new refresh token: %v", fault)
		}
	})
}

// Within the time that an issuer is documented to bear with it, a lost answer is asked for again.
func TestRefresh_reuseLeeway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		c, store := newConsent(t, w, n), newKept()
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.LoseAnswer, f.KeepRefresh = true, true })
		id := c.identity(store, func(v reflect.Value) { v.FieldByName("ReuseLeeway").SetInt(int64(time.Minute)) })
		_, _ = apply(t, id)
		time.Sleep(30 * time.Second)
		_, _ = apply(t, id)
		time.Sleep(40 * time.Second)
		if _, fault := apply(t, id); fault == nil || c.asked() != 2 {
			t.Errorf("%d requests, then %v; want 2 within a minute, and none after", c.asked(), fault)
		}
	})
}

// An issuer that was seen to leave refresh tokens as they are takes one again.
func TestRefresh_withoutRotation(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		c, store := newConsent(t, w, n), newKept()
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.KeepRefresh = true })
		id := c.identity(store)
		if _, fault := apply(t, id); fault != nil {
			t.Fatal(fault)
		}
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.LoseAnswer = true })
		time.Sleep(59 * time.Minute)
		_, _ = apply(t, id)
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.LoseAnswer = false })
		time.Sleep(time.Hour)
		if _, fault := apply(t, id); fault != nil {
			t.Errorf("a lost answer stopped a token that does not rotate: %v", fault)
		}
	})
}

// What cannot be written down is not spent, and the access token in use goes on.
func TestRefresh_stateNotWritable(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		c, store := newConsent(t, w, n), newKept()
		store.fail = errors.New("no space left on device")
		id := c.identity(store)
		_, fault := apply(t, id)
		if fault == nil || !fault.Own() || c.asked() != 0 || !strings.Contains(fault.Error(), "no space left") {
			t.Fatalf("%v after %d requests", fault, c.asked())
		}
		store.fail = nil
		if _, fault := apply(t, id); fault != nil {
			t.Fatal(fault)
		}
		store.fail = errors.New("no space left on device")
		time.Sleep(56 * time.Minute)
		g, fault := apply(t, id)
		if fault != nil || len(g.Notes) == 0 || c.asked() != 1 {
			t.Errorf("due for renewal: %v, notes %v, %d requests; want the token in use with a note", fault, g.Notes, c.asked())
		}
		if _, fault := apply(t, c.identity(nil)); fault == nil || !fault.Own() {
			t.Errorf("without a state directory: %v", fault)
		}
	})
}

// failingSave lets the first saves through.
type failingSave struct {
	*kept
	after int
}

func (f failingSave) Save(key string, value []byte) error {
	if f.saves >= f.after {
		f.saves++
		return errors.New("read-only file system")
	}
	return f.kept.Save(key, value)
}

// The disk breaks between the two writes: the new token lives in memory, its access token is used, and it is not spent
// before it could be written.
func TestRefresh_newTokenNotWritable(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		c, m := newConsent(t, w, n), newKept()
		store := &failingSave{m, 1}
		id := c.identity(store)
		g, fault := apply(t, id)
		if fault != nil || len(g.Notes) != 1 || g.Notes[0].Code != "refresh_token_not_kept" {
			t.Fatalf("%v, notes %v", fault, g.Notes)
		}
		time.Sleep(2 * time.Hour)
		if _, fault := apply(t, id); fault == nil || !fault.Own() || c.asked() != 1 {
			t.Fatalf("spent a token that is not on disk: %v, %d requests", fault, c.asked())
		}
		store.after = 1 << 30
		if _, fault := apply(t, id); fault != nil || c.asked() != 2 {
			t.Errorf("with the disk back: %v, %d requests", fault, c.asked())
		}
		if _, fault := apply(t, c.identity(m)); fault != nil {
			t.Errorf("after a restart: %v", fault)
		}
	})
}

// A refusal is final until there is another token; other failures leave it as it was.
func TestRefresh_refused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		c, store := newConsent(t, w, n), newKept()
		id := c.identity(store)
		w.IdP.Set(func(f *sandbox.IdPFaults) {
			f.Answer, f.Only = sandbox.RetryLater(http.StatusServiceUnavailable, time.Minute), []string{"/token"}
		})
		for range 5 {
			if _, fault := apply(t, id); fault == nil || fault.Symptom == evidence.SymptomIndeterminate {
				t.Fatalf("503: %v", fault)
			}
			time.Sleep(10 * time.Minute)
		}
		w.IdP.Reset()
		if _, fault := apply(t, id); fault != nil {
			t.Fatalf("after 503: %v", fault)
		}
		before := c.asked()
		w.IdP.Revoke(sandbox.WebID)
		id = c.identity(store)
		for range 30 {
			_, fault := apply(t, id)
			if fault == nil || !fault.Held() && (fault.Symptom != evidence.SymptomTokenRefused || fault.Code != "invalid_grant") {
				t.Fatalf("revoked: %v", fault)
			}
			time.Sleep(10 * time.Minute)
		}
		if _, fault := apply(t, c.identity(store)); fault == nil || fault.Code != "invalid_grant" {
			t.Errorf("after a restart: %v", fault)
		}
		if n := c.asked() - before; n != 1 {
			t.Errorf("a refused token was sent %d times", n)
		}
	})
}

// TestRefresh_endOfTheGrant: a refresh token that ends for want of use is used before that; a grant whose end nothing puts off
// is told a day before, also after a restart.
func TestRefresh_endOfTheGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		born := time.Now()
		fixed := false
		i := &issuer{answer: func(w http.ResponseWriter, n int) {
			left := 2 * time.Hour
			if fixed {
				left = time.Until(born.Add(30 * 24 * time.Hour))
			}
			json.NewEncoder(w).Encode(map[string]any{"access_token": fmt.Sprintf("token-number-%d", n), "expires_in": 24 * 3600, "refresh_token": fmt.Sprintf("refresh-number-%d", n), "refresh_expires_in": int(left.Seconds())})
		}}
		n, store := network(t, i), newKept()
		make := func() Identity {
			return buildIn(t, Env{Name: "web", Net: n, Store: store, Jitter: func() float64 { return 0.5 }}, func(v reflect.Value) {
				v.FieldByName("Grant").SetString("refresh_token")
				v.FieldByName("TokenURL").SetString("http://auth.example.test/token")
				v.FieldByName("ClientID").SetString("web")
				v.FieldByName("ClientSecret").Set(ref("plain:" + canary))
				v.FieldByName("RefreshToken").Set(ref("plain:the-first-refresh-token"))
				v.FieldByName("Exclusive").SetBool(true)
			})
		}
		id := make()
		for range 24 * 4 {
			g, fault := apply(t, id)
			if fault != nil || noteCodes(g.Notes) != "" {
				t.Fatalf("%v %v", fault, g.Notes)
			}
			time.Sleep(15 * time.Minute)
		}
		if n := i.count(); n < 12 || n > 13 {
			t.Errorf("%d requests in a day, want one in each two hours, before the refresh token ends unused", n)
		}
		fixed = true
		var g Grant
		for time.Since(born) < 29*24*time.Hour+time.Hour {
			if g, _ = apply(t, id); noteCodes(g.Notes) != "" && time.Since(born) < 29*24*time.Hour {
				t.Fatalf("too early: %v", g.Notes)
			}
			time.Sleep(time.Hour)
		}
		if g, _ = apply(t, make()); noteCodes(g.Notes) != "refresh_token_expiring" {
			t.Errorf("a day before the end of the grant: %v", g.Notes)
		}
	})
}

func TestRefresh_damagedState(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		c, dir := newConsent(t, w, n), t.TempDir()
		s := openStore(t, dir)
		if _, fault := apply(t, c.identity(s)); fault != nil {
			t.Fatal(fault)
		}
		s.Close()
		kept, _ := filepath.Glob(filepath.Join(dir, "refresh*.sealed"))
		if len(kept) != 1 {
			t.Fatalf("%d records", len(kept))
		}
		write(t, kept[0], []byte("rubbish"))
		for range 2 {
			s = openStore(t, dir)
			_, fault := apply(t, c.identity(s))
			if fault == nil || fault.Symptom != evidence.SymptomIndeterminate || fault.Code != "state_lost" || c.asked() != 1 {
				t.Fatalf("%v, %d requests; the first token must not be sent again", fault, c.asked())
			}
			s.Close()
		}
		c.renew()
		if _, fault := apply(t, c.identity(openStore(t, dir))); fault != nil {
			t.Errorf("with a new refresh token: %v", fault)
		}
	})
}

// Refresh tokens are in no file of the state in a form that can be read.
func TestRefresh_sealed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		c, m := newConsent(t, w, n), newKept()
		if _, fault := apply(t, c.identity(m)); fault != nil {
			t.Fatal(fault)
		}
		dir := t.TempDir()
		s := openStore(t, dir)
		for key, v := range m.values {
			if !strings.Contains(string(v), "rt-") {
				t.Fatalf("%s holds no refresh token: the test looks for nothing", key)
			}
			_ = s.Save(key, v)
		}
		list, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, path := range list {
			if b, _ := os.ReadFile(path); strings.Contains(string(b), "rt-") {
				t.Errorf("%s shows a refresh token", path)
			}
		}
	})
}

// A dying store kills its own process, as kill -9 does, before or after a save.
type dying struct {
	Store
	at   string
	save int
}

func (d *dying) Save(key string, value []byte) error {
	d.save++
	d.die(fmt.Sprintf("before save %d", d.save))
	defer d.die(fmt.Sprintf("after save %d", d.save))
	return d.Store.Save(key, value)
}

func (d *dying) die(here string) {
	if here == d.at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// TestRefresh_killed kills a process at each step of spending a token, and another one goes on from its state. The grant is
// never revoked: whatever was not used still works, and what may have been used is not used again.
func TestRefresh_killed(t *testing.T) {
	if at := os.Getenv("REFRESH_DIES"); at != "" {
		refreshAndDie(t, at)
		return
	}
	for _, c := range []struct {
		at     string
		spent  int    // token requests that the issuer saw of the one that was killed
		after  string // code of the fault of the one that goes on; empty: none
		worksN int    // token requests after that
	}{
		{"before save 1", 0, "", 1},
		{"after save 1", 0, "answer_lost", 0},
		{"before save 2", 1, "answer_lost", 1},
		{"after save 2", 1, "", 2},
	} {
		t.Run(c.at, func(t *testing.T) {
			w := sandbox.New()
			defer w.Close()
			if err := w.Listen(); err != nil {
				t.Fatal(err)
			}
			n := wire.Net{Lookup: w.Lookup, Dial: w.Dial, Roots: w.Roots()}
			who, dir := newConsent(t, w, n), t.TempDir()
			child := exec.Command(os.Args[0], "-test.run", "^TestRefresh_killed$")
			child.Env = append(os.Environ(), "REFRESH_DIES="+c.at, "REFRESH_DIR="+dir, "REFRESH_SEED="+who.path, "REFRESH_ROOTS="+strings.TrimPrefix(file(t, "roots.pem", w.RootsPEM()), "file:"), "REFRESH_URL=https://"+w.Address(strings.TrimPrefix(sandbox.Issuer, "https://")+":443")+"/token")
			out, err := child.CombinedOutput()
			if state, ok := child.ProcessState.Sys().(syscall.WaitStatus); !ok || !state.Signaled() {
				t.Fatalf("the child did not die: %v\n%s", err, out)
			}
			if who.asked() != c.spent {
				t.Fatalf("the one that died made %d token requests, want %d", who.asked(), c.spent)
			}
			id := who.identity(openStore(t, dir))
			_, fault := apply(t, id)
			if c.after == "" && fault != nil || c.after != "" && (fault == nil || fault.Code != c.after) {
				t.Errorf("the one that goes on: %v, want %q", fault, c.after)
			}
			if who.asked() != c.worksN {
				t.Errorf("%d token requests, want %d", who.asked(), c.worksN)
			}
			if c.after != "" && c.spent == 0 {
				if _, fault := apply(t, who.identity(newKept())); fault != nil {
					t.Errorf("the token that was never sent is worthless: %v", fault)
				}
			}
		})
	}
}

func refreshAndDie(t *testing.T, at string) {
	s, err := OpenStore(os.Getenv("REFRESH_DIR"), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id := buildIn(t, Env{Name: "web", Net: wire.System(), Store: &dying{Store: s, at: at}, Jitter: func() float64 { return 0.5 }}, func(v reflect.Value) {
		v.FieldByName("Grant").SetString("refresh_token")
		v.FieldByName("TokenURL").SetString(os.Getenv("REFRESH_URL"))
		v.FieldByName("CAFile").SetString(os.Getenv("REFRESH_ROOTS"))
		v.FieldByName("ClientID").SetString(sandbox.WebID)
		v.FieldByName("ClientSecret").Set(ref("plain:" + sandbox.WebSecret))
		v.FieldByName("RefreshToken").Set(ref("file:" + os.Getenv("REFRESH_SEED")))
		v.FieldByName("Exclusive").SetBool(true)
	})
	_, fault := apply(t, id)
	t.Fatalf("still alive: %v", fault)
}
