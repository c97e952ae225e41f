package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"text/template"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
)

// maxBody bounds what a template may make of a batch.
const maxBody = 1 << 20

// webhook posts a JSON document, or what a template makes of it. With a key the body is signed: X-Authvigil-Signature is
// sha256= and the HMAC, in hexadecimal, over X-Authvigil-Timestamp, a full stop and the body.
type webhook struct {
	URL         string        `koanf:"url" help:"address to post to"`
	SecretURL   secret.Ref    `koanf:"secret_url" help:"in place of url, where the address itself is a secret, as with many chat services"`
	Key         secret.Ref    `koanf:"signing_key" help:"key of the HMAC-SHA256 over time and body"`
	Template    string        `koanf:"template" help:"Go template of the body, which gets version and alerts as in the JSON document, and the function json; default: that document"`
	ContentType string        `koanf:"content_type" help:"type of what the template makes; default application/json"`
	Repeat      time.Duration `koanf:"repeat" help:"tell what still fires again after this time; default: only the beginning and the end are told"`
	poster      `koanf:",squash"`

	shape *template.Template
}

func newWebhook(decode func(any) error, env Env) ([]*Receiver, error) {
	w := &webhook{ContentType: "application/json"}
	if err := decode(w); err != nil {
		return nil, err
	}
	r := &Receiver{Sink: w, Name: "secret_url", News: true, Repeat: w.Repeat}
	switch {
	case w.SecretURL.IsZero():
		u, err := address(w.URL)
		if err != nil {
			return nil, fmt.Errorf("url: %w", err)
		}
		r.Name = u.Host
	case w.URL != "":
		return nil, errors.New("secret_url: give it or url, not both")
	}
	if err := w.parse(); err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	if err := w.build(env); err != nil {
		return nil, err
	}
	return []*Receiver{r}, nil
}

// parse reads the template and tries it on a test alert, so that a wrong field is found before something burns.
func (w *webhook) parse() (err error) {
	if w.Template == "" {
		return nil
	}
	w.shape, err = template.New("template").Option("missingkey=zero").Funcs(template.FuncMap{"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	}}).Parse(w.Template)
	if err != nil {
		return err
	}
	_, err = w.body(documentOf([]Notice{{Alert: Alert{Name: "AuthvigilTest", Severity: Warning}}}))
	return err
}

// document is what is posted.
type document struct {
	Version int    `json:"version"`
	Alerts  []item `json:"alerts"`
}

type item struct {
	posted
	Status string `json:"status"`
}

func documentOf(batch []Notice) document {
	d := document{Version: 1}
	for _, n := range batch {
		status := "firing"
		if n.Resolved {
			status = "resolved"
		}
		d.Alerts = append(d.Alerts, item{postedOf(n), status})
	}
	return d
}

func (w *webhook) body(d document) ([]byte, error) {
	if w.shape == nil {
		return json.Marshal(d)
	}
	out := &bounded{left: maxBody}
	err := w.shape.Execute(out, d)
	return out.Bytes(), err
}

// bounded is a buffer that does not grow without end.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("makes more than %d bytes: %w", maxBody, ErrTooLarge)
	}
	return b.Buffer.Write(p)
}

func (w *webhook) Send(ctx context.Context, batch []Notice) error {
	where, err := w.where(ctx)
	if err != nil {
		return err
	}
	body, err := w.body(documentOf(batch))
	switch {
	case errors.Is(err, ErrTooLarge):
		return fmt.Errorf("template: %w", err)
	case err != nil:
		return fmt.Errorf("%w: template: %w", ErrPermanent, err)
	}
	header := http.Header{"Content-Type": {w.ContentType}}
	if !w.Key.IsZero() {
		key, err := w.Key.Reveal(ctx)
		if err != nil {
			return fmt.Errorf("signing_key: %w", err)
		}
		now := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, []byte(key.Expose()))
		mac.Write([]byte(now + "."))
		mac.Write(body)
		header.Set("X-Authvigil-Timestamp", now)
		header.Set("X-Authvigil-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	_, err = w.post(ctx, where, body, header)
	return err
}

func (w *webhook) where(ctx context.Context) (string, error) {
	if w.SecretURL.IsZero() {
		return w.URL, nil
	}
	v, err := w.SecretURL.Reveal(ctx)
	if err != nil {
		return "", fmt.Errorf("secret_url: %w", err)
	}
	var u *url.URL
	if u, err = address(v.Expose()); err != nil {
		return "", fmt.Errorf("secret_url: %w", err)
	}
	return u.String(), nil
}
