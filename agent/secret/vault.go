package secret

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// vault is a secret in the key-value store of HashiCorp Vault or OpenBao, version 1 or 2:
//
//	vault:secret/billing/oauth#client_secret
//	vault:kv/billing?auth=kubernetes&role=monitor&ttl=1m#client_secret
//
// After ? may stand: address (default $VAULT_ADDR; unix:///path for the socket of an agent), namespace (default
// $VAULT_NAMESPACE), ca_file (default $VAULT_CACERT), kv (1 or 2; default: the server is asked), mount (default: the first part of
// the path), version (of kv 2), ttl (default 5m; a shorter lease is respected), timeout (default 5s), and auth with what it
// needs:
//
//	token       token=REF (default $VAULT_TOKEN)
//	approle     role=ROLE_ID and secret_id=REF
//	kubernetes  role=NAME and jwt=REF (default the token of the service account)
//	agent       nothing: the agent at address adds its token
//
// auth_mount names where the method is mounted, where that is not its name. A REF is a reference such as file:/path.
type vault struct {
	*kept
	path, key   string
	kv, mount   string
	version     int
	description string
	login       *vaultLogin
}

const (
	storeTTL   = 5 * time.Minute
	storeLimit = 5 * time.Second
)

// options reads what stands after ? in a reference, each once, and none that is unknown.
func options(query string, known ...string) (url.Values, error) {
	v, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("what stands after ? cannot be read")
	}
	for name, values := range v {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown option %q; there are %s", name, strings.Join(known, ", "))
		}
		if len(values) > 1 {
			return nil, fmt.Errorf("%s stands there twice", name)
		}
	}
	return v, nil
}

func span(v url.Values, name string, otherwise time.Duration) (time.Duration, error) {
	if !v.Has(name) {
		return otherwise, nil
	}
	d, err := time.ParseDuration(v.Get(name))
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s: want a time such as 30s", name)
	}
	return d, nil
}

func newVault(place string) (Source, error) {
	rest, key, _ := strings.Cut(place, "#")
	where, query, _ := strings.Cut(rest, "?")
	o, err := options(query, "address", "namespace", "ca_file", "kv", "mount", "version", "ttl", "timeout", "auth", "auth_mount", "token", "role", "secret_id", "jwt")
	if err != nil {
		return nil, err
	}
	v := &vault{path: strings.Trim(where, "/"), key: key, kv: o.Get("kv"), mount: strings.Trim(o.Get("mount"), "/"), description: where}
	var errs []error
	wrong := func(found bool, text string) {
		if found {
			errs = append(errs, errors.New(text))
		}
	}
	wrong(key == "", "names no key; write #client_secret at the end")
	wrong(!strings.Contains(v.path, "/"), "names no path below a mount, such as secret/billing")
	wrong(v.kv != "" && v.kv != "1" && v.kv != "2", "kv: is neither 1 nor 2")
	wrong(v.mount != "" && !strings.HasPrefix(v.path, v.mount+"/"), "mount: the path does not begin with it")
	if o.Has("version") {
		v.version, err = strconv.Atoi(o.Get("version"))
		wrong(err != nil || v.version < 1 || v.kv == "1", "version: is no number above zero, or kv is 1")
	}
	ttl, err := span(o, "ttl", storeTTL)
	errs = append(errs, err)
	limit, err := span(o, "timeout", storeLimit)
	errs = append(errs, err)
	v.login, err = newVaultLogin(o)
	if err = errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	v.kept = newKept(ttl, limit, v.read)
	return v, nil
}

// read reads the secret; once more with a new token where the one in hand is refused, because tokens end.
func (v *vault) read(ctx context.Context) (fetched, error) {
	for again := false; ; again = true {
		client, used, err := v.login.client(ctx)
		if err != nil {
			return fetched{}, err
		}
		got, err := v.get(ctx, client)
		if statusOf(err) != 403 || again || !v.login.drop(used) {
			return got, v.explain(err)
		}
	}
}

func (v *vault) get(ctx context.Context, client *api.Client) (got fetched, err error) {
	mount, kv := v.mount, v.kv
	if kv == "" {
		// The command vault kv asks the same, with the rights that every token has.
		s, err := client.Logical().ReadWithContext(ctx, "sys/internal/ui/mounts/"+v.path)
		if err == nil && s == nil {
			err = api.ErrSecretNotFound
		}
		if err != nil {
			return got, asking{err}
		}
		found, _ := s.Data["path"].(string)
		version, _ := s.Data["options"].(map[string]any)
		mount = cmp.Or(mount, strings.Trim(found, "/"))
		if kv = "1"; version["version"] == "2" {
			kv = "2"
		}
	}
	first, _, _ := strings.Cut(v.path, "/")
	mount = cmp.Or(mount, first)
	below := strings.TrimPrefix(v.path, mount+"/")
	var s *api.KVSecret
	switch {
	case kv == "1":
		v.shows(path.Join(mount, below))
		s, err = client.KVv1(mount).Get(ctx, below)
	case v.version > 0:
		v.shows(path.Join(mount, "data", below))
		s, err = client.KVv2(mount).GetVersion(ctx, below, v.version)
	default:
		v.shows(path.Join(mount, "data", below))
		s, err = client.KVv2(mount).Get(ctx, below)
	}
	if err != nil {
		return got, asking{err}
	}
	if s.VersionMetadata != nil {
		got.changed = s.VersionMetadata.CreatedTime
	}
	if s.Raw != nil && s.Raw.LeaseDuration > 0 {
		got.life = time.Duration(s.Raw.LeaseDuration) * time.Second
	}
	if s.Data == nil {
		return got, fmt.Errorf("the version at %s is deleted: %w", v.shown(), ErrNotFound)
	}
	raw, ok := s.Data[v.key]
	if !ok {
		return got, fmt.Errorf("%s has no key %s; it has %d others: %w", v.shown(), v.key, len(s.Data), ErrNotFound)
	}
	value, ok := raw.(string)
	if !ok {
		return got, fmt.Errorf("the key %s at %s is no text", v.key, v.shown())
	}
	got.value, err = text([]byte(value))
	return got, err
}

// asking is an error of a question to Vault, as against one of what it answered.
type asking struct{ error }

func (a asking) Unwrap() error { return a.error }

// explain says what an error of Vault means, where, and what to do. The texts of the server are left out: some repeat
// what was sent.
func (v *vault) explain(err error) error {
	if _, ok := errors.AsType[asking](err); !ok {
		return err
	}
	at := v.shown()
	var answer *api.ResponseError
	switch {
	case errors.Is(err, errElsewhere):
		return fmt.Errorf("vault answers for %s by leading elsewhere; no token is sent there: name the active server in address", at)
	case errors.Is(err, api.ErrSecretNotFound):
		return fmt.Errorf("vault has nothing at %s; vault kv put writes it, and the path is the one of the policy, case and all: %w", at, ErrNotFound)
	case !errors.As(err, &answer):
		return away(err)
	case isSealed(answer):
		return fmt.Errorf("%w: vault is sealed; vault operator unseal opens it", ErrAway)
	case answer.StatusCode == 403:
		return fmt.Errorf("vault refuses to show %s (403): the policy of the token needs path %q { capabilities = [\"read\"] }, or the token has ended", at, at)
	case answer.StatusCode == 404:
		return fmt.Errorf("vault has nothing mounted for %s (404); is mount or namespace right: %w", at, ErrNotFound)
	case answer.StatusCode == 429, answer.StatusCode >= 470:
		return fmt.Errorf("%w: vault answered %d", ErrAway, answer.StatusCode)
	default:
		return fmt.Errorf("vault answered %d for %s", answer.StatusCode, at)
	}
}

func isSealed(a *api.ResponseError) bool {
	return a.StatusCode == 503 && slices.ContainsFunc(a.Errors, func(s string) bool { return strings.Contains(strings.ToLower(s), "sealed") })
}

func statusOf(err error) int {
	var answer *api.ResponseError
	if errors.As(err, &answer) {
		return answer.StatusCode
	}
	return 0
}

// away makes an error of the connection: what it was in a few words, never the address with what stands in it.
func away(err error) error {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: no answer in time", ErrAway)
	case errors.As(err, &dns):
		return fmt.Errorf("%w: the name %s does not resolve", ErrAway, dns.Name)
	case errors.As(err, &op):
		return fmt.Errorf("%w: %s: %w", ErrAway, op.Op, op.Err)
	}
	return fmt.Errorf("%w: %s", ErrAway, Scrub(printable(err.Error())))
}

func (v *vault) shows(path string) {
	v.login.mu.Lock()
	defer v.login.mu.Unlock()
	v.description = path
}

// shown is the path without key and options.
func (v *vault) shown() string {
	v.login.mu.Lock()
	defer v.login.mu.Unlock()
	return v.description
}
