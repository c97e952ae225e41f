package identity

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// script gives a program of a shell script; it counts its runs in the file beside it.
func script(t *testing.T, text string) (path string, runs func() int) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho >>"+path+".runs\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, func() int {
		b, _ := os.ReadFile(path + ".runs")
		return strings.Count(string(b), "\n")
	}
}

func fromCommand(t *testing.T, path string, more ...string) Identity {
	return build(t, "bearer", wire.Net{}, io.Discard, func(v reflect.Value) {
		v.FieldByName("Command").Set(reflect.ValueOf(append([]string{path}, more...)))
		v.FieldByName("CommandTime").SetInt(int64(time.Second))
	})
}

func TestCommand(t *testing.T) {
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for name, c := range map[string]struct{ print, code, want string }{
		"text":              {`echo zz-4711`, "", "zz-4711"},
		"argument":          {`echo "$1"`, "", "given by argument; $(reboot)"},
		"ExecCredential":    {`echo '{"kind":"ExecCredential","status":{"token":"zz-k8s","expirationTimestamp":"` + soon + `"}}'`, "", "zz-k8s"},
		"gcloud":            {`echo '{"token":"zz-g","expires_in":3599}'`, "", "zz-g"},
		"az":                {`echo '{"accessToken":"zz-az","expires_on":"1900000000"}'`, "", "zz-az"},
		"nothing":           {`true`, "command_output", ""},
		"two lines":         {`echo warning; echo zz`, "command_output", ""},
		"broken JSON":       {`echo '{"token":'`, "command_output", ""},
		"far too much":      {`yes zz | head -c 400000`, "command_output", ""},
		"fails":             {`echo zz-stdout; echo 'login first' >&2; exit 3`, "command", "login first"},
		"never":             {`sleep 30 & sleep 30`, "command_timeout", "was not done"},
		"nested by a child": {`(sleep 30; echo late) & echo zz-early`, "", "zz-early"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, _ := script(t, c.print)
			id, began := fromCommand(t, path, "given by argument; $(reboot)"), time.Now()
			req := request()
			_, err := id.Apply(t.Context(), req)
			fault := evidence.AsFault(err)
			switch {
			case c.code == "" && (fault != nil || req.Header.Get("Authorization") != "Bearer "+c.want):
				t.Errorf("%v, header of %d characters", fault, len(req.Header.Get("Authorization")))
			case c.code != "" && (fault == nil || fault.Code != c.code || !strings.Contains(fault.Error(), c.want) || strings.Contains(fault.Error(), "zz")):
				t.Errorf("got %v, want %s", fault, c.code)
			}
			if time.Since(began) > 5*time.Second {
				t.Error("waited for what the program left behind")
			}
		})
	}
}

// A token is asked for once while it lives, and a program that fails is left alone for a while.
func TestCommand_isPaced(t *testing.T) {
	path, runs := script(t, `echo zz-4711`)
	id := fromCommand(t, path)
	for range 20 {
		if _, fault := apply(t, id); fault != nil {
			t.Fatal(fault)
		}
	}
	if n := runs(); n != 1 {
		t.Errorf("the program ran %d times, want 1", n)
	}
	path, runs = script(t, `exit 1`)
	id = fromCommand(t, path)
	for range 20 {
		if _, fault := apply(t, id); fault == nil {
			t.Fatal("no fault")
		}
	}
	if n := runs(); n > 3 {
		t.Errorf("a program that fails ran %d times at once", n)
	}
	if _, fault := apply(t, fromCommand(t, "/nowhere/program")); fault == nil || !strings.Contains(fault.Error(), "no such file") {
		t.Errorf("a program that is not there: %v", fault)
	}
}

func TestCommand_settings(t *testing.T) {
	_, err := New("bearer", func(into any) error {
		reflect.ValueOf(into).Elem().FieldByName("Command").Set(reflect.ValueOf([]string{"gcloud"}))
		return nil
	}, Env{Jitter: func() float64 { return 0 }})
	if err == nil || !strings.Contains(err.Error(), "whole path") {
		t.Error(fmt.Sprint(err))
	}
}
