package identity

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
)

// sigv4 signs requests as AWS wants it (Signature Version 4), and those who copied it.
type sigv4 struct {
	AccessKeyID    string     `koanf:"access_key_id" help:"access key id; required"`
	SecretKey      secret.Ref `koanf:"secret_access_key" help:"secret access key; required"`
	SessionToken   secret.Ref `koanf:"session_token" help:"session token of temporary credentials"`
	Region         string     `koanf:"region" help:"region in the scope of the signature, such as eu-central-1; required"`
	Service        string     `koanf:"service" help:"service in the scope of the signature, such as execute-api or s3; required"`
	credentialKeys `koanf:",squash"`
	common         `koanf:",squash"`
	*fixed
}

func newSigV4(decode func(any) error, env Env) (Identity, error) {
	s := &sigv4{fixed: newFixed(env, pace.Policy{})}
	if err := decode(s); err != nil {
		return nil, err
	}
	s.of("secret_access_key", s.SecretKey, env)
	var errs []error
	for _, k := range []struct {
		name    string
		missing bool
	}{{"access_key_id", s.AccessKeyID == ""}, {"secret_access_key", s.SecretKey.IsZero()}, {"region", s.Region == ""}, {"service", s.Service == ""}} {
		if k.missing {
			errs = append(errs, errors.New(k.name+": is missing"))
		}
	}
	return s, errors.Join(errs...)
}

func (s *sigv4) Apply(ctx context.Context, req *http.Request) (Grant, error) {
	g := Grant{Scheme: "sigv4"}
	if err := s.allows(req); err != nil {
		return g, err
	}
	key, err := reveal(ctx, "secret_access_key", s.SecretKey)
	if err != nil {
		return g, err
	}
	session := ""
	if !s.SessionToken.IsZero() {
		v, err := reveal(ctx, "session_token", s.SessionToken)
		if err != nil {
			return g, err
		}
		session = v.Expose()
	}
	g.Readings, g.Notes = s.about(ctx, key)
	if req.URL.Host == "" {
		return g, nil
	}
	if g.ID, err = s.admit(s.AccessKeyID + ":" + key.Expose() + ":" + session); err != nil {
		return g, err
	}
	hash, err := bodyHash(req)
	if err != nil {
		return g, err
	}
	if s.Service == "s3" {
		req.Header.Set("X-Amz-Content-Sha256", hash)
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = s.Service == "s3" })
	if err := signer.SignHTTP(ctx, aws.Credentials{AccessKeyID: s.AccessKeyID, SecretAccessKey: key.Expose(), SessionToken: session}, req, hash, s.Service, s.Region, time.Now()); err != nil {
		return g, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomSecret, Code: "sigv4", Err: errors.New("the request cannot be signed")}
	}
	return g, nil
}

// bodyHash gives the SHA-256 of the body in hexadecimal, and leaves the body as it was.
func bodyHash(req *http.Request) (string, error) {
	b, err := bodyOf(req)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// bodyOf reads a copy of the body; requests of probes have one that can be had again.
func bodyOf(req *http.Request) ([]byte, error) {
	if req.Body == nil || req.GetBody == nil {
		return nil, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, 16<<20))
}

func (s *sigv4) Settle(g Grant, o Outcome) bool { s.settle(g, o); return false }
func (s *sigv4) ClientCertificate(context.Context) (*tls.Certificate, error) {
	return nil, nil
}

func (s *sigv4) Status() Status {
	return Status{Kind: "sigv4", Scheme: "sigv4", Gate: s.state(), Origin: s.Origins}
}
