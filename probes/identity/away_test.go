package identity

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// TestSecretAway_isOwnDistress: a secret store that does not answer says nothing of what is watched.
func TestSecretAway_isOwnDistress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fails")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o700); err != nil { // #nosec G306 -- a program
		t.Fatal(err)
	}
	for _, c := range []struct {
		ref     string
		symptom evidence.Symptom
		own     bool
	}{{"exec:" + path, evidence.SymptomSecretAway, true}, {"file:" + path + "-nowhere", evidence.SymptomSecret, false}} {
		for kind, field := range map[string]string{"bearer": "Token", "api_key": "Key"} {
			id := build(t, kind, wire.Net{}, io.Discard, func(v reflect.Value) { v.FieldByName(field).Set(ref(c.ref)) })
			_, err := id.Apply(t.Context(), request())
			if f := evidence.AsFault(err); f == nil || f.Symptom != c.symptom || f.Own() != c.own || errors.Is(err, secret.ErrAway) != c.own {
				t.Errorf("%s with %s: %v", kind, c.ref, err)
			}
		}
	}
}
